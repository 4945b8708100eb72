"""Predictions that are not finite are infinitely far off: no mean is over the others alone."""

import math

import numpy as np
import pytest
import torch

from coopmap.metrics import aggregate, measure
from coopmap.metrics.aggregate import SAMPLE_COLUMNS
from coopmap.metrics.reduce import quantile

SHARES = ("auc_", "recall_", "inlier_", "mask_", "_share", "covisib", "num_", "distance", "heading")
"""Parts of the names of figures that no prediction makes infinite."""


def spoiled(records, scene):
    prediction, target = scene
    broken = {
        name: getattr(prediction, name) * math.nan for name in ("depth", "pose_trans", "pose_quat", "points_world")
    }
    return records.replace(prediction, **broken), target


def errors_among(figures):
    return {name: value for name, value in figures.items() if not any(part in name for part in SHARES)}


def test_every_error_of_a_prediction_that_is_not_finite_is_infinite(records):
    good = records.scene(0)
    bad = measure(*spoiled(records, good))
    for columns, finite in ((bad.samples, measure(*good).samples), (bad.pairs, measure(*good).pairs)):
        for name, values in errors_among(columns).items():
            if name not in ("i", "j"):
                assert torch.equal(values.isinf(), ~finite[name].isnan()), name
                assert torch.equal(values.isnan(), finite[name].isnan()), name


def test_half_of_the_predictions_spoil_every_mean_and_count_as_failures(records):
    scenes = [records.scene(seed, batch=1) for seed in range(6)]
    whole = records.figures(*scenes[:3])
    figures = records.figures(*scenes[:3], *(spoiled(records, scene) for scene in scenes[3:]))
    means = (*SAMPLE_COLUMNS, "scale_ratio_mean", "trans_m_mean", "rot_deg_mean", "trans_m_p90")
    found = {name: value for name, value in errors_among(figures).items() if name in means}
    assert {"scale_abs_rel", "depth_abs_rel", "ate_se3_m", "points_m_static"} < found.keys()
    assert set(found.values()) == {math.inf}
    assert figures["depth_inlier_125"] == pytest.approx(whole["depth_inlier_125"] / 2)
    assert figures["recall_5m_10deg"] == pytest.approx(whole["recall_5m_10deg"] / 2)
    assert figures["auc_30"] == pytest.approx(whole["auc_30"] / 2)
    # half of all pairs are failures, so that the median lies between the worst of the others and these
    assert figures["trans_m_median"] == math.inf
    assert math.isfinite(records.figures(*scenes[:3], spoiled(records, scenes[3]))["trans_m_median"])


def test_one_view_that_is_not_finite_is_not_left_out(records):
    prediction, target = records.scene(7, batch=1)
    depth = prediction.depth.clone()
    depth[0, 1] = math.nan
    samples = measure(records.replace(prediction, depth=depth), target).samples
    whole = measure(prediction, target).samples
    assert samples["depth_abs_rel"].item() == math.inf
    assert samples["depth_inlier_125"] < whole["depth_inlier_125"]
    empty = records.replace(target, valid=target.valid & (torch.arange(3) != 1)[None, :, None, None])
    known = measure(records.replace(prediction, depth=depth), empty).samples
    assert known["depth_abs_rel"] == measure(prediction, empty).samples["depth_abs_rel"]


def test_where_nothing_is_known_it_does_not_matter_what_is_predicted(records):
    prediction, target = records.scene(8)
    unknown = ~target.valid
    lost = records.replace(
        prediction,
        depth=prediction.depth.masked_fill(unknown, math.nan),
        points_world=prediction.points_world.masked_fill(unknown[..., None], math.nan),
    )
    for name, values in measure(lost, target).samples.items():
        torch.testing.assert_close(values, measure(prediction, target).samples[name], equal_nan=True, rtol=0, atol=0)


def test_what_a_model_says_of_pairs_is_no_number_where_it_says_none():
    pairs = {"num_agents": np.full(3, 2.0), "distance_m": np.ones(3), "trans_m": np.ones(3), "rot_deg": np.ones(3)}
    said = {"confidence": np.array([0.5, np.nan, 0.7]), "match_accuracy": np.array([0.5, np.nan, 0.7])}
    figures = aggregate({}, pairs | said)
    assert math.isnan(figures["confidence_mean"])
    assert figures["match_accuracy_mean"] == pytest.approx(0.6)  # nothing was seen of the second pair


@pytest.mark.parametrize("share", [0.5, 0.9, 0.95])
def test_quantiles_count_infinite_values(share):
    values = np.random.default_rng(0).uniform(0, 9, 21)
    assert quantile(values, share) == np.quantile(values, share)
    assert quantile(np.array([1.0, 2.0, np.inf]), 0.5) == 2.0
    assert quantile(np.array([1.0, np.inf]), share) == quantile(np.full(4, np.inf), share) == np.inf
