"""Every camera a view of its own: the baseline of 4n views (numpy)."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from jaxtyping import Float, Float32, Int, UInt8

from coopmap.config.data import DataConfig
from coopmap.data.augmentation import draw_gains, draw_tilt, jitter
from coopmap.data.opv2v import VehicleBoxes
from coopmap.data.vehicles import vehicle_masks
from coopmap.data.views import Masks, Record, View, resized, turned_points
from coopmap.geometry.cameras import PinholeCamera, pixel_centers
from coopmap.geometry.rig import Rig
from coopmap.geometry.targets import SeenPoints, rows_and_columns, scattered


class CameraViews:
    """Every camera a pinhole view of its own, in slot order: the baseline of 4n views."""

    def __init__(self, config: DataConfig) -> None:
        self.config = config

    def __call__(
        self, agent: str, record: Record, vehicles: VehicleBoxes | None, rng: np.random.Generator | None
    ) -> list[View]:
        """See :meth:`coopmap.data.views.PanoramaViews.__call__`.

        Turning or tilting the agent's frame changes none of these views.
        """
        rig, augmentation = record.metadata.rig, self.config.augmentation
        gains = None if rng is None else draw_gains(record.num_cameras, augmentation, rng)
        images = self._images(record, gains)
        images = images if rng is None else jitter(images, augmentation, rng)
        if rng is not None and augmentation.yaw_roll:
            rng.integers(self.config.panorama.width)
        if rng is not None:
            draw_tilt(augmentation, rng)
        rays, depths = self._geometry(record)
        masks = None if vehicles is None else self._vehicle_masks(agent, record, vehicles, rays, depths)
        return [
            self._view(record, rays[slot], depths[slot], images[slot], slot, masks)
            for slot in range(len(rig.intrinsics))
        ]

    def _images(self, record: Record, gains: Float[np.ndarray, " k"] | None) -> UInt8[np.ndarray, "k h w 3"]:
        """What photometric augmentation is applied to."""
        return resized(record.images, gains, self.config.cameras)

    def _geometry(self, record: Record) -> tuple[Float32[np.ndarray, "k h w 3"], Float32[np.ndarray, "k h w"]]:
        """Directions and ranges, from each camera and in its frame, of what its pixels show."""
        rig = record.metadata.rig
        if isinstance(record.depth, SeenPoints):
            return self._scattered(rig, *self._placed_points(record.depth))
        return self._shown(rig, self._depths(rig, record.depth))

    def _depths(self, rig: Rig, full: Float32[np.ndarray, "k hi wi"]) -> Float32[np.ndarray, "k h w"]:
        """Range of the point that the nearest pixel of the full image shows."""
        size = self.config.cameras
        pixels = _pixels_in_full(size.height, size.width, rig.image_size)
        column, row = np.floor(np.moveaxis(pixels, -1, 0)).astype(np.int64)
        return full[:, row, column]

    def _shown(
        self, rig: Rig, depths: Float32[np.ndarray, "k h w"]
    ) -> tuple[Float32[np.ndarray, "k h w 3"], Float32[np.ndarray, "k h w"]]:
        """:meth:`_geometry` from :meth:`_depths`."""
        rays = np.empty((*depths.shape, 3), np.float32)
        for slot, depth in enumerate(depths):
            rays[slot], shown = self._rays(rig, slot)
            cv2.copyTo(shown, (depth > 0).view(np.uint8), rays[slot])  # a fifth of the time of np.where
        return rays, depths

    def _placed_points(self, seen: SeenPoints) -> tuple[Int[np.ndarray, " n"], Float32[np.ndarray, "n 3"]]:
        """See :meth:`SeenPoints.nearest_in`; flat pixels of ``k h w``."""
        size = self.config.cameras
        row, column = seen.resized(size.height, size.width)
        at = (seen.camera.astype(np.int32) * size.height + row) * size.width + column
        return seen.nearest_in(at, seen.num_cameras * size.height * size.width)

    def _scattered(
        self, rig: Rig, at: Int[np.ndarray, " n"], points: Float32[np.ndarray, "n 3"]
    ) -> tuple[Float32[np.ndarray, "k h w 3"], Float32[np.ndarray, "k h w"]]:
        """:meth:`_geometry` from :meth:`_placed_points`: the target is where the point was measured."""
        size = self.config.cameras
        rays = np.empty((len(rig.intrinsics), size.height, size.width, 3), np.float32)
        depths = np.empty(rays.shape[:3], np.float32)
        camera, pixel = rows_and_columns(at, size.height * size.width)
        for slot, pose in enumerate(rig.agent_from_camera):
            here = np.flatnonzero(camera == slot)
            from_camera = points.take(here, axis=0) - pose[:3, 3].astype(np.float32)  # where these rays start
            rays[slot], depths[slot] = scattered(pixel[here], from_camera, pose[:3, :3].T, self._rays(rig, slot)[0])
        return rays, depths

    def _vehicle_masks(
        self,
        agent: str,
        record: Record,
        vehicles: VehicleBoxes,
        rays: Float32[np.ndarray, "k h w 3"],
        depths: Float32[np.ndarray, "k h w"],
    ) -> Masks:
        """Of all cameras; pixels of moving vehicles and of the agent's own body."""
        points = self._points(record.metadata.rig, rays, depths)
        return vehicle_masks(points, depths > 0, agent, record.metadata, vehicles)

    def _points(
        self, rig: Rig, rays: Float32[np.ndarray, "k h w 3"], depths: Float32[np.ndarray, "k h w"]
    ) -> Float32[np.ndarray, "k h w 3"]:
        """What the pixels of all cameras show, agent frame."""
        points = np.empty((3, *depths.shape), np.float32)  # numpy is fast on coordinates that lie apart
        for slot, depth in enumerate(depths):
            points[:, slot] = np.moveaxis(turned_points(rays[slot], depth, rig.agent_from_camera[slot]), -1, 0)
            points[:, slot] += rig.agent_from_camera[slot, :3, 3, None, None].astype(np.float32)
        return np.moveaxis(points, 0, -1)

    def _rays(self, rig: Rig, slot: int) -> tuple[Float32[np.ndarray, "h w 3"], Float32[np.ndarray, "h w 3"]]:
        """See :func:`_camera_rays`."""
        size = self.config.cameras
        return _camera_rays(rig.intrinsics[slot].tobytes(), size.height, size.width, rig.image_size)

    def _view(
        self,
        record: Record,
        rays: Float32[np.ndarray, "h w 3"],
        depth: Float32[np.ndarray, "h w"],
        image: UInt8[np.ndarray, "h w 3"],
        slot: int,
        masks: Masks | None,
    ) -> View:
        rig = record.metadata.rig
        agent_from_camera = rig.agent_from_camera[slot]
        return View(
            image=image,
            nominal_rays=self._rays(rig, slot)[0],
            rays=rays,
            depth=depth,
            non_ambiguous=np.ones(depth.shape, bool),
            pose=record.metadata.pose @ agent_from_camera,
            moving=None if masks is None else masks[0][slot],
            own_body=None if masks is None else masks[1][slot],
            ground_height_m=rig.ground_height_m,
            rig_pose=agent_from_camera,
        )


def _pixels_in_full(height: int, width: int, full_size: tuple[int, int]) -> Float[np.ndarray, "h w 2"]:
    """Where the centers of a smaller image's pixels lie in the full one."""
    return pixel_centers(height, width) * np.array([full_size[1] / width, full_size[0] / height])


@lru_cache(maxsize=8)
def _camera_rays(
    intrinsics: bytes, height: int, width: int, full_size: tuple[int, int]
) -> tuple[Float32[np.ndarray, "h w 3"], Float32[np.ndarray, "h w 3"]]:
    """Rays through the pixels of a smaller image, and through the full image's pixels nearest to them."""
    full = PinholeCamera(np.frombuffer(intrinsics).reshape(3, 3), *full_size)
    pixels = _pixels_in_full(height, width, full_size)
    return full.unproject(pixels).astype(np.float32), full.unproject(np.floor(pixels) + 0.5).astype(np.float32)
