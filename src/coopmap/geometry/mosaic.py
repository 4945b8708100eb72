"""A rig's images side by side, unwarped, and the geometry of their pixels (numpy).

Tiles stand in the order of azimuth (:data:`~coopmap.geometry.rig.SLOTS_BY_AZIMUTH`). A pixel's line of sight starts at
its camera; what it shows is told, as in a panorama, by direction and range from the agent's center.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from jaxtyping import Float, Float32, Int, UInt8

from coopmap.geometry.cameras import PinholeCamera, pixel_centers
from coopmap.geometry.panorama import surface_range_from
from coopmap.geometry.rig import SLOTS_BY_AZIMUTH, Rig
from coopmap.geometry.se3_numpy import rotate
from coopmap.geometry.stitching import brighten
from coopmap.geometry.targets import NearestPixels, SeenPoints, scattered


@dataclass(frozen=True)
class MosaicSpec:
    """Everything but the rig that decides a mosaic.

    Attributes:
        height, width: of a tile, pixels.
        surface: ``bowl``, ``sphere`` or ``infinite``: where a pixel of unknown depth is taken to look.
        radius_m: of the sphere, or of the sphere that closes the bowl.
    """

    height: int
    width: int
    surface: str = "bowl"
    radius_m: float = 30.0


class Mosaic:
    """The mosaic of one rig.

    Args:
        rig: the cameras.
        spec: sizes and proxy surface.
    """

    def __init__(self, rig: Rig, spec: MosaicSpec) -> None:
        self.rig, self.spec = rig, spec

    @cached_property
    def _centers(self) -> Float[np.ndarray, "h w 2"]:
        """Where the centers of a tile's pixels lie in the full image."""
        height, width = self.rig.image_size
        return pixel_centers(self.spec.height, self.spec.width) * [width / self.spec.width, height / self.spec.height]

    @cached_property
    def lines_of_sight(self) -> Float32[np.ndarray, "h wm 3"]:
        """Unit directions in which the cameras look, agent frame."""
        tiles = []
        for matrix, pose in zip(self.rig.intrinsics, self.rig.agent_from_camera, strict=True):
            tiles.append(rotate(pose, PinholeCamera(matrix, *self.rig.image_size).unproject(self._centers)))
        return joined(np.stack(tiles).astype(np.float32))

    @cached_property
    def nominal_rays(self) -> Float32[np.ndarray, "h wm 3"]:
        """Unit directions, from the agent's center, of the places where the lines of sight meet the proxy surface."""
        spec, rays = self.spec, self.lines_of_sight
        if spec.surface == "infinite":
            return rays
        origin = np.repeat(self.rig.agent_from_camera[list(SLOTS_BY_AZIMUTH), :3, 3], spec.width, axis=0)
        reach = surface_range_from(origin, rays, spec.surface, spec.radius_m, self.rig.ground_height_m)
        place = origin + rays * reach[..., None]
        return (place / np.linalg.norm(place, axis=-1, keepdims=True)).astype(np.float32)

    @cached_property
    def nearest(self) -> NearestPixels:
        """The camera pixels nearest to those of the mosaic."""
        column, row = np.floor(np.moveaxis(self._centers, -1, 0)).astype(np.int32)
        source = np.tile(row * np.int32(self.rig.image_size[1]) + column, len(SLOTS_BY_AZIMUTH))
        winner = np.tile(np.repeat(np.array(SLOTS_BY_AZIMUTH, np.int8), self.spec.width), (self.spec.height, 1))
        return NearestPixels(winner, source)

    def pixels(self, seen: SeenPoints) -> Int[np.ndarray, " n"]:
        """Flat pixel of the mosaic that holds each camera pixel of some points."""
        row, column = seen.resized(self.spec.height, self.spec.width)
        tile = np.argsort(SLOTS_BY_AZIMUTH)[seen.camera]
        return (row * len(SLOTS_BY_AZIMUTH) + tile) * self.spec.width + column

    def placed_points(self, seen: SeenPoints) -> tuple[Int[np.ndarray, " n"], Float32[np.ndarray, "n 3"]]:
        """See :meth:`SeenPoints.nearest_in`; every point has a pixel."""
        return seen.nearest_in(self.pixels(seen), self.lines_of_sight[..., 0].size)

    def scattered_geometry(
        self,
        seen: SeenPoints,
        view_from_agent: Float[np.ndarray, "3 3"],
        nominal_rays: Float32[np.ndarray, "h wm 3"],
    ) -> tuple[Float32[np.ndarray, "h wm 3"], Float32[np.ndarray, "h wm"]]:
        """Measured points as direction and range from the agent's center."""
        return scattered(*self.placed_points(seen), view_from_agent, nominal_rays)


def joined(tiles: np.ndarray) -> np.ndarray:
    """Tiles ``(k, h, w, 3)`` in slot order as a mosaic ``(h, k w, 3)``."""
    return np.concatenate([tiles[slot] for slot in SLOTS_BY_AZIMUTH], axis=1)


def draw_tiles(
    images: UInt8[np.ndarray, "k h w 3"], spec: MosaicSpec, gains: Float[np.ndarray, " k"] | None = None
) -> UInt8[np.ndarray, "k ht wt 3"]:
    """Camera images at the size of tiles, each brightened by its gain; slot order.

    Whole blocks of pixels are averaged as far as that goes, and the rest is bilinear: a seventh of the time of an exact
    area filter, and on average 0.7 of 255 levels from it.
    """
    height, width = images.shape[1:3]
    limit = max(1, min(height // spec.height, width // spec.width))
    factor = next(each for each in range(limit, 0, -1) if height % each == width % each == 0)
    tiles = np.empty((len(images), spec.height, spec.width, 3), np.uint8)
    for slot, image in enumerate(images):
        small = cv2.resize(image, (width // factor, height // factor), interpolation=cv2.INTER_AREA)
        cv2.resize(small, (spec.width, spec.height), dst=tiles[slot], interpolation=cv2.INTER_LINEAR)
        if gains is not None:
            brighten(tiles[slot], gains[slot], out=tiles[slot])
    return tiles
