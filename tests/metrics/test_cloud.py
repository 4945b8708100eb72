import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from coopmap.metrics import cloud
from coopmap.metrics.cloud import _by_all, cloud_figures, is_near, nearest_distance, occupied


def rays_to(points):
    points = torch.tensor(points, dtype=torch.float32)
    return torch.nn.functional.normalize(points, dim=-1)[None, None, None], points.norm(dim=-1)[None, None, None]


def compare(records, predicted, true):
    """Clouds of one view; the numbers of points must be equal."""
    rays, depth = rays_to(true)
    target = records.target(depth, rays=rays)
    points = torch.tensor(predicted, dtype=torch.float32)[None, None, None]
    prediction = records.replace(records.prediction(target), points_view=points, points_world=points)
    return {name: value.item() for name, value in cloud_figures(prediction, target).items()}


def test_four_points_worked_out_by_hand(records):
    true = [[0.2, 0, 5.2], [0.2, 0, 10.2], [0.2, 0, 15.2], [0.2, 0, 20.2]]
    predicted = [[0.3, 0, 5.2], [0.2, 0, 11.2], [0.2, 0, 15.2], [0.2, 0, 15.3]]
    # to the truth: 0.1, 1, 0, 0.1; to the prediction: 0.1, 1, 0, 4.9; cells: 2 of 5 shared
    result = compare(records, predicted, true)
    assert result == pytest.approx(
        {
            "chamfer_m": (1.2 + 6.0) / 8,
            "chamfer_pred_to_true_m": 1.2 / 4,
            "chamfer_true_to_pred_m": 6.0 / 4,
            "bev_iou": 2 / 5,
        },
        rel=1e-4,
    )


def test_the_filter_keeps_a_disc_around_the_reference_agent_and_a_band_above_its_ground(records, monkeypatch):
    # 1.9 m above the ground: y = 1.9 is the road, y = -2.3 is 4.2 m above it
    points = torch.tensor(
        [[0, 1.9, 5], [0, 2.8, 5], [0, 3.0, 5], [0, -2.2, 5], [0, -2.4, 5], [85, 0, 84], [85, 0, 85.0]]
    )
    assert is_near(points).tolist() == [True, True, False, True, False, True, False]
    assert not is_near(points * torch.nan).any()
    # far and high points of either cloud do not matter
    true = [[0.2, 0, 5], [0.2, 0, 10], [0.2, -9, 15], [0.2, 0, 300]]
    predicted = [[0.2, 0, 5], [0.2, 0, 10], [0.2, -20, 15], [0.2, 0, 500]]
    assert compare(records, predicted, true)["chamfer_m"] == pytest.approx(0, abs=1e-3)
    monkeypatch.setattr(cloud, "MAX_HEIGHT_M", 99.0)
    assert compare(records, predicted, true)["chamfer_m"] > 1


def test_a_perfect_prediction_and_a_shifted_one(records):
    prediction, target = records.scene(0, height=32, width=64)
    perfect = cloud_figures(records.prediction(target), target)
    assert perfect["chamfer_m"].max() < 1e-2
    assert perfect["bev_iou"].min() > 0.99
    off = cloud_figures(prediction, target)
    assert off["chamfer_m"].min() > 0.3
    again = cloud_figures(prediction, target)
    assert all(torch.equal(off[name], again[name]) for name in off)


def test_empty_clouds_are_undefined(records):
    target = records.target(torch.zeros(1, 2, 2, 2))
    assert all(values.isnan().all() for values in cloud_figures(records.prediction(target), target).values())
    rays, depth = rays_to([[0.2, 0, 5], [0.2, 0, 9]])
    target = records.target(depth, rays=rays)
    result = cloud_figures(records.prediction(target), target)
    assert result["bev_iou"] == 1
    assert result["chamfer_m"] < 1e-3


def test_nearest_distances_are_exact_far_from_the_origin():
    generator = torch.Generator().manual_seed(0)
    references = 100 * torch.rand(5000, 3, generator=generator)
    queries = references[:2500] + 0.001 * torch.rand(2500, 3, generator=generator)
    expected = torch.cdist(queries.double(), references.double(), compute_mode="donot_use_mm_for_euclid_dist").amin(1)
    with torch.autocast("cpu", torch.bfloat16):  # as validation runs
        found = nearest_distance(queries, references)
    # differences of float32 coordinates up to 100, and of 1e-3 to the references: the rounding of the coordinates
    rounding = 100 * torch.finfo(torch.float32).eps
    torch.testing.assert_close(found.double(), expected, atol=rounding, rtol=0)
    distances = (queries - references[_by_all(queries, references)]).norm(dim=1)  # as on a GPU
    torch.testing.assert_close(distances.double(), expected, atol=rounding, rtol=0)


@given(
    hnp.arrays(np.float32, st.tuples(st.integers(0, 9), st.just(3)), elements=st.floats(-50, 50, width=16)),
    hnp.arrays(np.float32, st.tuples(st.integers(0, 9), st.just(3)), elements=st.floats(-50, 50, width=16)),
)
def test_nearest_distances_of_few_coincident_or_no_points(queries, references):
    """Both ways agree with all distances; with no reference there is no finite one."""
    queries, references = torch.from_numpy(queries), torch.from_numpy(references)
    found = nearest_distance(queries, references)
    assert found.shape == (len(queries),)
    if not len(references):
        assert found.isinf().all()
        return
    gaps = (queries[:, None].double() - references.double()).norm(dim=-1)
    expected = gaps.amin(dim=1)
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=0)  # of float32
    if len(queries):
        distances = (queries - references[_by_all(queries, references)]).norm(dim=1)
        torch.testing.assert_close(distances.double(), expected, rtol=1e-6, atol=0)


def test_clouds_without_points_and_of_equal_points(records):
    far = [[0.2, 0, 5000.0]] * 3
    near = [[0.2, 0, 5.0]] * 3
    for predicted in (near, far):  # no truth: nothing to measure
        assert all(math.isnan(value) for value in compare(records, predicted, far).values())
    for predicted in (far, [[math.nan] * 3] * 3):  # no prediction: nothing of the truth is found
        result = compare(records, predicted, near)
        assert math.isnan(result.pop("chamfer_pred_to_true_m"))
        assert result == {"chamfer_m": math.inf, "chamfer_true_to_pred_m": math.inf, "bev_iou": 0}
    result = compare(records, near, near)
    assert result["bev_iou"] == 1
    assert result["chamfer_m"] == pytest.approx(0, abs=1e-5)


def test_cells_of_half_a_meter():
    points = torch.tensor([[0.1, 0, 0.1], [0.4, 5, 0.4], [0.6, 0, 0.1], [-0.1, 0, 0.1], [119.9, 0, -119.9]])
    grid = occupied(points, 120.0).view(480, 480)
    assert grid.sum() == 4
    assert grid[240, 240]
    assert grid[241, 240]
    assert grid[239, 240]
    assert grid[479, 0]
    assert math.isclose(occupied(points, 0.5).numel(), 4)
