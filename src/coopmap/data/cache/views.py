"""Makers of views that also understand what the cache holds, for each layout.

Each writes, with ``content``, what it makes of a record without augmentation, and puts augmentation on top of that when
it is asked for views. A record that was read from files is treated as ever.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import cv2
import numpy as np
from jaxtyping import Float, Float32, Int, UInt8

from coopmap.config.checks import ConfigError
from coopmap.config.data import DataConfig
from coopmap.data.augmentation import roll_columns
from coopmap.data.cache.stored import StoredRecord
from coopmap.data.camera_views import CameraViews
from coopmap.data.panorama_frame import PanoramaFrame
from coopmap.data.views import GroupedViews, PanoramaViews, Record, WarpedViews
from coopmap.geometry.prepared_warp import PreparedWarp
from coopmap.geometry.stitching import brightness_table
from coopmap.geometry.targets import SeenPoints, placed_points, scattered

DIRECTION_STEP = 0.25 / 32767
"""Of the 16-bit differences between a target ray and the nominal ray. Rounding moves a ray by at most
``sqrt(3) / 2`` of it: 6.6e-6 rad, 0.33 mm at 50 m. Rays that differ by more than 0.25 are kept as they are."""

Content = dict[str, np.ndarray]


class StoredPanoramaViews(PanoramaViews):
    """One panorama per agent; see the module."""

    def content(self, record: Record) -> tuple[UInt8[np.ndarray, "*k h w 3"], Content]:
        """Images, and arrays that geometry is made from."""
        rig = record.metadata.rig
        frame = self._frame(rig, None)
        images = self._image(record, None, frame)
        if self.config.panorama.geometry == "content" and isinstance(record.depth, SeenPoints):
            at, points = placed_points(record.depth, frame.prepared.warp, rig, self.spec, frame.warp_from_agent)
            return images, {"at": at.astype(np.int32), "points": points}
        rays, ranges = self._geometry(record, frame)
        if self.config.panorama.geometry == "central":
            return images, {"ranges": ranges}
        return images, {"ranges": ranges, **_encoded(rays, self.nominal_rays)}

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
        return _decoded(content, turn, self.nominal_rays, frame.shift), ranges


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

    def content(self, record: Record) -> tuple[UInt8[np.ndarray, "k h w 3"], Content]:
        """Resized images and their ranges, those of a sweep as a list."""
        images, depths = self._images(record, None), self._depths(record)
        if not isinstance(record.depth, SeenPoints):
            return images, {"ranges": depths}
        at = np.flatnonzero(depths)
        return images, {"at": at.astype(np.int32), "ranges": depths.reshape(-1)[at]}

    def _images(self, record: Record, gains: Float[np.ndarray, " k"] | None) -> UInt8[np.ndarray, "k h w 3"]:
        if not isinstance(record, StoredRecord):
            return super()._images(record, gains)
        return record.images if gains is None else _brightened(record.images, gains)

    def _depths(self, record: Record) -> Float32[np.ndarray, "k h w"]:
        if not isinstance(record, StoredRecord):
            return super()._depths(record)
        if "at" not in record.content:
            return record.content["ranges"]
        depths = np.zeros(record.images.shape[:3], np.float32)
        depths.reshape(-1)[record.content["at"]] = record.content["ranges"]
        return depths


STORED_LAYOUTS: dict[str, type[StoredPanoramaViews] | type[StoredCameraViews]] = {
    "panorama": StoredPanoramaViews,
    "warped": StoredWarpedViews,
    "grouped": StoredGroupedViews,
    "cameras": StoredCameraViews,
}


def require_known_layout(config: DataConfig) -> None:
    """Raise :class:`ConfigError` if the cache does not know the layout."""
    if config.layout not in STORED_LAYOUTS:
        raise ConfigError(
            f"data.layout={config.layout}: the cache holds {', '.join(STORED_LAYOUTS)}; train without data.cache_root"
        )


def build_stored_views(config: DataConfig, depth_is_dense: bool) -> StoredPanoramaViews | StoredCameraViews:
    """The maker of views of a layout.

    Raises:
        ConfigError: if the cache does not know the layout.
    """
    require_known_layout(config)
    kind = STORED_LAYOUTS[config.layout]
    return kind(config) if issubclass(kind, StoredCameraViews) else kind(config, depth_is_dense)


def _encoded(rays: Float32[np.ndarray, "h w 3"], nominal_rays: Float32[np.ndarray, "h w 3"]) -> Content:
    """Unit rays as 16-bit differences from the nominal ones, and those that are too far off as they are."""
    steps = np.rint((rays - nominal_rays) / np.float32(DIRECTION_STEP))
    far = np.abs(steps).max(axis=-1) > np.iinfo(np.int16).max
    steps[far] = 0
    return {"directions": steps.astype(np.int16), "far_at": np.flatnonzero(far).astype(np.int32), "far_rays": rays[far]}


def _decoded(
    content: Mapping[str, np.ndarray],
    turn: Float[np.ndarray, "3 3"],
    nominal: Float32[np.ndarray, "h w 3"],
    shift: int,
) -> Float32[np.ndarray, "h w 3"]:
    """The inverse of :func:`_encoded`, turned by whole columns."""
    steps = roll_columns(content["directions"], shift).astype(np.float32)
    rays = cv2.transform(steps, (turn * DIRECTION_STEP).astype(np.float32))
    rays += nominal
    row, column = np.divmod(content["far_at"], nominal.shape[1])
    rays[row, (column - shift) % nominal.shape[1]] = content["far_rays"] @ turn.T.astype(np.float32)
    return rays


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
    return np.stack([cv2.LUT(image, brightness_table(gain)) for image, gain in zip(images, gains, strict=True)])
