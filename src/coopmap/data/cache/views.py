"""Makers of views that also understand what the cache holds, for each layout.

Each writes, with ``content``, what it makes of a record without augmentation, and puts augmentation on top of that when
it is asked for views. A record that was read from files is treated as ever.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Protocol

import cv2
import numpy as np
from jaxtyping import Float, Float32, Int, UInt8

from coopmap.config.data import DataConfig
from coopmap.data.augmentation import roll_columns
from coopmap.data.cache.encoding import Content, decoded_masks, decoded_rays, encoded_rays, encoded_vehicles
from coopmap.data.cache.stored import StoredRecord
from coopmap.data.camera_views import CameraViews
from coopmap.data.mosaic import MosaicViews, in_view
from coopmap.data.opv2v import VehicleBoxes
from coopmap.data.panorama_frame import PanoramaFrame
from coopmap.data.vehicles import vehicle_pixels
from coopmap.data.views import (
    GroupedViews,
    Masks,
    PanoramaViews,
    Record,
    View,
    WarpedViews,
    turned_points,
)
from coopmap.geometry.mosaic import Mosaic
from coopmap.geometry.prepared_warp import PreparedWarp
from coopmap.geometry.stitching import brighten
from coopmap.geometry.targets import SeenPoints, scattered


class StoredViews(Protocol):
    """Makes views of what the cache holds, or of what was read from files, and writes the former."""

    def content(self, agent: str, record: Record, vehicles: VehicleBoxes | None) -> tuple[np.ndarray, Content]:
        """Images without gains, and the arrays that all else is made from.

        Args:
            agent: id of the agent.
            record: read from files.
            vehicles: of all agents of the frame.
        """

    def __call__(
        self, agent: str, record: Record, vehicles: VehicleBoxes | None, rng: np.random.Generator | None
    ) -> list[View]:
        """See :class:`~coopmap.data.views.PanoramaViews`."""


class StoredPanoramaViews(PanoramaViews):
    """One panorama per agent; see the module."""

    def content(
        self, agent: str, record: Record, vehicles: VehicleBoxes | None
    ) -> tuple[UInt8[np.ndarray, "*k h w 3"], Content]:
        """See :class:`StoredViews`."""
        frame = self._frame(record.metadata.rig, None)
        rays, ranges = self._geometry(record, frame)
        content = self._encoded_geometry(record, frame, rays, ranges)
        if vehicles is not None:
            points = turned_points(rays, ranges, frame.agent_from_view)
            content |= encoded_vehicles(vehicle_pixels(points, ranges > 0, agent, record.metadata, vehicles))
        return self._image(record, None, frame), content

    def _encoded_geometry(
        self,
        record: Record,
        frame: PanoramaFrame,
        rays: Float32[np.ndarray, "h w 3"],
        ranges: Float32[np.ndarray, "h w"],
    ) -> Content:
        if self.config.panorama.geometry == "content" and isinstance(record.depth, SeenPoints):
            at, points = self._placed_points(record.depth, frame)
            return {"at": at.astype(np.int32), "points": points}
        if self.config.panorama.geometry == "central":
            return {"ranges": ranges}
        return {"ranges": ranges, **encoded_rays(rays, self.nominal_rays)}

    def _image(
        self, record: Record, gains: Float[np.ndarray, " k"] | None, frame: PanoramaFrame
    ) -> UInt8[np.ndarray, "*k hp wp 3"]:
        if not isinstance(record, StoredRecord):
            return super()._image(record, gains, frame)
        return record.images if gains is None else self._with_gains(record.images, gains, frame)

    def _with_gains(
        self, image: UInt8[np.ndarray, "*k hp wp 3"], gains: Float[np.ndarray, " k"], frame: PanoramaFrame
    ) -> UInt8[np.ndarray, "*k hp wp 3"]:
        """Every pixel in the gain of the camera that shows it, of both where two are blended."""
        factor = _gain_map(frame.prepared, gains)
        return cv2.multiply(image, cv2.merge([factor, factor, factor]), dtype=cv2.CV_8U)

    def _geometry(
        self, record: Record, frame: PanoramaFrame
    ) -> tuple[Float32[np.ndarray, "h w 3"], Float32[np.ndarray, "h w"]]:
        if not isinstance(record, StoredRecord):
            return super()._geometry(record, frame)
        content, turn = record.content, frame.agent_from_view[:3, :3].T
        if "points" in content:
            return scattered(content["at"], content["points"], turn, self.nominal_rays, frame.shift)
        ranges = roll_columns(content["ranges"], frame.shift)
        if "directions" not in content:
            return self.nominal_rays, ranges
        return decoded_rays(content, turn, self.nominal_rays, frame.shift), ranges

    def _vehicle_masks(
        self,
        agent: str,
        record: Record,
        vehicles: VehicleBoxes,
        frame: PanoramaFrame,
        rays: Float32[np.ndarray, "h w 3"],
        depth: Float32[np.ndarray, "h w"],
    ) -> Masks:
        if not isinstance(record, StoredRecord):
            return super()._vehicle_masks(agent, record, vehicles, frame, rays, depth)
        moving, own_body = decoded_masks(record.content, agent, vehicles, depth.shape)
        return roll_columns(moving, frame.shift), roll_columns(own_body, frame.shift)


class StoredWarpedViews(StoredPanoramaViews, WarpedViews):
    """The panorama of an agent with its cameras apart."""

    def _with_gains(
        self, image: UInt8[np.ndarray, "k hp wp 3"], gains: Float[np.ndarray, " k"], frame: PanoramaFrame
    ) -> UInt8[np.ndarray, "k hp wp 3"]:
        return _brightened(image, gains)


class StoredGroupedViews(StoredPanoramaViews, GroupedViews):
    """The camera images of an agent, targets of the panorama."""

    def _with_gains(
        self, image: UInt8[np.ndarray, "k h w 3"], gains: Float[np.ndarray, " k"], frame: PanoramaFrame
    ) -> UInt8[np.ndarray, "k h w 3"]:
        return _brightened(image, gains)


class StoredCameraViews(CameraViews):
    """Every camera a view of its own."""

    def content(
        self, agent: str, record: Record, vehicles: VehicleBoxes | None
    ) -> tuple[UInt8[np.ndarray, "k h w 3"], Content]:
        """See :class:`StoredViews`."""
        rig = record.metadata.rig
        if isinstance(record.depth, SeenPoints):
            at, points = self._placed_points(record.depth)
            rays, ranges = self._scattered(rig, at, points)
            content = {"at": at.astype(np.int32), "points": points}
        else:
            rays, ranges = self._geometry(record)
            content = {"ranges": ranges}
        if vehicles is not None:
            points = self._points(rig, rays, ranges)
            content |= encoded_vehicles(vehicle_pixels(points, ranges > 0, agent, record.metadata, vehicles))
        return self._images(record, None), content

    def _images(self, record: Record, gains: Float[np.ndarray, " k"] | None) -> UInt8[np.ndarray, "k h w 3"]:
        if not isinstance(record, StoredRecord):
            return super()._images(record, gains)
        return record.images if gains is None else _brightened(record.images, gains)

    def _geometry(self, record: Record) -> tuple[Float32[np.ndarray, "k h w 3"], Float32[np.ndarray, "k h w"]]:
        if not isinstance(record, StoredRecord):
            return super()._geometry(record)
        content, rig = record.content, record.metadata.rig
        if "points" in content:
            return self._scattered(rig, content["at"], content["points"])
        return self._shown(rig, content["ranges"])

    def _vehicle_masks(
        self,
        agent: str,
        record: Record,
        vehicles: VehicleBoxes,
        rays: Float32[np.ndarray, "k h w 3"],
        depths: Float32[np.ndarray, "k h w"],
    ) -> Masks:
        if not isinstance(record, StoredRecord):
            return super()._vehicle_masks(agent, record, vehicles, rays, depths)
        return decoded_masks(record.content, agent, vehicles, depths.shape)


class StoredMosaicViews(MosaicViews):
    """One mosaic per agent; see the module."""

    def content(
        self, agent: str, record: Record, vehicles: VehicleBoxes | None
    ) -> tuple[UInt8[np.ndarray, "k h w 3"], Content]:
        """See :class:`StoredViews`."""
        mosaic = self._mosaic(record.metadata.rig)
        if isinstance(record.depth, SeenPoints):
            at, points = mosaic.placed_points(record.depth)
            rays, ranges = scattered(at, points, np.eye(3), mosaic.nominal_rays)
            content = {"at": at.astype(np.int32), "points": points}
        else:
            rays, ranges = self._geometry(record, mosaic, np.eye(4))
            content = {"ranges": ranges, **encoded_rays(rays, mosaic.nominal_rays)}
        if vehicles is not None:
            points = turned_points(rays, ranges, np.eye(4))
            content |= encoded_vehicles(vehicle_pixels(points, ranges > 0, agent, record.metadata, vehicles))
        return self._tiles(record, None), content

    def _tiles(self, record: Record, gains: Float[np.ndarray, " k"] | None) -> UInt8[np.ndarray, "k h w 3"]:
        if not isinstance(record, StoredRecord):
            return super()._tiles(record, gains)
        return record.images if gains is None else _brightened(record.images, gains)

    def _geometry(
        self, record: Record, mosaic: Mosaic, turn: Float[np.ndarray, "4 4"]
    ) -> tuple[Float32[np.ndarray, "h w 3"], Float32[np.ndarray, "h w"]]:
        if not isinstance(record, StoredRecord):
            return super()._geometry(record, mosaic, turn)
        content, view_from_agent, nominal = record.content, turn[:3, :3].T, in_view(mosaic.nominal_rays, turn)
        if "points" in content:
            return scattered(content["at"], content["points"], view_from_agent, nominal)
        return decoded_rays(content, view_from_agent, nominal), content["ranges"]

    def _vehicle_masks(
        self,
        agent: str,
        record: Record,
        vehicles: VehicleBoxes,
        turn: Float[np.ndarray, "4 4"],
        rays: Float32[np.ndarray, "h w 3"],
        depth: Float32[np.ndarray, "h w"],
    ) -> Masks:
        if not isinstance(record, StoredRecord):
            return super()._vehicle_masks(agent, record, vehicles, turn, rays, depth)
        return decoded_masks(record.content, agent, vehicles, depth.shape)


_PANORAMAS: dict[str, type[StoredPanoramaViews]] = {
    "panorama": StoredPanoramaViews,
    "warped": StoredWarpedViews,
    "grouped": StoredGroupedViews,
}


def build_stored_views(config: DataConfig, depth_is_dense: bool) -> StoredViews:
    """The maker of views of a layout."""
    if config.layout == "cameras":
        return StoredCameraViews(config)
    if config.layout == "mosaic":
        return StoredMosaicViews(config)
    return _PANORAMAS[config.layout](config, depth_is_dense)


def _gain_map(prepared: PreparedWarp, gains: Float[np.ndarray, " k"]) -> Float32[np.ndarray, "hp wp"]:
    """The gain of each pixel's camera, mixed where two are blended as their colors are."""
    winner, at, other, weight = _blending(prepared)
    table = np.resize(gains.astype(np.float32), 256)
    factor = cv2.LUT(winner, table)
    flat = factor.reshape(-1)
    flat[at] += (table[other] - flat[at]) * weight
    return factor


@lru_cache(maxsize=8)
def _blending(
    prepared: PreparedWarp,
) -> tuple[UInt8[np.ndarray, "h w"], Int[np.ndarray, " n"], Int[np.ndarray, " n"], Float32[np.ndarray, " n"]]:
    warp = prepared.warp
    return warp.winner.view(np.uint8), warp.blend_at.astype(np.intp), warp.blend_camera, warp.blend_weight


def _brightened(images: UInt8[np.ndarray, "k h w 3"], gains: Float[np.ndarray, " k"]) -> UInt8[np.ndarray, "k h w 3"]:
    return np.stack([brighten(image, gain) for image, gain in zip(images, gains, strict=True)])
