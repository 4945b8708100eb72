"""Alignment of noisy matches: accuracy, calibration, outliers, on the scenes of docs/measure_alignment.py."""

import importlib.util
import math
from pathlib import Path
from types import ModuleType

import pytest
import torch

from coopmap.geometry.alignment import Alignment, align, ray_covariance, squared_mahalanobis


@pytest.fixture(scope="module")
def measure() -> ModuleType:
    path = Path(__file__).parents[2] / "docs" / "measure_alignment.py"
    spec = importlib.util.spec_from_file_location("measure_alignment", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def align_rays(scene, range_sigma: float, bearing_deg: float, **options) -> Alignment:
    weight = torch.ones_like(scene.points_a[..., 0])
    bearing = math.radians(bearing_deg)
    covariances = [ray_covariance(points, range_sigma, bearing) for points in (scene.points_a, scene.points_b)]
    return align(scene.points_a, scene.points_b, weight, *covariances, **options)


@pytest.mark.parametrize("width", [3.0, math.inf])
@pytest.mark.parametrize(("range_sigma", "bearing_deg"), [(0.02, 0.5), (0.1, 1.0)])
def test_information_is_calibrated(measure, range_sigma, bearing_deg, width):
    scene = measure.simulate(200, 50, 0, range_sigma, bearing_deg)
    result = align_rays(scene, range_sigma, bearing_deg, width=width)
    # Chi-square of 6 degrees of freedom: the mean of 200 has a standard deviation of 0.25.
    assert squared_mahalanobis(result.pose, result.information, scene.pose).mean().item() == pytest.approx(6, abs=0.9)


@pytest.mark.parametrize("tilt_sigma", [None, math.radians(1.5)])
def test_sixty_percent_outliers_are_survived_and_told_apart(measure, tilt_sigma):
    scene = measure.simulate(60, 100, 150)
    result = align_rays(scene, 0.1, 1.0, tilt_sigma=tilt_sigma)
    trans, rotation = measure.errors(result.pose, scene.pose)
    assert not result.degenerate.any()
    assert trans.max() < 1.5
    assert rotation.max() < 2
    assert trans.median() < 0.4
    back = scene.pose[:, None, :3, :3] @ scene.exact_b[..., None] + scene.pose[:, None, :3, 3:]
    right = (back[..., 0] - scene.exact_a).norm(dim=-1) < 1e-6
    assert (result.inlier[right] > 0.25).double().mean() > 0.95
    assert (result.inlier[~right] > 0.25).double().mean() < 0.05


def test_weighing_by_bearing_beats_isotropic_errors(measure):
    scene = measure.simulate(100, 100, 0, 0.2, 0.5)
    by_bearing = measure.errors(align_rays(scene, 0.2, 0.5).pose, scene.pose)
    isotropic = align(scene.points_a, scene.points_b, torch.ones_like(scene.points_a[..., 0]))
    as_one = measure.errors(isotropic.pose, scene.pose)
    assert by_bearing[0].median() < 0.65 * as_one[0].median()
    assert by_bearing[1].median() < 0.7 * as_one[1].median()


def test_lines_of_sight_that_start_at_cameras(measure):
    """Cameras 3 m ahead of the agents' centers: with their places, information is calibrated and poses are better."""
    scene = measure.simulate(100, 50)
    origin = torch.tensor([0.0, 0.0, 3.0], dtype=torch.float64).expand_as(scene.exact_a)
    generator = torch.Generator().manual_seed(1)
    ends = []
    for exact in (scene.exact_a, scene.exact_b):
        root = torch.linalg.cholesky(ray_covariance(exact - origin, 0.1, math.radians(0.2)) + 1e-12 * torch.eye(3))
        ends.append(exact + (root @ torch.randn(*exact.shape, 1, generator=generator, dtype=torch.float64))[..., 0])
    weight = torch.ones_like(scene.exact_a[..., 0])
    found = {}
    for name, start in (("cameras", origin), ("centers", torch.zeros_like(origin))):
        covariances = [ray_covariance(points - start, 0.1, math.radians(0.2)) for points in ends]
        found[name] = align(*ends, weight, *covariances, None, start, start)
    squared = {
        name: squared_mahalanobis(result.pose, result.information, scene.pose).mean().item()
        for name, result in found.items()
    }
    off = {name: measure.errors(result.pose, scene.pose)[0].median().item() for name, result in found.items()}
    assert squared["cameras"] == pytest.approx(6, abs=0.9)
    assert squared["centers"] > 9
    assert off["cameras"] < 0.9 * off["centers"]


def test_known_baselines_of_a_rig_give_the_scale_that_ranges_have_wrong(measure):
    """Ranges a quarter too long, and known to be useless: cameras some meters apart still tell how far the other is."""
    scene = measure.simulate(40)
    distance = scene.pose[:, :3, 3].norm(dim=-1)

    def aligned(bearing_sigma: float, **options) -> tuple[float, float]:
        """Median error in meters, and of the translation's length in its share."""
        found = measure.align_at_wrong_scale(scene, bearing_sigma, 3.0, **options)
        assert not found.degenerate.any()
        longer = found.pose[:, :3, 3].norm(dim=-1) / distance - 1
        return measure.errors(found.pose, scene.pose)[0].median().item(), longer.median().item()

    off, longer = aligned(1e-4)
    assert off < 0.05
    assert abs(longer) < 0.005
    assert aligned(0.003)[0] < 1
    # of rays that start at the agents' centers, the ranges are all that is known of lengths
    off, longer = aligned(0.003, with_origins=False)
    assert off > 4
    assert longer == pytest.approx(0.25, abs=0.05)
    # cells of 9 degrees
    assert aligned(0.03)[0] > 3


def test_covariances_at_measured_points_would_pull_the_agents_together(measure):
    scene = measure.simulate(100, 100, 0, 0.2, 0.5)
    distance = scene.pose[:, :3, 3].norm(dim=-1)

    def bias(result: Alignment) -> float:
        return (result.pose[:, :3, 3].norm(dim=-1) / distance - 1).median().item()

    assert bias(align_rays(scene, 0.2, 0.5, proportional=False)) < -0.02
    assert abs(bias(align_rays(scene, 0.2, 0.5))) < 0.005


def test_a_tilt_prior_helps_where_points_are_few(measure):
    scene = measure.simulate(100, 8, 0, 0.1, 1.0, tilt_deg=0.5)
    free = measure.errors(align_rays(scene, 0.1, 1.0).pose, scene.pose)[1]
    level = measure.errors(align_rays(scene, 0.1, 1.0, tilt_sigma=math.radians(0.7)).pose, scene.pose)[1]
    assert level.median() < 0.9 * free.median()
