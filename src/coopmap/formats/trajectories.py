"""Trajectories as the TUM RGB-D benchmark and KITTI's odometry benchmark write them; ``evo`` reads both."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from coopmap.report.files import write_text

TICK_S = 0.05
"""Time between frame numbers: OPV2V was simulated in steps of 0.05 s, and numbers its frames by these."""


def write_tum(
    file: Path, times: Float[np.ndarray, " n"], pose: Float[np.ndarray, "n 4 4"], notes: Sequence[str] = ()
) -> None:
    """Write ``timestamp tx ty tz qx qy qz qw``, a line per pose.

    Args:
        file: to write.
        times: seconds, ascending.
        pose: ``T_world_x``.
        notes: lines of comment on top.
    """
    lines = [f"# {' '.join(note.split())}" for note in notes] + ["# timestamp tx ty tz qx qy qz qw"]
    for time, place, quat in zip(times, pose[:, :3, 3], quaternions_xyzw(pose), strict=True):
        lines.append(" ".join([f"{time:.6f}", *(f"{value:.9f}" for value in (*place, *quat))]))
    write_text("\n".join(lines) + "\n", file)


def write_kitti(file: Path, pose: Float[np.ndarray, "n 4 4"]) -> None:
    """Write the upper three rows of each ``T_world_x`` as 12 numbers; the format has no comments."""
    rows = pose[:, :3].reshape(len(pose), 12)
    write_text("".join(" ".join(f"{value:.9e}" for value in row) + "\n" for row in rows), file)


def quaternions_xyzw(pose: Float[np.ndarray, "n 4 4"]) -> Float[np.ndarray, "n 4"]:
    """Unit quaternions ``(x, y, z, w)`` with ``w >= 0``."""
    if not len(pose):
        return np.zeros((0, 4))
    return Rotation.from_matrix(pose[:, :3, :3]).as_quat(canonical=True)
