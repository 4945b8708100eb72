from operator import itemgetter

import pytest
import torch

from coopmap.metrics import Measures, mask_warning, pair_figures, sample_figures
from coopmap.metrics.collection import SMALLEST_MASK_MEAN

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
    "chamfer_m",
    "bev_iou",
]


def measured(scenes, full=True):
    measures = Measures(full)
    for scene in scenes:
        measures.update(*scene)
    return {name: value.item() for name, value in measures.compute().items()}


def test_measures_are_means_of_the_figures_of_samples_and_pairs(records):
    scenes = [records.scene(0), records.scene(1, views=2), records.scene(2, batch=1, views=4)]
    result = measured(scenes)
    samples = [sample_figures(*scene) for scene in scenes]
    for name in PER_SAMPLE:
        assert result[name] == pytest.approx(
            torch.cat([figures[name] for figures in samples]).nanmean().item(), rel=1e-5
        )
    ratios = torch.cat([figures["scale_ratio"] for figures in samples])
    assert result["scale_ratio_mean"] == pytest.approx(ratios.mean().item(), rel=1e-5)
    assert result["scale_ratio_median"] == pytest.approx(ratios.nanquantile(0.5).item(), rel=1e-5)
    pairs = [pair_figures(*scene) for scene in scenes]
    trans = torch.cat([table["trans_m"].flatten() for table in pairs])
    distance = torch.cat([table["distance_m"].flatten() for table in pairs])
    assert result["trans_m_mean"] == pytest.approx(trans.mean().item(), rel=1e-5)
    near = (distance >= 20) & (distance < 30)
    assert result["pairs_20_30m"] == near.sum() > 0
    assert result["trans_m_mean_20_30m"] == pytest.approx(trans[near].mean().item(), rel=1e-5)
    assert result["pairs_4_agents"] == 6
    assert sum(value for name, value in result.items() if name.startswith("pairs_covisible")) == len(trans)


def test_every_mean_of_pairs_is_a_column_of_samples(records):
    figures, pairs = sample_figures(*records.scene(0)), pair_figures(*records.scene(0))
    for name in ("trans_m", "rot_deg", "covisibility"):
        torch.testing.assert_close(figures[name], pairs[name].mean(dim=1))
    torch.testing.assert_close(figures["trans_to_reference_m"], pairs["trans_m"][:, :2].mean(dim=1))
    assert pairs["i"].tolist() == [[0, 0, 1]] * 2
    assert pairs["j"].tolist() == [[1, 2, 2]] * 2


def test_columns_are_always_the_same(records):
    prediction, target = records.scene(0)
    names = list(sample_figures(prediction, target))
    single = records.replace(records.target(torch.ones(1, 1, 4, 8)))
    figures = sample_figures(records.prediction(single), single)
    assert list(figures) == names
    assert all(values.shape == (1,) and values.dtype == torch.float64 for values in figures.values())
    assert figures["trans_m"].isnan().all()
    assert all(values.shape == (1, 0) for values in pair_figures(records.prediction(single), single).values())
    cheap = sample_figures(prediction, target, full=False)
    assert set(names) - set(cheap) == {
        "chamfer_m",
        "chamfer_pred_to_true_m",
        "chamfer_true_to_pred_m",
        "bev_iou",
        "covisibility",
    }


def test_one_sample_does_not_depend_on_its_batch(records):
    prediction, target = records.scene(0)
    together = sample_figures(prediction, target)
    for index in range(2):
        part = itemgetter(slice(index, index + 1))
        alone = sample_figures(prediction.map(part), target.map(part))
        for name, values in alone.items():
            torch.testing.assert_close(values[0], together[name][index], equal_nan=True, rtol=1e-5, atol=1e-6)


def test_validation_leaves_out_what_takes_long_and_a_reset_forgets(records):
    measures = Measures()
    measures.update(*records.scene(0))
    names = set(measures.compute())
    assert not any("chamfer" in name or "bev" in name or "covisible" in name for name in names)
    assert {"trans_m_mean", "ate_se3_m", "trans_m_mean_3_agents", "depth_abs_rel_moving", "scale_ratio_10_20m"} <= names
    measures.reset()
    measures.update(*records.scene(3))
    again = {name: value.item() for name, value in measures.compute().items()}
    assert again == pytest.approx(measured([records.scene(3)], full=False))


def test_a_collapsed_mask_is_told_with_the_name_of_the_figure(records):
    target = records.target(torch.ones(1, 2, 5, 8))
    for logits, share in ((torch.full((1, 2, 5, 8), -3.0), 0.0), (torch.ones(1, 2, 5, 8), 1.0)):
        figures = {
            name: torch.tensor(value)
            for name, value in measured([(records.prediction(target, mask_logits=logits), target)]).items()
        }
        warning = mask_warning(figures, "val")
        assert (warning is None) == (share >= SMALLEST_MASK_MEAN)
        if warning:
            assert "val/mask_pred_mean is 0.000" in warning
            assert "the truth is 1.000" in warning
    assert mask_warning({"mask_pred_mean": torch.tensor(torch.nan)}, "val") is None
