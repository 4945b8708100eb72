"""From the decoded files of one agent to the views that a model attends over, in each layout (numpy).

All layouts draw the same random numbers, so that samples of two layouts differ in nothing but the layout.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, Int, UInt8

from coopmap.config.data import CamerasConfig, DataConfig, PanoramaConfig
from coopmap.data.augmentation import (
    draw_gains,
    draw_tilt,
    jitter,
    roll_columns,
    rotated,
)
from coopmap.data.opv2v import AgentMetadata, VehicleBoxes
from coopmap.data.panorama_frame import PanoramaFrame
from coopmap.data.vehicles import vehicle_masks
from coopmap.geometry.cameras import PanoramaCamera, camera_rays, pixel_centers
from coopmap.geometry.central import central_geometry, central_ranges
from coopmap.geometry.densify import densified
from coopmap.geometry.panorama import PanoramaSpec, build_warp, look_up
from coopmap.geometry.prepared_warp import PreparedWarp
from coopmap.geometry.rig import Rig
from coopmap.geometry.stitching import brighten, warp_cameras
from coopmap.geometry.targets import SeenPoints, content_geometry, placed_points, scattered
from coopmap.geometry.warp_cache import WarpCache, rounded_rig

IMAGE_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
IMAGE_STD = np.array([0.229, 0.224, 0.225], np.float32)
"""DINOv2's (ImageNet's) normalization of RGB in [0, 1]."""


@dataclass(frozen=True, eq=False)
class Record:
    """Decoded files of one agent in one frame, slot order."""

    metadata: AgentMetadata
    images: UInt8[np.ndarray, "k h w 3"]
    depth: Float32[np.ndarray, "k h w"] | SeenPoints

    @property
    def num_cameras(self) -> int:
        """Of the rig."""
        return len(self.metadata.rig.intrinsics)


@dataclass(frozen=True, eq=False)
class CameraCells:
    """Where each camera is, and what the cells of a panorama show in it; see ``camera_*`` of Observation."""

    pose: Float[np.ndarray, "k 4 4"]
    angle: Float32[np.ndarray, "k gh gw"] | None = None
    grid: Float32[np.ndarray, "k gh gw 2"] | None = None


@dataclass(frozen=True, eq=False)
class View:
    """One view; see Observation and Target for the meaning.

    ``image`` is RGB, undefined where nothing is seen, and that of ``k`` cameras if there are cells.
    """

    image: UInt8[np.ndarray, "*k h w 3"]
    nominal_rays: Float32[np.ndarray, "h w 3"]
    rays: Float32[np.ndarray, "h w 3"]
    depth: Float32[np.ndarray, "h w"]
    non_ambiguous: Bool[np.ndarray, "h w"]
    pose: Float[np.ndarray, "4 4"]
    moving: Bool[np.ndarray, "h w"] | None
    own_body: Bool[np.ndarray, "h w"] | None
    ground_height_m: float
    cells: CameraCells | None = None
    rig_pose: Float[np.ndarray, "4 4"] | None = None


Masks = tuple[Bool[np.ndarray, "*h"], Bool[np.ndarray, "*h"]]
"""Pixels of moving vehicles, and of the agent's own body."""


def panorama_spec(config: PanoramaConfig) -> PanoramaSpec:
    """The warp that a configuration asks for."""
    camera = PanoramaCamera(
        config.height,
        config.width,
        np.deg2rad(config.v_fov_deg),
        np.deg2rad(config.elevation_center_deg),
        config.projection,
    )
    return PanoramaSpec(camera, config.surface, config.radius_m, np.deg2rad(config.feather_deg), config.legacy_crop)


class PanoramaViews:
    """One panorama per agent.

    Args:
        config: panorama, layout and augmentation.
        depth_is_dense: depth is known nearly everywhere.
    """

    def __init__(self, config: DataConfig, depth_is_dense: bool) -> None:
        self.config, self.depth_is_dense = config, depth_is_dense
        self.spec = panorama_spec(config.panorama)
        self.warps = WarpCache(self.spec, config.cache_dir)
        self.nominal_rays = camera_rays(self.spec.camera).astype(np.float32)

    def __call__(
        self, agent: str, record: Record, vehicles: VehicleBoxes | None, rng: np.random.Generator | None
    ) -> list[View]:
        """Views of an agent, augmented if there is a generator; with masks of vehicles if their boxes are given."""
        augmentation = self.config.augmentation
        frame = self._frame(record.metadata.rig, None if rng is None else draw_tilt(augmentation, rng))
        gains = None if rng is None else draw_gains(record.num_cameras, augmentation, rng)
        image = self._image(record, gains, frame)
        image = image if rng is None else jitter(image, augmentation, rng)
        if rng is not None and augmentation.yaw_roll:
            frame = replace(frame, shift=int(rng.integers(self.spec.camera.width)))
        rays, depth = self._geometry(record, frame)
        masks = None if vehicles is None else self._vehicle_masks(agent, record, vehicles, frame, rays, depth)
        return [
            View(
                image=self._finish(image, frame),
                nominal_rays=self.nominal_rays,
                rays=rays,
                depth=depth,
                non_ambiguous=roll_columns(frame.prepared.covered, frame.shift),
                pose=record.metadata.pose @ frame.agent_from_view,
                moving=None if masks is None else masks[0],
                own_body=None if masks is None else masks[1],
                ground_height_m=record.metadata.rig.ground_height_m,
                cells=self._cells(frame),
            )
        ]

    def _frame(self, rig: Rig, tilt: Float[np.ndarray, "4 4"] | None) -> PanoramaFrame:
        """The warp of the agent's own frame is known; that of a tilted one is computed for this view alone."""
        if tilt is None:
            return PanoramaFrame(rig, None, self.warps.get(rig))
        rounded = rounded_rig(rig)
        warp = build_warp(rounded, self.spec, rotated(self.nominal_rays, tilt))
        return PanoramaFrame(rig, tilt, PreparedWarp(warp, rounded, self.spec))

    def _geometry(
        self, record: Record, frame: PanoramaFrame
    ) -> tuple[Float32[np.ndarray, "h w 3"], Float32[np.ndarray, "h w"]]:
        """Directions and ranges of what the pixels show, or a central camera would see, in the view's frame."""
        prepared, shift = frame.prepared, frame.shift
        if self.config.panorama.geometry == "central":
            if isinstance(record.depth, SeenPoints):
                points = frame.warp_from_agent.astype(np.float32) @ record.depth.points.T
                depth = central_ranges(self.spec.camera, points)
            else:
                depth = central_geometry(self.spec.camera, frame.tilted_rig, record.depth, self.depth_is_dense)
            return self.nominal_rays, roll_columns(depth, shift)
        if isinstance(record.depth, SeenPoints):
            turn = frame.agent_from_view[:3, :3].T
            return scattered(*self._placed_points(record.depth, frame), turn, self.nominal_rays, shift)
        return content_geometry(prepared.warp, frame.rig_in_view, record.depth, self.nominal_rays, shift)

    def _placed_points(
        self, seen: SeenPoints, frame: PanoramaFrame
    ) -> tuple[Int[np.ndarray, " n"], Float32[np.ndarray, "n 3"]]:
        """Pixels of the warp and the points that they show, agent frame."""
        prepared, rig, radius_px = frame.prepared, frame.rig, self.config.panorama.densify_px
        at, points = placed_points(seen, prepared.warp, rig, self.spec, frame.warp_from_agent)
        if not radius_px:
            return at, points
        return densified(at, points, prepared.warp, rig, radius_px, self.config.depth.max_m)

    def _vehicle_masks(
        self,
        agent: str,
        record: Record,
        vehicles: VehicleBoxes,
        frame: PanoramaFrame,
        rays: Float32[np.ndarray, "h w 3"],
        depth: Float32[np.ndarray, "h w"],
    ) -> Masks:
        """Pixels of moving vehicles and of the agent's own body."""
        points = turned_points(rays, depth, frame.agent_from_view)
        return vehicle_masks(points, depth > 0, agent, record.metadata, vehicles)

    def _image(
        self, record: Record, gains: Float[np.ndarray, " k"] | None, frame: PanoramaFrame
    ) -> UInt8[np.ndarray, "*k hp wp 3"]:
        """What photometric augmentation is applied to."""
        return frame.prepared.stitch(record.images, gains)

    def _finish(self, image: UInt8[np.ndarray, "*k hp wp 3"], frame: PanoramaFrame) -> UInt8[np.ndarray, "*k h w 3"]:
        """What is left to do to an image when the frame is settled."""
        return roll_columns(image, frame.shift)

    def _cells(self, frame: PanoramaFrame) -> CameraCells | None:
        return None


class WarpedViews(PanoramaViews):
    """The panorama of an agent with its cameras apart: each is warped on its own."""

    def __init__(self, config: DataConfig, depth_is_dense: bool) -> None:
        super().__init__(config, depth_is_dense)
        self._looked_up: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def _frame(self, rig: Rig, tilt: Float[np.ndarray, "4 4"] | None) -> PanoramaFrame:
        return replace(super()._frame(rig, tilt), looked_up=self._look_up(rounded_rig(rig), tilt))

    def _look_up(
        self, rig: Rig, tilt: Float[np.ndarray, "4 4"] | None
    ) -> tuple[Float32[np.ndarray, "k h w 2"], Float32[np.ndarray, "k h w"]]:
        if tilt is not None:
            return _finite(*look_up(rig, rotated(self.nominal_rays, tilt), self.spec))
        key = self.warps.key(rig)
        if key not in self._looked_up:
            self._looked_up[key] = _finite(*look_up(rig, camera_rays(self.spec.camera), self.spec))
            if len(self._looked_up) > MAX_LOOK_UPS:
                self._looked_up.pop(next(iter(self._looked_up)))
        return self._looked_up[key]

    def _image(
        self, record: Record, gains: Float[np.ndarray, " k"] | None, frame: PanoramaFrame
    ) -> UInt8[np.ndarray, "k hp wp 3"]:
        pixel, _ = frame.in_cameras
        return warp_cameras(pixel, record.images, frame.rig, self.spec, gains)

    def _cells(self, frame: PanoramaFrame) -> CameraCells:
        _, angle = frame.in_cameras
        return CameraCells(frame.rig_in_view.agent_from_camera, np.roll(angle, -frame.shift, axis=-1))


MAX_LOOK_UPS = 8
"""Rigs whose warps are kept: some 12 MB each at full size."""


class GroupedViews(PanoramaViews):
    """The camera images of an agent as they are, and where the panorama's patches lie in them."""

    def _image(
        self, record: Record, gains: Float[np.ndarray, " k"] | None, frame: PanoramaFrame
    ) -> UInt8[np.ndarray, "k h w 3"]:
        return resized(record.images, gains, self.config.cameras)

    def _finish(self, image: UInt8[np.ndarray, "k h w 3"], frame: PanoramaFrame) -> UInt8[np.ndarray, "k h w 3"]:
        return image

    def _cells(self, frame: PanoramaFrame) -> CameraCells:
        camera, side = self.spec.camera, self.config.fused_patch_px
        patches = replace(camera, height=camera.height // side, width=camera.width // side)
        centers = pixel_centers(patches.height, patches.width) + np.array([frame.shift / side, 0.0])
        pixel, angle = look_up(frame.rig, frame.in_agent(patches.unproject(centers)), self.spec)
        height, width = frame.rig.image_size
        grid = np.where(np.isfinite(angle)[..., None], 2 * pixel / np.array([width, height]) - 1, OUTSIDE)
        return CameraCells(frame.rig_in_view.agent_from_camera, angle.astype(np.float32), grid.astype(np.float32))


OUTSIDE = -2.0
"""Grid coordinate of a cell that a camera does not see."""


def turned_points(
    rays: Float32[np.ndarray, "h w 3"], depth: Float32[np.ndarray, "h w"], turn: Float[np.ndarray, "4 4"]
) -> Float32[np.ndarray, "h w 3"]:
    """Points of rays in another frame; in memory the coordinates lie apart, which numpy is fast on."""
    planes = np.stack(cv2.split(rays)) * depth
    turned = turn[:3, :3].astype(np.float32) @ planes.reshape(3, -1)
    return np.moveaxis(turned.reshape(planes.shape), 0, -1)


def _finite(
    pixel: Float[np.ndarray, "k h w 2"], angle: Float[np.ndarray, "k h w"]
) -> tuple[Float32[np.ndarray, "k h w 2"], Float32[np.ndarray, "k h w"]]:
    return np.nan_to_num(pixel).astype(np.float32), angle.astype(np.float32)


def resized(
    images: UInt8[np.ndarray, "k hi wi 3"], gains: Float[np.ndarray, " k"] | None, size: CamerasConfig
) -> UInt8[np.ndarray, "k h w 3"]:
    """Camera images at the size that the network gets, with the gain of each.

    Args:
        images: 8-bit RGB.
        gains: factors of brightness, see :func:`brighten`; ``None`` leaves it.
        size: height and width in pixels.
    """
    small = [cv2.resize(image, (size.width, size.height), interpolation=cv2.INTER_AREA) for image in images]
    if gains is not None:
        small = [brighten(image, gain) for image, gain in zip(small, gains, strict=True)]
    return np.stack(small)
