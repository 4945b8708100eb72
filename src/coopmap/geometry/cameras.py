"""Camera models behind one interface: ``rays``, ``project``, ``unproject`` (numpy, float64).

Pixel coordinates are continuous: the center of pixel (row i, column j) is ``(u, v) = (j + 0.5, i + 0.5)``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Bool, Float


class Camera(Protocol):
    """What every camera model offers; directions and points are in the camera's own OpenCV frame."""

    @property
    def height(self) -> int:
        """Of the image, in pixels."""
        ...

    @property
    def width(self) -> int:
        """Of the image, in pixels."""
        ...

    def project(self, points: Float[np.ndarray, "*b 3"]) -> tuple[Float[np.ndarray, "*b 2"], Bool[np.ndarray, "*b"]]:
        """Pixels ``(u, v)`` of points, and whether each lies in front of the camera and inside the image."""
        ...

    def unproject(self, pixels: Float[np.ndarray, "*b 2"]) -> Float[np.ndarray, "*b 3"]:
        """Unit rays through pixels ``(u, v)``."""
        ...


def pixel_centers(height: int, width: int) -> Float[np.ndarray, "h w 2"]:
    """``(u, v)`` of all pixel centers."""
    u, v = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    return np.stack([u, v], axis=-1)


def camera_rays(camera: Camera) -> Float[np.ndarray, "h w 3"]:
    """Unit rays through all pixel centers."""
    return camera.unproject(pixel_centers(camera.height, camera.width))


@dataclass(frozen=True)
class PinholeCamera:
    """Undistorted perspective camera.

    Attributes:
        intrinsics: 3x3 matrix in pixels.
        height, width: image size.
    """

    intrinsics: Float[np.ndarray, "3 3"]

    height: int
    width: int

    def project(self, points: Float[np.ndarray, "*b 3"]) -> tuple[Float[np.ndarray, "*b 2"], Bool[np.ndarray, "*b"]]:
        """See :meth:`Camera.project`; pixels of points behind the camera are NaN."""
        z = points[..., 2]
        front = z > 0
        safe_z = np.where(front, z, np.nan)
        homogeneous = points @ self.intrinsics.T
        u, v = homogeneous[..., 0] / safe_z, homogeneous[..., 1] / safe_z  # one by one: numpy is slow on short axes
        with np.errstate(invalid="ignore"):
            inside = (u >= 0) & (v >= 0) & (u < self.width) & (v < self.height)
        return np.stack([u, v], axis=-1), front & inside

    def unproject(self, pixels: Float[np.ndarray, "*b 2"]) -> Float[np.ndarray, "*b 3"]:
        """See :meth:`Camera.unproject`."""
        homogeneous = np.concatenate([pixels, np.ones_like(pixels[..., :1])], axis=-1)
        rays = homogeneous @ np.linalg.inv(self.intrinsics).T
        return rays / np.linalg.norm(rays, axis=-1, keepdims=True)


@dataclass(frozen=True)
class PanoramaCamera:
    """360-degree camera: azimuth linear in the column, elevation (or its tangent) linear in the row.

    Column ``u`` looks towards azimuth ``2 pi (u / width - 0.5)``: 0 forward, positive to the right. With
    ``projection="equirect"`` row ``v`` has elevation ``center + v_fov (0.5 - v / height)``, positive upwards; with
    ``"cylinder"`` the tangent of the elevation is linear in ``v`` between the same extremes.

    Attributes:
        height, width: pixels.
        v_fov: vertical field of view, radians.
        elevation_center: elevation of the middle row, radians (of an equirectangular panorama).
        projection: ``equirect`` or ``cylinder``.
    """

    height: int
    width: int
    v_fov: float
    elevation_center: float = 0.0
    projection: str = "equirect"

    @property
    def pixels_per_radian(self) -> float:
        """Resolution along the horizon."""
        return self.width / (2 * np.pi)

    def row_range(self) -> tuple[float, float]:
        """Elevation of the upper and the lower edge, of a cylinder its tangent."""
        top, bottom = self.elevation_center + self.v_fov / 2, self.elevation_center - self.v_fov / 2
        if self.projection != "equirect":
            top, bottom = np.tan(top), np.tan(bottom)
        return float(top), float(bottom)  # a scalar of numpy's would turn float32 arrays into float64

    def project(self, points: Float[np.ndarray, "*b 3"]) -> tuple[Float[np.ndarray, "*b 2"], Bool[np.ndarray, "*b"]]:
        """See :meth:`Camera.project`; columns wrap, so only the elevation can leave the image."""
        u, v, inside = self.columns_and_rows(np.moveaxis(points, -1, 0))
        # in memory the coordinates lie apart: numpy is quick on that
        return np.moveaxis(np.stack([u, v]), 0, -1), inside

    def columns_and_rows(
        self, points: Float[np.ndarray, "3 *b"]
    ) -> tuple[Float[np.ndarray, "*b"], Float[np.ndarray, "*b"], Bool[np.ndarray, "*b"]]:
        """:meth:`project` of points whose coordinates lie apart: ``u``, ``v``, and whether they are inside."""
        x, y, z = points
        top, bottom = self.row_range()
        u = np.arctan2(x, z)
        horizontal = x * x
        horizontal += z * z
        horizontal = np.sqrt(horizontal)
        with np.errstate(divide="ignore", invalid="ignore"):
            v = np.arctan2(-y, horizontal) if self.projection == "equirect" else -y / horizontal
        u /= 2 * np.pi
        u += 0.5
        u *= self.width
        u *= u < self.width  # the right edge is the left one
        v = top - v
        v /= top - bottom
        v *= self.height
        inside = v >= 0
        inside &= v < self.height
        horizontal += np.abs(y)
        inside &= horizontal > 0
        return u, v, inside

    def unproject(self, pixels: Float[np.ndarray, "*b 2"]) -> Float[np.ndarray, "*b 3"]:
        """See :meth:`Camera.unproject`."""
        azimuth = 2 * np.pi * (pixels[..., 0] / self.width - 0.5)
        top, bottom = self.row_range()
        row = top + (bottom - top) * pixels[..., 1] / self.height
        elevation = row if self.projection == "equirect" else np.arctan(row)
        cos = np.cos(elevation)
        return np.stack([np.sin(azimuth) * cos, -np.sin(elevation), np.cos(azimuth) * cos], axis=-1)
