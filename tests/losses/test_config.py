from dataclasses import replace
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from coopmap.config.checks import ConfigError
from coopmap.config.loss import HeightPrior, LossConfig, LossWeights, PixelFactors

CONF = Path(__file__).parents[2] / "conf"


@pytest.mark.parametrize("path", sorted((CONF / "loss").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_choice_is_valid(path, load):
    assert isinstance(load(path.stem), LossConfig)


def test_overall_is_the_published_objective(load):
    assert load("overall") == LossConfig()


def test_pose_weighs_absolute_and_pairwise_poses_by_three(load):
    expected = LossConfig(pose_terms="both", weights=LossWeights(pose_quats=3.0, pose_trans=3.0))
    assert load("pose") == expected
    expected.normals = "dense"
    assert load("pose_dense") == expected


def test_v11_puts_world_points_first(load):
    tenth = dict.fromkeys(("cam_pts3d", "depth", "ray_directions", "pose_quats", "pose_trans", "scale"), 0.1)
    weights = LossWeights(pts3d=1.0, normal=0.3, gradient_matching=0.3, mask=0.03, **tenth)
    assert load("v11") == LossConfig(pose_terms="both", weights=weights)


def test_relative_differs_from_v11_in_having_no_reference(load):
    expected = replace(load("v11"), pose_terms="pairwise", pairs="between_agents", convert_to_view0=True)
    assert load("relative") == expected


@pytest.mark.parametrize(
    ("choice", "changes"),
    [
        ("ablation_scale_distillation", {"weights": {"scale_distillation": 1.0}}),
        ("ablation_rig", {"weights": {"rig": 1.0}}),
        ("ablation_height", {"weights": {"height": 0.1}}),
        ("ablation_static", {"weights_on": {"moving_vehicles": 0.0, "own_body": 0.0}}),
    ],
)
def test_an_ablation_changes_one_thing_that_is_otherwise_off(choice, changes, load):
    expected = OmegaConf.merge(OmegaConf.structured(load("pose")), changes)
    assert load(choice) == OmegaConf.to_object(expected)
    assert all(load("pose").weights.__dict__[name] == 0 for name in changes.get("weights", ()))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"pose_terms": "relative"}, "loss.pose_terms=relative"),
        ({"normals": "synthetik"}, "did you mean synthetic"),
        ({"depth": "range"}, "loss.depth=range"),
        ({"dense_share": 0.0}, "loss.dense_share=0.0"),
        ({"robust_alpha": 2.0}, "loss.robust_alpha"),
        ({"exclude_top_percent": 100.0}, "loss.exclude_top_percent=100.0"),
        ({"mask_pos_weight": "3"}, "loss.mask_pos_weight"),
        ({"confidence_alpha": 0.0}, r"loss.confidence_alpha=0.0: expected a positive number, or null"),
        ({"pairs": "between_cars", "pose_terms": "both"}, "did you mean between_agents"),
        ({"pairs": "between_agents"}, "loss.pairs=between_agents: expected all with loss.pose_terms=absolute"),
    ],
)
def test_bad_values_are_named(values, message):
    with pytest.raises(ConfigError, match=message):
        LossConfig(**values)


def test_factors_and_bounds_are_named():
    with pytest.raises(ConfigError, match=r"loss\.weights_on\.own_body=1\.5: expected a factor in \[0, 1\]"):
        PixelFactors(own_body=1.5)
    with pytest.raises(ConfigError, match=r"loss\.height\.slope=-0\.1"):
        HeightPrior(slope=-0.1)
    with pytest.raises(ConfigError, match=r"loss\.height\.ceiling_m=-2\.0"):
        HeightPrior(ceiling_m=-2.0)


def test_a_negative_weight_is_named():
    with pytest.raises(ConfigError, match=r"loss\.weights\.scale=-1"):
        LossWeights(scale=-1.0)
