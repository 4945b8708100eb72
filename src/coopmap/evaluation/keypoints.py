"""Keypoints in the images of an agent, with the ranges that its LiDAR gives them, and what finds and matches them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Float, Float32, Int, UInt8
from scipy.spatial import cKDTree

from coopmap.geometry.rig import Rig
from coopmap.geometry.se3_numpy import transform_points
from coopmap.geometry.targets import SeenPoints

LIDAR_RADIUS_PX = 6.0
"""A keypoint has the range of the LiDAR point nearest to it in the image, up to this distance."""


@dataclass(frozen=True, eq=False)
class Keypoints:
    """Features in all images of an agent.

    Attributes:
        pixels: ``(u, v)``, centers of pixels at ``+ 0.5``.
        camera: slot of the image.
        descriptors: of unit length.
        points: with the LiDAR's range, agent frame; NaN where no LiDAR point is near.
    """

    pixels: Float[np.ndarray, "n 2"]
    camera: Int[np.ndarray, " n"]
    descriptors: Float32[np.ndarray, "n c"]
    points: Float[np.ndarray, "n 3"]


Size = tuple[int, int]
"""``(height, width)`` of an image."""


class Features(Protocol):
    """A kind of keypoints, and how they are matched."""

    def find(self, image: UInt8[np.ndarray, "h w 3"]) -> tuple[Float[np.ndarray, "n 2"], Float32[np.ndarray, "n c"]]:
        """Pixels and descriptors in an RGB image."""

    def match(self, a: Keypoints, b: Keypoints, sizes: tuple[Size, Size]) -> Int[np.ndarray, "m 2"]:
        """Indices of matched keypoints of two images."""


def find_keypoints(
    features: Features, images: UInt8[np.ndarray, "k h w 3"], rig: Rig, seen: SeenPoints | None
) -> Keypoints:
    """Features of an agent.

    Args:
        features: which kind.
        images: RGB, in slot order.
        rig: the cameras.
        seen: LiDAR points in the cameras' pixels; without, no keypoint has a range.
    """
    pixels, descriptors = zip(*map(features.find, images), strict=True)
    camera = np.repeat(np.arange(len(images)), [len(each) for each in pixels])
    points = [_with_ranges(each, slot, rig, seen) for slot, each in enumerate(pixels)]
    return Keypoints(np.concatenate(pixels), camera, np.concatenate(descriptors), np.concatenate(points))


def _with_ranges(
    pixels: Float[np.ndarray, "n 2"], slot: int, rig: Rig, seen: SeenPoints | None
) -> Float[np.ndarray, "n 3"]:
    """Points on the keypoints' rays, as far away as the nearest LiDAR point in the image."""
    points = np.full((len(pixels), 3), np.nan)
    here = np.flatnonzero(seen.camera == slot) if seen is not None else np.zeros(0, int)
    if seen is None or not len(here):
        return points
    row, column = np.divmod(seen.pixel[here], rig.image_size[1])
    tree = cKDTree(np.stack([column, row], axis=1) + 0.5)
    distance, nearest = tree.query(pixels, distance_upper_bound=LIDAR_RADIUS_PX)
    known = np.isfinite(distance)
    rays = np.concatenate([pixels[known], np.ones((known.sum(), 1))], axis=1) @ np.linalg.inv(rig.intrinsics[slot]).T
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    points[known] = transform_points(rig.agent_from_camera[slot], rays * seen.ranges[here[nearest[known]], None])
    return points


def match_cameras(features: Features, a: Keypoints, b: Keypoints, rigs: tuple[Rig, Rig]) -> Int[np.ndarray, "m 2"]:
    """Indices of matched keypoints of two agents, every camera of one with every camera of the other."""
    pairs = [np.zeros((0, 2), int)]
    for camera_a in np.unique(a.camera):
        rows = np.flatnonzero(a.camera == camera_a)
        for camera_b in np.unique(b.camera):
            columns = np.flatnonzero(b.camera == camera_b)
            sizes = (rigs[0].image_size, rigs[1].image_size)
            found = features.match(_of_camera(a, rows), _of_camera(b, columns), sizes)
            pairs.append(np.stack([rows[found[:, 0]], columns[found[:, 1]]], axis=1))
    return np.concatenate(pairs)


def _of_camera(keypoints: Keypoints, rows: Int[np.ndarray, " m"]) -> Keypoints:
    return Keypoints(
        keypoints.pixels[rows], keypoints.camera[rows], keypoints.descriptors[rows], keypoints.points[rows]
    )
