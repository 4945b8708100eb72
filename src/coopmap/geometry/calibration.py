"""Camera parameters from per-pixel rays, robustly (numpy, float64, all views at once).

Predicted rays are noisy and contain outliers. Both fits minimize the angle between given and modeled rays by
iteratively reweighted least squares: Tukey's biweight ignores rays whose error is many times the median angle.

The camera's own frame is taken as it is: no rotation is sought, except the azimuth at which a panorama starts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from coopmap.geometry.cameras import pixel_centers
from coopmap.geometry.se3_numpy import angle_between

MAX_ITERATIONS = 50
TUKEY = 4.685
"""Rays off by more than this many standard deviations have no weight (95 % efficiency under normal noise)."""
RAYLEIGH_MEDIAN = np.sqrt(2 * np.log(2))
"""Median angle of a ray whose two components are off by one standard deviation each."""
SMALLEST_ANGLE = 1e-12
MAX_PIXELS = 60_000
"""Larger views are subsampled to a regular grid of at most about this many rays."""
MIN_PIXELS = 16
"""Views with fewer usable rays get no parameters."""
MIN_FIELD = 1e-3
"""Smallest field of view that is a camera's: of a pinhole view the tangent that its longer side spans, of a panorama
its height in radians. For identical rays the field is zero up to rounding, of 1e-7 for float32."""
MIN_AGREEMENT = 0.05
"""Length of the mean of all rays' votes (unit vectors) for the yaw of a panorama below which there is no such yaw."""
MAX_RESIDUAL = np.deg2rad(20)
"""Typical angle between rays and model above which the model says nothing about them; directions at random are about
90 degrees off."""
RANK_TOLERANCE = 1e-12
"""Smallest eigenvalue of the equations, relative to the largest, with which they have a solution. Pixels of one row or
column give zero up to rounding, of 1e-16; two neighboring rows in a thousand give 1e-7."""


@dataclass(frozen=True, eq=False)
class PinholeCalibration:
    """Intrinsics of perspective views; NaN where no perspective camera fits.

    Attributes:
        intrinsics: 3x3 matrices in pixels of the image that the rays belong to, no skew.
        residual: typical (root mean square of the rays that count) angle between rays and model, radians.
    """

    intrinsics: Float[np.ndarray, "v 3 3"]
    residual: Float[np.ndarray, " v"]


@dataclass(frozen=True, eq=False)
class PanoramaCalibration:
    """Parameters of 360-degree views, as in :class:`~coopmap.geometry.cameras.PanoramaCamera`; NaN where none fits.

    Attributes:
        v_fov: vertical field of view, radians.
        elevation_center: mean of the extreme elevations, radians, positive upward.
        yaw: azimuth of the middle column, radians, positive to the right.
        projection: ``equirect`` or ``cylinder``, per view.
        residual: typical angle between rays and model, radians.
    """

    v_fov: Float[np.ndarray, " v"]
    elevation_center: Float[np.ndarray, " v"]
    yaw: Float[np.ndarray, " v"]
    projection: tuple[str, ...]
    residual: Float[np.ndarray, " v"]


def fit_pinhole(
    rays: Float[np.ndarray, "v h w 3"], usable: Bool[np.ndarray, "v h w"] | None = None
) -> PinholeCalibration:
    """Recover the 3x3 intrinsics of perspective views.

    There are none (NaN) where fewer than :data:`MIN_PIXELS` rays count or all in one row or column, where both
    coordinates do not grow with the pixel's, where the rays (most of them, if the others are outliers) agree, so that
    the field of view is below :data:`MIN_FIELD`, and where the rays are off the model by more than
    :data:`MAX_RESIDUAL`.

    Linear in the four unknowns: ``x / z = (u - cx) / fx`` and likewise for ``y``. The distance in the image plane is
    turned into an angle with the metric of the gnomonic projection at the modeled ray, so that the corners of wide
    images do not dominate.

    Args:
        rays: directions in the frame of each view, of any length.
        usable: rays to fit; all by default.
    """
    views, height, width, _ = rays.shape
    pixels, directions, weight = _prepare(rays, usable)
    center = np.array([width / 2, height / 2])
    position = (pixels - center) / max(height, width)  # about [-0.5, 0.5]: well-conditioned equations
    weight = weight * (directions[..., 2] > 0)
    z = directions[..., 2]
    # Start: least squares on the algebraic error, bounded for rays that graze the image plane.
    fit = _solve_plane(position, directions[..., :2] / np.where(z > 0, z, 1)[..., None], weight * z**4)

    def improve(fit: np.ndarray, weight: np.ndarray) -> np.ndarray:
        model = fit[:, None, :, 0] * position + fit[:, None, :, 1]
        radius = 1 + (model**2).sum(-1)
        with np.errstate(divide="ignore", invalid="ignore"):
            target = directions[..., :2] / z[..., None]
        target = np.where((weight > 0)[..., None], target, 0)
        return _solve_plane(position, target, weight / radius, model / np.sqrt(radius)[..., None])

    def angles(fit: np.ndarray) -> np.ndarray:
        model = fit[:, None, :, 0] * position + fit[:, None, :, 1]
        return angle_between(directions, np.concatenate([model, np.ones((*model.shape[:-1], 1))], axis=-1))

    fit, residual = _reweighted(fit, weight, improve, angles)
    slope, offset = fit[..., 0], fit[..., 1]
    with np.errstate(divide="ignore", invalid="ignore"):
        focal = max(height, width) / slope
        principal = center - offset * focal
    intrinsics = np.zeros((views, 3, 3))
    intrinsics[:, [0, 1], [0, 1]] = focal
    intrinsics[:, :2, 2] = principal
    intrinsics[:, 2, 2] = 1
    has_field = (slope > MIN_FIELD).all(-1) & np.isfinite(principal).all(-1)
    possible = has_field & (residual <= MAX_RESIDUAL)  # False for NaN
    return PinholeCalibration(
        np.where(possible[:, None, None], intrinsics, np.nan), np.where(possible, residual, np.nan)
    )


def fit_panorama(
    rays: Float[np.ndarray, "v h w 3"], usable: Bool[np.ndarray, "v h w"] | None = None, projection: str | None = None
) -> PanoramaCalibration:
    """Recover vertical field of view, elevation of the middle and yaw of 360-degree views.

    There are none (NaN) where fewer than :data:`MIN_PIXELS` rays count or all in one row, where elevation does not grow
    upward by at least :data:`MIN_FIELD`, where azimuths are unrelated to columns (:data:`MIN_AGREEMENT`), and where the
    rays are off the model by more than :data:`MAX_RESIDUAL`.

    Args:
        rays: directions in the frame of each view, of any length.
        usable: rays to fit; all by default.
        projection: ``equirect`` or ``cylinder``; by default whichever fits better, per view.

    Raises:
        ValueError: if the projection is unknown.
    """
    if projection not in (None, "equirect", "cylinder"):
        raise ValueError(f"unknown projection {projection!r}: expected equirect or cylinder")
    fits = [_fit_panorama(rays, usable, kind) for kind in ((projection,) if projection else ("equirect", "cylinder"))]
    best, other = fits[0], fits[-1]
    take = np.nan_to_num(best.residual, nan=np.inf) <= np.nan_to_num(other.residual, nan=np.inf)
    return PanoramaCalibration(
        v_fov=np.where(take, best.v_fov, other.v_fov),
        elevation_center=np.where(take, best.elevation_center, other.elevation_center),
        yaw=np.where(take, best.yaw, other.yaw),
        projection=tuple(np.where(take, best.projection, other.projection).tolist()),
        residual=np.where(take, best.residual, other.residual),
    )


def _fit_panorama(
    rays: Float[np.ndarray, "v h w 3"], usable: Bool[np.ndarray, "v h w"] | None, projection: str
) -> PanoramaCalibration:
    """Two linear models: azimuth = column + yaw; elevation (or its tangent) is linear in the row."""
    views, height, width, _ = rays.shape
    pixels, directions, weight = _prepare(rays, usable)
    position = pixels / [width, height] - 0.5
    azimuth = 2 * np.pi * position[:, 0]
    row = position[:, 1]
    x, y, z = np.moveaxis(directions, -1, 0)
    horizontal = np.hypot(x, z)
    elevation = np.arctan2(-y, horizontal)
    # Sine and cosine of the yaw implied by each ray, weighted by its distance from the pole.
    cos, sin = np.cos(azimuth), np.sin(azimuth)
    yaw_vector = np.stack([z * cos + x * sin, x * cos - z * sin], axis=-1)
    is_cylinder = projection == "cylinder"

    def modeled_elevation(fit: np.ndarray) -> np.ndarray:
        value = fit[:, 0, None] + fit[:, 1, None] * row
        return np.arctan(value) if is_cylinder else value

    def improve(fit: np.ndarray, weight: np.ndarray) -> np.ndarray:
        model = modeled_elevation(fit)
        gain = np.cos(model) ** 2 if is_cylinder else np.ones_like(model)  # d elevation / d tangent
        value = (np.tan(model) if is_cylinder else model) + (elevation - model) / gain
        line = _solve_line(row, value, weight * gain**2)
        votes = np.einsum("vn,vnk->vk", weight * np.cos(model), yaw_vector)
        return np.concatenate([line, np.arctan2(votes[:, 1], votes[:, 0])[:, None]], axis=-1)

    def angles(fit: np.ndarray) -> np.ndarray:
        model, turned = modeled_elevation(fit), azimuth + fit[:, 2, None]
        flat = np.cos(model)
        return angle_between(
            directions, np.stack([np.sin(turned) * flat, -np.sin(model), np.cos(turned) * flat], axis=-1)
        )

    start = _solve_line(row, elevation, weight)  # of an equirectangular panorama; its tangent is close enough
    votes = np.einsum("vn,vnk->vk", weight, yaw_vector)
    fit = np.concatenate([start, np.arctan2(votes[:, 1], votes[:, 0])[:, None]], axis=-1)
    fit, residual = _reweighted(fit, weight, improve, angles)
    middle, slope, yaw = fit.T
    top, bottom = middle - slope / 2, middle + slope / 2
    if is_cylinder:
        top, bottom = np.arctan(top), np.arctan(bottom)
    agreement = np.linalg.norm(votes, axis=-1) / np.maximum(np.einsum("vn,vn->v", weight, horizontal), SMALLEST_ANGLE)
    possible = (top - bottom > MIN_FIELD) & (agreement > MIN_AGREEMENT) & (residual <= MAX_RESIDUAL)  # False for NaN
    return PanoramaCalibration(
        v_fov=np.where(possible, top - bottom, np.nan),
        elevation_center=np.where(possible, (top + bottom) / 2, np.nan),
        yaw=np.where(possible, yaw, np.nan),
        projection=(projection,) * views,
        residual=np.where(possible, residual, np.nan),
    )


def _prepare(
    rays: Float[np.ndarray, "v h w 3"], usable: Bool[np.ndarray, "v h w"] | None
) -> tuple[Float[np.ndarray, "n 2"], Float[np.ndarray, "v n 3"], Float[np.ndarray, "v n"]]:
    """Usable pixels, their unit rays (zero where they are not finite) and weights 0 or 1."""
    views, height, width, _ = rays.shape
    step = int(np.ceil(np.sqrt(height * width / MAX_PIXELS)))
    grid = slice(step // 2, None, step)
    pixels = pixel_centers(height, width)[grid, grid].reshape(-1, 2)
    directions = np.asarray(rays[:, grid, grid], dtype=np.float64).reshape(views, -1, 3)
    length = np.linalg.norm(directions, axis=-1)
    good = np.isfinite(length) & (length > 0)
    if usable is not None:
        good &= usable[:, grid, grid].reshape(views, -1)
    unit = np.where(good[..., None], directions / np.where(good, length, 1)[..., None], 0)
    return pixels, unit, good.astype(np.float64)


def _reweighted(
    fit: np.ndarray,
    weight: Float[np.ndarray, "v n"],
    improve: Callable[[np.ndarray, np.ndarray], np.ndarray],
    angles: Callable[[np.ndarray], np.ndarray],
) -> tuple[np.ndarray, Float[np.ndarray, " v"]]:
    """Alternate between Tukey weights and weighted fits until nothing changes."""
    enough = (weight > 0).sum(-1) >= MIN_PIXELS
    fit = np.where(enough.reshape(-1, *[1] * (fit.ndim - 1)), fit, np.nan)
    for _ in range(MAX_ITERATIONS):
        robust = weight * _tukey(angles(fit), weight)
        before, fit = fit, improve(fit, robust)
        with np.errstate(invalid="ignore"):
            if not (np.abs(fit - before) > 1e-10 * (1 + np.abs(before))).any():  # NaN has converged, too
                break
    angle = angles(fit)
    robust = weight * _tukey(angle, weight)
    with np.errstate(divide="ignore", invalid="ignore"):
        return fit, np.sqrt((robust * angle**2).sum(-1) / robust.sum(-1))


def _tukey(angle: Float[np.ndarray, "v n"], weight: Float[np.ndarray, "v n"]) -> Float[np.ndarray, "v n"]:
    """Biweight of each angle, relative to the median of those that count."""
    median = np.array([
        np.median(row[used]) if used.any() else np.nan for row, used in zip(angle, weight > 0, strict=True)
    ])  # fmt: skip
    reach = TUKEY * np.maximum(median / RAYLEIGH_MEDIAN, SMALLEST_ANGLE)
    ratio = np.nan_to_num(angle / reach[:, None], nan=np.inf)
    return np.square(np.clip(1 - ratio**2, 0, None))


def _solve_line(
    x: Float[np.ndarray, " n"], y: Float[np.ndarray, "v n"], weight: Float[np.ndarray, "v n"]
) -> Float[np.ndarray, "v 2"]:
    """Offset and slope of the weighted line ``y = offset + slope x``; NaN if all ``x``, of the order of 1, agree."""
    with np.errstate(divide="ignore", invalid="ignore"):
        total = weight.sum(-1)
        mean_x, mean_y = (weight @ x) / total, (weight * y).sum(-1) / total
        spread = x - mean_x[:, None]
        variance = (weight * spread**2).sum(-1) / total
        slope = (weight * spread * (y - mean_y[:, None])).sum(-1) / total / variance
        slope = np.where(variance > RANK_TOLERANCE, slope, np.nan)
        return np.stack([mean_y - slope * mean_x, slope], axis=-1)


def _solve_plane(
    position: Float[np.ndarray, "n 2"],
    target: Float[np.ndarray, "v n 2"],
    weight: Float[np.ndarray, "v n"],
    radial: Float[np.ndarray, "v n 2"] | None = None,
) -> Float[np.ndarray, "v 2 2"]:
    """Slope and offset of both coordinates (last axis: slope, offset) of ``target`` as a function of ``position``.

    An error ``e`` costs ``weight (|e|^2 - (e . radial)^2)``. With the modeled point of the image plane over its
    distance from the camera as ``radial``, and the inverse of the squared distance in ``weight``, this is a squared
    angle.
    """
    views, count, _ = target.shape
    ones = np.ones(count)
    basis = np.stack([np.stack([position[:, axis], ones], axis=-1) for axis in (0, 1)])  # 2 n 2
    metric = np.broadcast_to(np.eye(2), (views, count, 2, 2))
    if radial is not None:
        metric = metric - radial[..., :, None] * radial[..., None, :]
    metric = metric * weight[..., None, None]
    normal = np.einsum("anp,vnab,bnq->vapbq", basis, metric, basis, optimize=True).reshape(views, 4, 4)
    right = np.einsum("anp,vnab,vnb->vap", basis, metric, target, optimize=True).reshape(views, 4, 1)
    solvable = np.isfinite(normal).all((-2, -1)) & (weight.sum(-1) > 0)
    size = np.linalg.eigvalsh(normal[solvable])  # ascending
    solvable[solvable] = size[:, 0] > RANK_TOLERANCE * size[:, -1]
    solution = np.full((views, 4), np.nan)
    solution[solvable] = np.linalg.solve(normal[solvable], right[solvable])[..., 0]
    return solution.reshape(views, 2, 2)
