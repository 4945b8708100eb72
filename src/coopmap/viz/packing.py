"""Numbers and pictures inside a page: as text that a script or an ``img`` element reads, without a request."""

from __future__ import annotations

import base64
import zlib

import cv2
import numpy as np
from jaxtyping import Float, UInt8, UInt16

RANGE_STEP_M = 0.004
"""Steps in which ranges are stored: 65,535 of them reach 262 m; farther data make them longer."""
ANGLE_STEP_DEG = 0.01
LEVELS = 65535


def range_step(depth: Float[np.ndarray, "*b"]) -> float:
    """Meters per level, so that the longest range fits."""
    return max(RANGE_STEP_M, float(depth.max(initial=0)) / LEVELS)


def range_levels(depth: Float[np.ndarray, "h w"], step_m: float) -> UInt16[np.ndarray, "h w"]:
    """Ranges in steps, off by at most half of one; 0 stays unknown and is nothing else."""
    levels = np.rint(depth.astype(np.float64) / step_m).clip(1, LEVELS)
    return np.where(depth > 0, levels, 0).astype(np.uint16)


def angle_levels(
    directions: Float[np.ndarray, "h w 3"],
) -> tuple[UInt16[np.ndarray, "h w"], UInt16[np.ndarray, "h w"]]:
    """Azimuth from -180 and elevation from -90 degrees on, in steps of ``ANGLE_STEP_DEG``."""
    x, y, z = np.moveaxis(directions, -1, 0)
    azimuth = np.rad2deg(np.arctan2(x, z)) + 180
    elevation = np.rad2deg(np.arctan2(-y, np.hypot(x, z))) + 90
    azimuth_levels, elevation_levels = (np.rint(angle / ANGLE_STEP_DEG) for angle in (azimuth, elevation))
    return azimuth_levels.astype(np.uint16), elevation_levels.astype(np.uint16)


def pack(values: UInt16[np.ndarray, "h w"]) -> str:
    """Base64 of deflated differences between neighbors in a row (modulo 65,536): all low bytes, then all high ones."""
    differences = np.diff(values, axis=1, prepend=np.uint16(0))
    halves = np.stack([differences & 0xFF, differences >> 8]).astype(np.uint8)
    return base64.b64encode(zlib.compress(halves.tobytes(), 9)).decode()


def unpack(text: str, height: int, width: int) -> UInt16[np.ndarray, "h w"]:
    """What :func:`pack` was given; the page's script does the same."""
    halves = np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8).reshape(2, height, width)
    low, high = halves.astype(np.uint16)
    return np.cumsum(low + (high << 8), axis=1, dtype=np.uint16)


def png(picture: UInt8[np.ndarray, "h w c"], effort: int = 9) -> bytes:
    """RGB or RGBA, compressed without loss; ``effort`` from 0 to 9, of which 9 takes five times as long as 3."""
    order = cv2.COLOR_RGBA2BGRA if picture.shape[-1] == 4 else cv2.COLOR_RGB2BGR
    _, encoded = cv2.imencode(".png", cv2.cvtColor(picture, order), [cv2.IMWRITE_PNG_COMPRESSION, effort])
    return encoded.tobytes()


def data_uri(file: bytes) -> str:
    """Address of a PNG image that carries the image itself."""
    return f"data:image/png;base64,{base64.b64encode(file).decode()}"
