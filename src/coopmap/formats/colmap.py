"""Sparse models of COLMAP in its text format: ``cameras.txt``, ``images.txt``, ``points3D.txt``.

COLMAP's cameras look as ours do (x right, y down, z forward), and the center of its first pixel lies at (0.5, 0.5) too.
Its poses are ``T_camera_world``, its quaternions ``(w, x, y, z)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from scipy.spatial.transform import Rotation

from coopmap.formats.trajectories import quaternions_xyzw
from coopmap.geometry.se3_numpy import invert
from coopmap.report.files import write_text


@dataclass(frozen=True, eq=False)
class PosedImage:
    """An image of a pinhole camera.

    Attributes:
        name: path below the folder of images; no white space.
        intrinsics: of the file.
        size: its height and width.
        pose: ``T_world_camera``.
    """

    name: str
    intrinsics: Float[np.ndarray, "3 3"]
    size: tuple[int, int]
    pose: Float[np.ndarray, "4 4"]

    @property
    def camera(self) -> str:
        """``MODEL WIDTH HEIGHT PARAMETERS``; images with equal ones share a camera."""
        (fx, _, cx), (_, fy, cy) = self.intrinsics[:2]
        return f"PINHOLE {self.size[1]} {self.size[0]} " + " ".join(f"{value:.6f}" for value in (fx, fy, cx, cy))


def write_colmap(
    folder: Path,
    images: Sequence[PosedImage],
    points: Float[np.ndarray, "n 3"] | None = None,
    colors: UInt8[np.ndarray, "n 3"] | None = None,
    notes: Sequence[str] = (),
) -> list[Path]:
    """Write a model.

    Args:
        folder: of the three files.
        images: in any order.
        points: of the world; they have no tracks.
        colors: of the points.
        notes: lines of comment on top of ``images.txt``.
    """
    numbers = {camera: number for number, camera in enumerate(dict.fromkeys(image.camera for image in images), 1)}
    cameras = ["# CAMERA_ID MODEL WIDTH HEIGHT fx fy cx cy", *(f"{n} {camera}" for camera, n in numbers.items())]
    header = ["IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME", "an empty line, for the image's points, follows each"]
    lines = [f"# {' '.join(note.split())}" for note in (*notes, *header)]
    pose = np.stack([image.pose for image in images]) if images else np.zeros((0, 4, 4))
    # The center is -R't, which thousands of kilometers from the origin needs the very R that is written.
    quats = quaternions_xyzw(invert(pose)).round(9)
    places = -(Rotation.from_quat(quats).as_matrix() @ pose[:, :3, 3:])[..., 0] if images else quats[:, :3]
    for number, (image, place, (x, y, z, w)) in enumerate(zip(images, places, quats, strict=True), 1):
        values = " ".join(f"{value:.9f}" for value in (w, x, y, z, *place))
        lines += [f"{number} {values} {numbers[image.camera]} {image.name}", ""]
    files = [folder / name for name in ("cameras.txt", "images.txt", "points3D.txt")]
    write_text("\n".join(cameras) + "\n", files[0])
    write_text("\n".join(lines) + "\n", files[1])
    write_text(_points(points, colors), files[2])
    return files


def _points(points: Float[np.ndarray, "n 3"] | None, colors: UInt8[np.ndarray, "n 3"] | None) -> str:
    """Content of ``points3D.txt``; an error of -1 means that COLMAP has not computed one."""
    lines = ["# POINT3D_ID X Y Z R G B ERROR (no tracks)"]
    if points is not None:
        shown = np.full((len(points), 3), 128, np.uint8) if colors is None else colors
        for number, ((x, y, z), (r, g, b)) in enumerate(zip(points.tolist(), shown.tolist(), strict=True), 1):
            lines.append(f"{number} {x:.4f} {y:.4f} {z:.4f} {r} {g} {b} -1")
    return "\n".join(lines) + "\n"
