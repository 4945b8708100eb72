"""The mosaic of an agent: its camera images side by side, with ground truth seen from its center (numpy).

Turning or tilting the agent's frame leaves the image as it is and turns rays, targets and pose.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Float, Float32, UInt8

from coopmap.config.data import DataConfig
from coopmap.data.augmentation import draw_gains, draw_tilt, jitter, rotated
from coopmap.data.opv2v import VehicleBoxes
from coopmap.data.vehicles import vehicle_masks
from coopmap.data.views import CameraCells, Masks, Record, View, turned_points
from coopmap.geometry.mosaic import Mosaic, MosaicSpec, draw_tiles, joined
from coopmap.geometry.poses import rotation_about_y
from coopmap.geometry.rig import Rig
from coopmap.geometry.se3_numpy import relative_pose
from coopmap.geometry.targets import SeenPoints, content_geometry
from coopmap.geometry.warp_cache import rounded_rig

MAX_RIGS = 8
"""Rigs whose rays are kept: some 10 MB each at the default size."""


class MosaicViews:
    """One mosaic per agent.

    Args:
        config: sizes, proxy surface and augmentation.
    """

    def __init__(self, config: DataConfig) -> None:
        self.config = config
        size, panorama = config.mosaic, config.panorama
        self.spec = MosaicSpec(size.height, size.width, panorama.surface, panorama.radius_m)
        self._mosaics: dict[bytes, Mosaic] = {}

    def __call__(
        self, agent: str, record: Record, vehicles: VehicleBoxes | None, rng: np.random.Generator | None
    ) -> list[View]:
        """See :meth:`coopmap.data.views.PanoramaViews.__call__`, which draws the same random numbers."""
        metadata, augmentation = record.metadata, self.config.augmentation
        turn, gains = np.eye(4), None
        if rng is not None:
            tilt = draw_tilt(augmentation, rng)
            turn = turn if tilt is None else tilt
            gains = draw_gains(record.num_cameras, augmentation, rng)
        tiles = self._tiles(record, gains)
        if rng is not None:
            tiles = jitter(tiles, augmentation, rng)
            if augmentation.yaw_roll:
                width = self.config.panorama.width  # angles are those by which panoramas are rolled
                turn = turn @ rotation_about_y(2 * np.pi * int(rng.integers(width)) / width)
        mosaic = self._mosaic(metadata.rig)
        rays, depth = self._geometry(record, mosaic, turn)
        masks = None if vehicles is None else self._vehicle_masks(agent, record, vehicles, turn, rays, depth)
        return [
            View(
                image=joined(tiles),
                nominal_rays=in_view(mosaic.lines_of_sight, turn),
                rays=rays,
                depth=depth,
                non_ambiguous=np.ones(depth.shape, bool),
                pose=metadata.pose @ turn,
                moving=None if masks is None else masks[0],
                own_body=None if masks is None else masks[1],
                ground_height_m=metadata.rig.ground_height_m,
                cells=CameraCells(relative_pose(turn, metadata.rig.agent_from_camera)),
            )
        ]

    def _tiles(self, record: Record, gains: Float[np.ndarray, " k"] | None) -> UInt8[np.ndarray, "k h w 3"]:
        """What photometric augmentation is applied to."""
        return draw_tiles(record.images, self.spec, gains)

    def _vehicle_masks(
        self,
        agent: str,
        record: Record,
        vehicles: VehicleBoxes,
        turn: Float[np.ndarray, "4 4"],
        rays: Float32[np.ndarray, "h w 3"],
        depth: Float32[np.ndarray, "h w"],
    ) -> Masks:
        """Pixels of moving vehicles and of the agent's own body."""
        return vehicle_masks(turned_points(rays, depth, turn), depth > 0, agent, record.metadata, vehicles)

    def _mosaic(self, rig: Rig) -> Mosaic:
        """That of the rounded rig: noise of calibration finds the same rays."""
        rig = rounded_rig(rig)
        values = rig.intrinsics, rig.agent_from_camera, np.array([*rig.image_size, rig.ground_height_m])
        key = b"".join(np.round(value, 7).astype(np.float32).tobytes() for value in values)
        if key not in self._mosaics:
            self._mosaics[key] = Mosaic(rig, self.spec)
            if len(self._mosaics) > MAX_RIGS:
                self._mosaics.pop(next(iter(self._mosaics)))
        return self._mosaics[key]

    def _geometry(
        self, record: Record, mosaic: Mosaic, turn: Float[np.ndarray, "4 4"]
    ) -> tuple[Float32[np.ndarray, "h w 3"], Float32[np.ndarray, "h w"]]:
        """Directions and ranges, from the agent's center, of what the pixels show; in the view's frame."""
        rig, nominal = record.metadata.rig, in_view(mosaic.nominal_rays, turn)
        if isinstance(record.depth, SeenPoints):
            return mosaic.scattered_geometry(record.depth, turn[:3, :3].T, nominal)
        rig_in_view = replace(rig, agent_from_camera=relative_pose(turn, rig.agent_from_camera))
        return content_geometry(mosaic.nearest, rig_in_view, record.depth, nominal)


def in_view(rays: Float32[np.ndarray, "h w 3"], turn: Float[np.ndarray, "4 4"]) -> Float32[np.ndarray, "h w 3"]:
    """Directions of the agent frame in one that is turned against it; the same array where it is not."""
    return rays if np.array_equal(turn, np.eye(4)) else rotated(rays, turn.T)
