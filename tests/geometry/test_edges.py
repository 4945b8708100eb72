"""Surfaces of which the edges are known: a plane, a box before a wall, a sphere around the camera."""

import numpy as np
import pytest
import torch

from coopmap.geometry.cameras import PanoramaCamera, PinholeCamera, camera_rays
from coopmap.geometry.edges import confident, depth_edges, flying_pixels, point_normals, surface_edges

HEIGHT, WIDTH = 24, 96
PANORAMA = torch.from_numpy(camera_rays(PanoramaCamera(HEIGHT, WIDTH, np.deg2rad(90)))).float()
ALL = torch.ones(1, HEIGHT, WIDTH, dtype=torch.bool)


def edges_of(depth: torch.Tensor, wraps: bool = True, mask: torch.Tensor = ALL) -> torch.Tensor:
    return surface_edges(PANORAMA * depth[..., None], depth, mask, wraps)


def test_grazing_road_has_jumps_in_depth_but_no_edges():
    matrix = np.array([[60.0, 0, 48], [0, 60, -4], [0, 0, 1]])  # looks down: the horizon is above the image
    rays = torch.from_numpy(camera_rays(PinholeCamera(matrix, HEIGHT, WIDTH)))
    points = rays * (1.9 / rays[..., 1:2])
    depth = points[None, ..., 2]
    assert depth_edges(depth, ALL, wraps=False, ratio=0.03).float().mean() > 0.95
    assert not surface_edges(points[None], depth, ALL, wraps=False).any()
    normals, known = point_normals(points[None], ALL, wraps=False)
    assert known.all()
    torch.testing.assert_close(normals, torch.tensor([0.0, -1, 0]).double().expand_as(normals))


def test_crease_without_a_jump_is_no_edge():
    depth = torch.full((1, HEIGHT, WIDTH), 10.0)
    depth += 0.08 * (torch.arange(WIDTH) - WIDTH // 2).abs()  # 0.8 % per pixel: below 3 % across three
    assert not edges_of(depth).any()
    assert edges_of(4 * depth - 30)[..., WIDTH // 2].any()  # the same crease, four times as steep


@pytest.mark.parametrize("column", [0, 30, WIDTH - 1])
def test_box_before_a_wall(column):
    """Jumps lie between ``column - 1, column`` and ten columns on; both sides of each are edges, nothing else is."""
    depth = torch.full((1, HEIGHT, WIDTH), 20.0)
    inside = (torch.arange(column, column + 10)) % WIDTH
    depth[..., inside] = 8.0
    edges = edges_of(depth)
    expected = sorted({(column + step) % WIDTH for step in (-1, 0, 9, 10)})
    assert edges.any(dim=1)[0].nonzero().flatten().tolist() == expected
    assert edges[..., expected].all()


def test_only_panoramas_wrap():
    depth = torch.full((1, HEIGHT, WIDTH), 20.0)
    depth[..., : WIDTH // 2] = 8.0
    half = WIDTH // 2
    columns = {wraps: edges_of(depth, wraps).any(dim=1)[0].nonzero().flatten().tolist() for wraps in (True, False)}
    assert columns[False] == [half - 1, half]
    assert columns[True] == [0, half - 1, half, WIDTH - 1]


def test_masked_pixels_make_no_edges():
    depth = torch.full((1, HEIGHT, WIDTH), 20.0)
    depth[..., 40:50] = 1.0
    mask = ALL.clone()
    mask[..., 40:50] = False
    assert not edges_of(depth, mask=mask).any()
    assert not edges_of(depth, mask=torch.zeros_like(mask)).any()


def test_normals_of_a_sphere_point_at_its_center_at_the_seam_too():
    points = 7 * PANORAMA[None]
    normals, known = point_normals(points, ALL, wraps=True)
    assert known.all()
    inner = normals[:, 1:-1]  # in the outer rows only two triangles remain
    assert (inner * -PANORAMA[1:-1]).sum(-1).min() > np.cos(np.deg2rad(0.5))
    torch.testing.assert_close(
        point_normals(points.roll(13, 2), ALL, wraps=True)[0], normals.roll(13, 2), rtol=0, atol=1e-5
    )


def test_confidence_percentile_counts_within_the_mask_of_each_view():
    confidence = torch.arange(200.0).reshape(2, 10, 10)
    mask = torch.ones(2, 10, 10, dtype=torch.bool)
    mask[0, :5] = False
    kept = confident(confidence, mask, 20)
    assert kept[0].flatten().nonzero().flatten().tolist() == list(range(60, 100))
    assert kept[1].flatten().nonzero().flatten().tolist() == list(range(20, 100))
    assert torch.equal(confident(confidence, mask, 0), mask)
    nothing = torch.zeros_like(mask)
    assert not confident(confidence, nothing, 20).any()


SIZES = ((42, 168), (84, 336), (126, 504), (252, 1008))


def street(height: int, width: int, noise: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Road, walls 10 m to either side and boxes before them, as a panorama sees it from 1.9 m up.

    Returns:
        Rays, ranges with relative noise as smooth as upsampled predictions are, and where boxes are.
    """
    rays = torch.from_numpy(camera_rays(PanoramaCamera(height, width, np.deg2rad(90)))).float()
    ground = torch.where(rays[..., 1] > 0, 1.9 / rays[..., 1].clamp(min=1e-6), 80.0)
    depth = torch.minimum(ground, 10 / rays[..., 0].abs().clamp(min=0.125))
    azimuth, elevation = torch.atan2(rays[..., 0], rays[..., 2]), torch.asin(-rays[..., 1])
    on_box = ((azimuth.abs() - 0.9).abs() < 0.25) & (elevation.abs() < 0.15)
    depth = torch.where(on_box, 5.0, depth)
    small = torch.randn(1, 1, height // 7, width // 7, generator=torch.Generator().manual_seed(0))
    smooth = torch.nn.functional.interpolate(small, (height, width), mode="bicubic")[0, 0]
    return rays, depth * (1 + noise * smooth), on_box


@pytest.mark.parametrize("noise", [0.0, 0.05, 0.2])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_a_scene_is_left_of_panoramas_of_any_size(height, width, noise):
    """The share that is kept; an outline of a box, where depth doubles, still goes where depth is clean."""
    rays, depth, on_box = street(height, width, noise)
    all_pixels = torch.ones(1, height, width, dtype=torch.bool)
    flying = flying_pixels(rays[None], depth[None], all_pixels, "cyl")[0]
    assert (~flying).float().mean() > (0.85 if noise == 0 else 0.6)
    inside = torch.nn.functional.max_pool2d((~on_box)[None].float(), 3, 1, 1)[0] == 0
    outline = on_box & ~inside
    assert outline.sum() > 20
    if noise == 0:
        assert flying[outline].float().mean() > 0.95
        assert not flying[inside].any()


def test_what_jumps_is_told_from_the_view_itself():
    """Noise that is everywhere is no edge; a fixed limit would leave a quarter of it."""
    rays, depth, _ = street(42, 168, 0.2)
    points, all_pixels = (rays * depth[..., None])[None], torch.ones(1, 42, 168, dtype=torch.bool)
    assert (~surface_edges(points, depth[None], all_pixels, wraps=True)).float().mean() < 0.35
    assert not flying_pixels(rays[None], depth[None], torch.zeros_like(all_pixels), "cyl").any()
