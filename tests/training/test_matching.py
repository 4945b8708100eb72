"""Models that match, on rendered data: fused inside the model, and their matching heads trained alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields

import pytest
import torch

from coopmap import load_config
from coopmap.geometry.se3 import pose_from_quat_trans, relative_pose
from coopmap.training.assembly import build_module
from coopmap.training.optim import build_optimizer
from coopmap.types import Prediction

from .one_step import MATCHING, data_and_batch, one_step

CAMERAS = ("data.cameras.height=28", "data.cameras.width=28")


@pytest.mark.parametrize("experiment", ["fusion_cross_attention", "fusion_mean"])
def test_fused_maps_are_matched_taught_and_aligned(experiment: str, overrides: Callable[..., list[str]]) -> None:
    """Forward, objective and backward; then, of two agents, the pair's aligned pose is the answer."""
    config = load_config(overrides(f"experiment={experiment}", "data.max_agents=2", *CAMERAS, *MATCHING))
    data, batch = data_and_batch(config)
    batch, module = data.on_after_batch_transfer(batch, 0), build_module(config)
    module.tie_random_numbers(0)
    total, terms = module.loss_of(batch, 0)
    assert all(terms.measured[name].all() for name in ("matching", "covisibility", "confidence"))
    total.backward()
    gradients = {name: parameter.grad for name, parameter in module.model.matching.named_parameters()}
    assert [name for name, value in gradients.items() if value is None or not value.isfinite().all()] == []
    taught = ("descriptor.weight", "query.weight", "keys.weight", "unmatched.weight", "log_range_sigma.weight")
    assert [name for name in taught if not gradients[name].any()] == []
    with torch.no_grad():
        answer = module.model.eval()(batch.observation)
        module.model.matching.pose_from = "head"
        regressed = module.model(batch.observation)
    pair = answer.matches
    assert not pair.degenerate.any()

    def farthest(prediction: Prediction) -> float:
        """Largest distance, meters, of agent 1 from where the pair's aligned pose has it."""
        pose = pose_from_quat_trans(prediction.pose_quat, prediction.pose_trans)
        found = relative_pose(pose[:, 0], pose[:, 1])
        return (found - pair.pose[:, 0])[:, :3, 3].norm(dim=-1).max().item()

    assert farthest(answer) < 0.2  # the bundle goes on from there
    assert farthest(regressed) > 2.0


def test_matching_heads_alone_learn_and_everything_else_stays(overrides: Callable[..., list[str]]) -> None:
    """With optim/train=matching: not a bit of ranges, rays, masks and regressed poses changes."""
    config = load_config(overrides("optim/train=matching", *MATCHING))
    data, batch = data_and_batch(config)
    batch, module = data.on_after_batch_transfer(batch, 0), build_module(config)
    before = {name: value.clone() for name, value in module.model.state_dict().items()}
    module.model.matching.pose_from = "head"
    with torch.no_grad():
        without = module.model.eval()(batch.observation)
    module.train()
    one_step(module, build_optimizer(module.model, module.optim), batch)
    moved = {name for name, value in module.model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved <= {f"matching.{name}" for name, _ in module.model.matching.named_parameters()}
    assert {f"matching.{part}.weight" for part in ("descriptor", "query", "keys", "log_range_sigma")} < moved
    with torch.no_grad():
        after = module.model.eval()(batch.observation)
    for field in fields(without):
        if field.name != "matches":
            assert torch.equal(getattr(after, field.name), getattr(without, field.name)), field.name
    assert not torch.equal(after.matches.scores, without.matches.scores)
