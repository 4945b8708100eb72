import math
from operator import itemgetter

import pytest
import torch

from coopmap.metrics import Measures, aggregate, mask_warning, measure, slow_rows
from coopmap.metrics.aggregate import SAMPLE_COLUMNS
from coopmap.metrics.collection import SMALLEST_MASK_MEAN
from coopmap.metrics.matching import CELL_NAMES, MATCH_COLUMNS

PER_SAMPLE = [
    "auc_30",
    "ate_none_m",
    "ate_se3_m",
    "ate_sim3_m",
    "scale_abs_rel",
    "scale_ratio_10_20m",
    "depth_abs_rel",
    "depth_inlier_103",
    "depth_inlier_125",
    "depth_abs_rel_20_40m",
    "mask_pred_mean",
    "mask_iou",
    "moving_share",
    "depth_abs_rel_moving",
    "points_m_static",
    "points_m_own_body",
]


def all_rows(prediction, target):
    return measure(prediction, target) | slow_rows(prediction, target)


def test_measures_are_means_of_the_figures_of_samples_and_pairs(records):
    scenes = [records.scene(0), records.scene(1, views=2), records.scene(2, batch=1, views=4)]
    result = records.figures(*scenes)
    rows = [all_rows(*scene) for scene in scenes]
    samples, pairs = [each.samples for each in rows], [each.pairs for each in rows]
    for name in PER_SAMPLE:
        assert result[name] == pytest.approx(
            torch.cat([figures[name] for figures in samples]).nanmean().item(), rel=1e-5
        )
    ratios = torch.cat([figures["scale_ratio"] for figures in samples])
    assert result["scale_ratio_mean"] == pytest.approx(ratios.mean().item(), rel=1e-5)
    assert result["scale_ratio_median"] == pytest.approx(ratios.nanquantile(0.5).item(), rel=1e-5)
    trans = torch.cat([table["trans_m"].flatten() for table in pairs])
    distance = torch.cat([table["distance_m"].flatten() for table in pairs])
    assert result["trans_m_mean"] == pytest.approx(trans.mean().item(), rel=1e-5)
    near = (distance >= 20) & (distance < 30)
    assert result["pairs_20_30m"] == near.sum() > 0
    assert result["trans_m_mean_20_30m"] == pytest.approx(trans[near].mean().item(), rel=1e-5)
    assert result["pairs_4_agents"] == 6
    columns = {name: torch.cat([table[name].flatten() for table in pairs]).numpy() for name in pairs[0]}
    groups = aggregate({}, columns)
    assert sum(value for name, value in groups.items() if name.startswith("pairs_covisible")) == len(trans)


def test_every_mean_of_pairs_is_a_column_of_samples(records):
    rows = all_rows(*records.scene(0))
    figures, pairs = rows.samples, rows.pairs
    for name in ("trans_m", "rot_deg", "covisibility"):
        torch.testing.assert_close(figures[name], pairs[name].mean(dim=1))
    torch.testing.assert_close(figures["trans_to_reference_m"], pairs["trans_m"][:, :2].mean(dim=1))
    assert pairs["i"].tolist() == [[0, 0, 1]] * 2
    assert pairs["j"].tolist() == [[1, 2, 2]] * 2


def test_columns_are_always_the_same(records):
    names = list(all_rows(*records.scene(0)).samples)
    single = records.target(torch.ones(1, 1, 4, 8))
    rows = all_rows(records.prediction(single), single)
    assert list(rows.samples) == names
    assert all(values.shape == (1,) and values.dtype == torch.float64 for values in rows.samples.values())
    assert rows.samples["trans_m"].isnan().all()
    assert all(values.shape == (1, 0) for values in rows.pairs.values())
    assert {*SAMPLE_COLUMNS} < {*measure(*records.scene(0)).samples}


def test_one_sample_does_not_depend_on_its_batch(records):
    prediction, target = records.scene(0)
    together = all_rows(prediction, target).samples
    for index in range(2):
        part = itemgetter(slice(index, index + 1))
        alone = all_rows(prediction.map(part), target.map(part)).samples
        for name, values in alone.items():
            torch.testing.assert_close(values[0], together[name][index], equal_nan=True, rtol=1e-5, atol=1e-6)


def test_figures_do_not_depend_on_the_precision_of_the_model(records):
    scene = records.scene(0)
    expected = all_rows(*scene)
    with torch.autocast("cpu", torch.bfloat16):  # as validation runs
        found = all_rows(*scene)
    for name, values in (expected.samples | expected.pairs).items():
        assert torch.equal((found.samples | found.pairs)[name].nan_to_num(-1), values.nan_to_num(-1)), name


def test_validation_leaves_out_what_takes_long_and_a_reset_forgets(records):
    measures = Measures()
    measures.update(measure(*records.scene(0)))
    names = set(measures.compute())
    assert not any("chamfer" in name or "bev" in name for name in names)
    assert {"covisible_trans_m_median", "covisible_recall_2m_5deg", "pairs_covisible_over_50"} <= names
    assert not names & {*MATCH_COLUMNS, *CELL_NAMES}  # a model that does not match
    assert {"trans_m_mean", "ate_se3_m", "trans_m_mean_3_agents", "depth_abs_rel_moving", "scale_ratio_10_20m"} <= names
    measures.reset()
    measures.update(measure(*records.scene(3)))
    assert measures.compute() == records.figures(records.scene(3))


def test_a_collapsed_mask_is_told_with_the_name_of_the_figure(records):
    target = records.target(torch.ones(1, 2, 5, 8))
    for logits, share in ((torch.full((1, 2, 5, 8), -3.0), 0.0), (torch.ones(1, 2, 5, 8), 1.0)):
        warning = mask_warning(records.figures((records.prediction(target, mask_logits=logits), target)), "val")
        assert (warning is None) == (share >= SMALLEST_MASK_MEAN)
        if warning:
            assert "val/mask_pred_mean is 0.000" in warning
            assert "the truth is 1.000" in warning
    assert mask_warning({"mask_pred_mean": math.nan}, "val") is None
