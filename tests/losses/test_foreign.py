"""An agent of another scenario teaches its own ranges, and that it has nothing in common with the others."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from coopmap.config.loss import LossConfig, LossWeights
from coopmap.geometry.se3 import quat_trans_from_pose, relative_pose
from coopmap.losses import Criterion
from coopmap.losses.cells import true_matches
from coopmap.models.decoding import with_poses
from coopmap.types import Prediction, Target
from coopmap.types.records import TensorRecord

from ..rooms import exact_prediction, knowing_matches, room, sparse, three_poses

CELLS = 4 * 16
NOTHING = dict.fromkeys(LossWeights.__dataclass_fields__, 0.0)
COMPARING = ("pts3d", "pose_quats", "pose_trans", "scale")


def with_foreign(target: Target, number: int = 1, up_m: float = 1000.0) -> Target:
    """The last views are foreign, and somewhere else."""
    pose = target.pose.clone()
    pose[:, -number:, 1, 3] -= up_m
    views = pose.shape[1]
    return replace(target, pose=pose, foreign=(torch.arange(views) >= views - number).expand(len(pose), views))


def first_views(record: TensorRecord, number: int):
    """The record without the other views."""
    return record.map(lambda values: values[:, :number] if values.ndim > 1 else values)


def posed(target: Target) -> Prediction:
    """A prediction in which everything is right."""
    return with_poses(exact_prediction(target), *quat_trans_from_pose(relative_pose(target.pose[:, :1], target.pose)))


@pytest.mark.parametrize("share", [1.0, 0.2, 0.0])
def test_no_cell_matches_whatever_is_known_of_its_depth(share):
    others = sparse(room(three_poses()), 0.2)
    target = with_foreign(others)
    known = sparse(target, share).valid[:, 2:]
    valid = torch.cat([target.valid[:, :2], known], dim=1)
    target = replace(target, valid=valid, depth=torch.where(valid, room(target.pose).depth, 0.0))
    found, without = (true_matches(each, CELLS, 0.4) for each in (target, first_views(others, 2)))
    assert found.foreign.tolist() == [[False, True, True]]
    assert found.covisibility[0, 1:].tolist() == [0.0, 0.0]
    assert torch.equal(found.covisibility[:, :1], without.covisibility)
    for side in range(2):
        assert not found.matched[side][0, 1:].any()
        assert found.unmatched[side][0, 1:].all()
        assert torch.equal(found.matched[side][:, :1], without.matched[side])
        assert torch.equal(found.unmatched[side][:, :1], without.unmatched[side])


@pytest.mark.parametrize("training", [True, False])
def test_the_other_views_are_taught_what_they_are_taught_without_it(make_full_scene, every_term, training):
    prediction, target = make_full_scene(3)
    target = with_foreign(target, 2)
    criterion = Criterion(replace(every_term(), mask_pos_weight="none")).train(training)
    found, expected = (
        criterion(*pair, pair[0])[1]
        for pair in ((prediction, target), (first_views(prediction, 2), replace(first_views(target, 2), foreign=None)))
    )
    per_view = [name for name in expected if name.endswith(("_view1", "_view2"))]
    assert len(per_view) > 2 * len(COMPARING)
    for name in ("scale", *per_view):
        torch.testing.assert_close(found[name], expected[name], rtol=1e-5, atol=1e-7, msg=name)
        assert found.measured[name] == expected.measured[name], name
    for name in ("pose_quats", "pose_trans", "pts3d"):
        assert found[f"{name}_view3"] == found.measured[f"{name}_view3"] == 0
    for name in ("depth_along_ray", "cam_pts3d", "ray_directions", "mask"):
        assert found[f"{name}_view3"] > 0


@pytest.mark.parametrize("pose_terms", ["absolute", "pairwise", "both"])
def test_where_it_is_said_to_be_costs_nothing(make_scene, pose_terms):
    prediction, target = make_scene(1)
    cfg = LossConfig(pose_terms=pose_terms, weights=LossWeights(**(NOTHING | dict.fromkeys(COMPARING, 1.0))))
    leaves = prediction.map(lambda values: values.clone().requires_grad_())
    Criterion(cfg).train()(leaves, with_foreign(target))[0].backward()
    for values in (leaves.pose_trans, leaves.pose_quat, leaves.points_world, leaves.confidence):
        assert not values.grad[:, 2].any()
    assert leaves.pose_trans.grad[:, 1].any()
    assert leaves.points_world.grad[:, 1].any()


def test_a_sample_is_right_if_all_but_the_foreign_agent_are():
    target = with_foreign(room(three_poses()))
    prediction = posed(target)
    wrong = replace(
        prediction,
        pose_trans=torch.cat([prediction.pose_trans[:, :2], prediction.pose_trans[:, 1:2]], dim=1),
        points_world=torch.cat([prediction.points_world[:, :2], prediction.points_world[:, 1:2]], dim=1),
    )
    criterion = Criterion(
        LossConfig(pose_terms="both", weights=LossWeights(**(NOTHING | dict.fromkeys(COMPARING, 1.0))))
    )
    terms = criterion.eval()(wrong, target)[1]
    for name in ("pts3d_avg", "pose_quats_avg", "pose_trans_avg", "scale"):
        assert terms[name] < 1e-3, name


def test_no_pose_of_it_counts_as_found():
    """Not even the one that it was given."""
    target = with_foreign(room(three_poses()))
    true = true_matches(target, CELLS, 0.4)
    pose = true.pose.clone()
    pose[..., 0, 3] += 0.5
    pose.requires_grad_()
    logit = torch.zeros(1, 3, requires_grad=True)
    matches = replace(knowing_matches(target), pose=pose, confidence_logit=logit)
    weights = LossWeights(**(NOTHING | {"alignment": 1.0, "confidence": 1.0}))
    Criterion(LossConfig(weights=weights)).train()(replace(posed(target), matches=matches), target)[0].backward()
    assert logit.grad[0, 0] < 0  # more confident
    assert (logit.grad[0, 1:] > 0).all()
    assert pose.grad[0, 0].any()
    assert not pose.grad[0, 1:].any()


def test_samples_without_one_are_the_same_to_the_bit(make_full_scene, every_term):
    prediction, target = make_full_scene(5)
    marked = replace(target, foreign=torch.zeros_like(target.agent, dtype=torch.bool))
    for training in (True, False):
        criterion = Criterion(every_term()).train(training)
        found, expected = (criterion(prediction, each, prediction)[1] for each in (marked, target))
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in found)
