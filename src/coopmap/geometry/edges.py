"""Which pixels of a prediction to keep.

Regressed depth does not jump at the outline of an object: it is smeared from foreground to background over a pixel or
two, which become flying points. They are where depth changes fast *and* the surface bends; a road at a grazing angle
has the first without the second, the corner of a room the second without the first. (Upstream's
``postprocess_model_outputs_for_inference``, ``depth_edge``, ``normals_edge`` and ``points_to_normals``; here the
columns of a panorama wrap around.)
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from coopmap.geometry.rig import SLOTS

VIEWS_AT_ONCE = 4
"""The nine neighbors of every pixel are held."""
RADIUS = 1
"""Neighborhood of 3 x 3 pixels."""
TYPICAL = 2.0
"""A jump spreads over more than so many times what depth spreads over at the median pixel of its view."""


def confident(
    confidence: Float[Tensor, "v h w"], mask: Bool[Tensor, "v h w"], percentile: float
) -> Bool[Tensor, "v h w"]:
    """Pixels of ``mask`` without the least confident ``percentile`` percent of them, view by view."""
    if percentile <= 0:
        return mask
    ascending = torch.where(mask, confidence, math.inf).flatten(1).sort(dim=1).values
    rank = (mask.sum(dim=(1, 2)) * percentile / 100).long()
    threshold = ascending.gather(1, rank[:, None])
    return mask & (confidence >= threshold[:, :, None])


def flying_pixels(
    rays: Float[Tensor, "v h w 3"],
    ranges: Float[Tensor, "v h w"],
    mask: Bool[Tensor, "v h w"],
    camera_model: str,
    depth_ratio: float = 0.03,
    normal_deg: float = 5.0,
) -> Bool[Tensor, "v h w"]:
    """:func:`surface_edges` on views of any resolution and quality; never more than half of the pixels of a view.

    On a small panorama, 3 x 3 pixels span ten degrees, over which depth spreads by more than a few percent nearly
    everywhere, and a rough prediction is noisy in itself: what counts as a jump is at least :data:`TYPICAL` times the
    median spread of the view.

    Args:
        rays: unit rays of the pixels.
        ranges: along them.
        mask: pixels to look at.
        camera_model: ``cyl`` (the last column is next to the first), ``pinhole`` (depth is z), or ``mosaic``, whose
            cameras are looked at one by one.
        depth_ratio: see :func:`surface_edges`; at least so much is a jump.
        normal_deg: likewise.
    """
    if camera_model == "mosaic":
        edges = flying_pixels(_tiles(rays), _tiles(ranges), _tiles(mask), "tile", depth_ratio, normal_deg)
        return torch.cat(edges.unflatten(0, (-1, len(SLOTS))).unbind(1), dim=2)
    wraps, found = camera_model == "cyl", []
    for first in range(0, len(mask), VIEWS_AT_ONCE):
        part = slice(first, first + VIEWS_AT_ONCE)
        points = rays[part] * ranges[part][..., None]
        depth = points[..., 2] if camera_model == "pinhole" else ranges[part]
        ratio = jump_ratio(depth, mask[part], wraps, depth_ratio)
        found.append(surface_edges(points, depth, mask[part], wraps, ratio, normal_deg))
    return torch.cat(found)


def _tiles(maps: Shaped[Tensor, "v h w *c"]) -> Shaped[Tensor, "t h wt *c"]:
    """The tiles of mosaics, from left to right, as views of their own."""
    return torch.stack(maps.chunk(len(SLOTS), dim=2), dim=1).flatten(0, 1)


def jump_ratio(
    depth: Float[Tensor, "v h w"], mask: Bool[Tensor, "v h w"], wraps: bool, ratio: float
) -> Float[Tensor, "v 1 1"]:
    """Spread of depth, relative to the pixel's own, from which on it counts as a jump: ``ratio`` or more."""
    relative = torch.where(mask, _spread(depth, mask, wraps) / depth, math.nan)
    typical = relative.flatten(1).nanmedian(dim=1).values[:, None, None]
    return (TYPICAL * typical).nan_to_num(nan=ratio).clamp(min=ratio)


def surface_edges(
    points: Float[Tensor, "v h w 3"],
    depth: Float[Tensor, "v h w"],
    mask: Bool[Tensor, "v h w"],
    wraps: bool,
    depth_ratio: float | Float[Tensor, "v 1 1"] = 0.03,
    normal_deg: float = 5.0,
) -> Bool[Tensor, "v h w"]:
    """Pixels at which depth jumps and the surface bends.

    Args:
        points: in any one frame per view.
        depth: that separates the surfaces: range for panoramas, z for perspective views.
        mask: pixels to look at; others count neither as edge nor as neighbor.
        wraps: the last column is next to the first.
        depth_ratio: spread of depth within 3 x 3 pixels, relative to the middle one.
        normal_deg: angle between the normals of neighboring pixels.
    """
    return depth_edges(depth, mask, wraps, depth_ratio) & normal_edges(points, mask, wraps, normal_deg)


def depth_edges(
    depth: Float[Tensor, "v h w"],
    mask: Bool[Tensor, "v h w"],
    wraps: bool,
    ratio: float | Float[Tensor, "v 1 1"],
) -> Bool[Tensor, "v h w"]:
    """Pixels in whose neighborhood depth spreads over more than ``ratio`` times their own."""
    return mask & (_spread(depth, mask, wraps) > ratio * depth)


def _spread(depth: Float[Tensor, "v h w"], mask: Bool[Tensor, "v h w"], wraps: bool) -> Float[Tensor, "v h w"]:
    """Largest minus smallest depth of the neighborhood; meaningful in ``mask``."""
    highest = _max_around(depth.masked_fill(~mask, -math.inf), wraps)
    lowest = -_max_around((-depth).masked_fill(~mask, -math.inf), wraps)
    return highest - lowest


def normal_edges(
    points: Float[Tensor, "v h w 3"], mask: Bool[Tensor, "v h w"], wraps: bool, limit_deg: float
) -> Bool[Tensor, "v h w"]:
    """Pixels next to a bend of more than ``limit_deg`` between neighbors' normals."""
    normals, known = point_normals(points, mask, wraps)
    around = _neighbors(normals.movedim(-1, 1), wraps)  # v 3 9 h w
    known_around = _neighbors(known[:, None].float(), wraps)[:, 0] > 0  # v 9 h w
    cosine = (around * normals.movedim(-1, 1)[:, :, None]).sum(1)
    bends = known_around & known[:, None] & (cosine < math.cos(math.radians(limit_deg)))
    return _max_around(bends.any(1).float(), wraps) > 0


def point_normals(
    points: Float[Tensor, "v h w 3"], mask: Bool[Tensor, "v h w"], wraps: bool
) -> tuple[Float[Tensor, "v h w 3"], Bool[Tensor, "v h w"]]:
    """Unit normals, averaged over the up to four triangles that a pixel forms with its neighbors in ``mask``.

    Returns:
        Normals (zero where there is no triangle), and where there is one.
    """
    around = _neighbors(points.movedim(-1, 1), wraps)
    known = (_neighbors(mask[:, None].float(), wraps)[:, 0] > 0) & mask[:, None]
    ring = [1, 3, 7, 5]  # up, left, down, right: counter-clockwise as seen in the image
    side = around[:, :, ring] - points.movedim(-1, 1)[:, :, None]
    valid = known[:, ring] & known[:, ring].roll(-1, dims=1)
    triangle = F.normalize(torch.linalg.cross(side, side.roll(-1, dims=2), dim=1), dim=1, eps=1e-12)
    normals = F.normalize((triangle * valid[:, None]).sum(2), dim=1, eps=1e-12)
    return normals.movedim(1, -1), valid.any(1)


def _pad(maps: Float[Tensor, "v c h w"], wraps: bool, fill: float) -> Float[Tensor, "v c h+2 w+2"]:
    """One more pixel on each side: ``fill`` above and below, the opposite columns or ``fill`` left and right."""
    if wraps:
        maps = torch.cat([maps[..., -RADIUS:], maps, maps[..., :RADIUS]], dim=-1)
        return F.pad(maps, (0, 0, RADIUS, RADIUS), value=fill)
    return F.pad(maps, (RADIUS,) * 4, value=fill)


def _max_around(maps: Float[Tensor, "v h w"], wraps: bool) -> Float[Tensor, "v h w"]:
    return F.max_pool2d(_pad(maps[:, None], wraps, -math.inf), 2 * RADIUS + 1, stride=1)[:, 0]


def _neighbors(maps: Float[Tensor, "v c h w"], wraps: bool) -> Float[Tensor, "v c 9 h w"]:
    """The 3 x 3 values around every pixel, row by row; zero outside."""
    size = 2 * RADIUS + 1
    windows = _pad(maps, wraps, 0.0).unfold(2, size, 1).unfold(3, size, 1)  # v c h w 3 3
    return windows.flatten(4).movedim(4, 2)
