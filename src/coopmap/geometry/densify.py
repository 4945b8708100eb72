"""Depth between measured points that lie on one plane (numpy)."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float, Float32, Int

from coopmap.geometry.panorama import PanoramaWarp
from coopmap.geometry.rig import Rig

FEWEST_POINTS = 4
"""Three lie on some plane whatever they belong to."""

AGREEMENT = 0.01
"""Largest root mean square distance of the points' inverse depths from the plane's, relative to it."""

MOST_LEVERAGE = 1.0
"""Of a pixel in the fit: at 1 its depth is as uncertain as one point's; farther out, where it is a guess, more."""


def densified(
    at: Int[np.ndarray, " n"],
    points: Float32[np.ndarray, "n 3"],
    warp: PanoramaWarp,
    rig: Rig,
    radius_px: int,
    max_m: float = np.inf,
) -> tuple[Int[np.ndarray, " m"], Float32[np.ndarray, "m 3"]]:
    """Measured points, and points of the pixels among them.

    On a plane, inverse depth is a linear function of a pinhole camera's normalized pixel coordinates. It is fitted to
    the points in the square around each pixel without one. Its value is taken, on the line of sight of what the pixel
    shows, if the points agree with it, surround the pixel and are all seen by the pixel's own camera.

    Args:
        at: flat pixels of the warp that show a point.
        points: these points, agent frame.
        warp: the camera pixel that each pixel shows.
        rig: the exact calibration, agent frame.
        radius_px: half the side of the square, whole pixels.
        max_m: largest range of an added point from its camera.

    Returns:
        Pixels and points, the measured ones first and unchanged.
    """
    if not len(at):
        return at, points
    winner = warp.winner
    seen = _in_cameras(points, winner.reshape(-1)[at], rig)
    sums = _sums(at, seen, winner.shape, 2 * radius_px + 1)
    known = np.zeros(winner.size, bool)
    known[at] = True
    side = np.ones((2 * radius_px + 1,) * 2, np.uint8)
    is_one_camera = cv2.dilate(winner.astype(np.int16), side) == cv2.erode(winner.astype(np.int16), side)
    chosen = np.flatnonzero(is_one_camera.reshape(-1) & ~known & (sums[0] >= FEWEST_POINTS - 0.5))
    chosen = chosen[winner.reshape(-1)[chosen] >= 0]
    x, y = _normalized(warp.source.reshape(-1)[chosen], winner.reshape(-1)[chosen], rig)
    inverse_depth, agrees = _plane_at(sums[:, chosen], x, y)
    chosen, place = chosen[agrees], np.stack([x, y, np.ones_like(x)])[:, agrees] / inverse_depth[agrees]
    near = np.linalg.norm(place, axis=0) <= max_m
    chosen, place = chosen[near], place[:, near]
    camera = winner.reshape(-1)[chosen]
    pose = rig.agent_from_camera[camera]
    added = np.einsum("nij,jn->ni", pose[:, :3, :3], place) + pose[:, :3, 3]
    return np.concatenate([at, chosen.astype(at.dtype)]), np.concatenate([points, added.astype(np.float32)])


def _normalized(
    pixel: Int[np.ndarray, " n"], camera: Int[np.ndarray, " n"], rig: Rig
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Normalized coordinates of the centers of flat pixels, each of one camera."""
    row, column = np.divmod(pixel, rig.image_size[1])
    focal, center = rig.intrinsics[camera][:, [0, 1], [0, 1]], rig.intrinsics[camera, :2, 2]
    x, y = ((np.stack([column, row], axis=-1) + 0.5 - center) / focal).T
    return x, y


def _in_cameras(
    points: Float32[np.ndarray, "n 3"], camera: Int[np.ndarray, " n"], rig: Rig
) -> Float[np.ndarray, "3 n"]:
    """Normalized pixel coordinates and inverse depth of points in the camera that sees each."""
    pose = rig.agent_from_camera[camera]
    x, y, z = np.einsum("nji,nj->in", pose[:, :3, :3], points - pose[:, :3, 3])
    return np.stack([x / z, y / z, 1 / z])


def _sums(
    at: Int[np.ndarray, " n"], seen: Float[np.ndarray, "3 n"], size: tuple[int, ...], side: int
) -> Float[np.ndarray, "10 p"]:
    """Moments of the points in the square around each pixel: number, x, y, w, xx, xy, xw, yy, yw, ww."""
    one = np.ones((1, seen.shape[1]))
    first = np.concatenate([one, seen])
    rows, columns = np.triu_indices(4)
    moments = np.zeros((size[0] * size[1], 10))
    moments[at] = (first[rows] * first[columns]).T
    planes = [np.ascontiguousarray(plane).reshape(size) for plane in moments.T]
    summed = [
        cv2.boxFilter(plane, -1, (side, side), normalize=False, borderType=cv2.BORDER_CONSTANT) for plane in planes
    ]
    return np.stack(summed).reshape(10, -1)


def _plane_at(
    sums: Float[np.ndarray, "10 n"], x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, " n"], np.ndarray]:
    """The fitted inverse depth at pixels, and whether it is to be trusted."""
    number, sx, sy, sw, sxx, sxy, sxw, syy, syw, sww = sums
    mx, my, mw = sx / number, sy / number, sw / number
    cxx, cxy, cyy = sxx - sx * mx, sxy - sx * my, syy - sy * my
    cxw, cyw, cww = sxw - sx * mw, syw - sy * mw, sww - sw * mw
    dx, dy = x - mx, y - my
    determinant = cxx * cyy - cxy * cxy
    with np.errstate(divide="ignore", invalid="ignore"):
        slope_x, slope_y = (cyy * cxw - cxy * cyw) / determinant, (cxx * cyw - cxy * cxw) / determinant
        leverage = 1 / number + (cyy * dx * dx - 2 * cxy * dx * dy + cxx * dy * dy) / determinant
        inverse_depth = mw + slope_x * dx + slope_y * dy
        left_over = np.maximum(cww - slope_x * cxw - slope_y * cyw, 0)
        error = np.sqrt(left_over / np.maximum(number - 3, 1))
        spread = determinant > 1e-4 * (cxx + cyy) ** 2  # not all on one line
        agrees = spread & (inverse_depth > 0) & (error < AGREEMENT * inverse_depth) & (leverage < MOST_LEVERAGE)
    return inverse_depth, agrees
