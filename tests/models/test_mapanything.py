from __future__ import annotations

import dataclasses

import pytest
import torch

from coopmap.geometry import pose_from_quat_trans, relative_pose, transform_points
from coopmap.models import MapAnything
from coopmap.types import Observation, Prediction

from .support import load_config, make_observation

FIELDS = [field.name for field in dataclasses.fields(Prediction) if field.name != "matches"]


def objective(prediction: Prediction) -> torch.Tensor:
    """Depends on every output."""
    return sum(getattr(prediction, name).square().mean() for name in FIELDS)


def assert_equal(first: Prediction, second: Prediction, rtol: float = 1e-4, atol: float = 1e-4) -> None:
    for name in FIELDS:
        torch.testing.assert_close(getattr(first, name), getattr(second, name), rtol=rtol, atol=atol, msg=name)


@pytest.mark.parametrize(
    ("batch", "views", "height", "width"), [(1, 1, 42, 70), (2, 3, 28, 112), (1, 8, 42, 42), (1, 2, 252, 1008)]
)
@torch.no_grad()
def test_prediction_is_consistent_for_any_shape(tiny, batch, views, height, width):
    prediction = tiny(make_observation(batch, views, height, width))
    pixels = (batch, views, height, width)
    assert prediction.depth.shape == prediction.confidence.shape == prediction.mask_logits.shape == pixels
    assert prediction.rays.shape == prediction.points_view.shape == prediction.points_world.shape == (*pixels, 3)
    assert prediction.pose_trans.shape == (batch, views, 3)
    assert prediction.pose_quat.shape == (batch, views, 4)
    assert prediction.scale.shape == (batch,)
    ones = torch.ones(())
    torch.testing.assert_close(prediction.rays.norm(dim=-1), ones.expand(pixels))
    torch.testing.assert_close(prediction.pose_quat.norm(dim=-1), ones.expand(batch, views))
    torch.testing.assert_close(prediction.points_view.norm(dim=-1), prediction.depth)
    moved = prediction.points_world - prediction.pose_trans[:, :, None, None]
    torch.testing.assert_close(moved.norm(dim=-1), prediction.depth, rtol=1e-4, atol=1e-4)
    assert (prediction.confidence > 1).all()


@torch.no_grad()
def test_untrained_model_answers_with_the_initial_scale(tiny):
    prediction = tiny(make_observation(2, 2))
    torch.testing.assert_close(prediction.scale, torch.full((2,), 20.0), rtol=0.3, atol=0)
    assert 5 < prediction.depth.median() < 80


def test_image_size_must_be_a_multiple_of_the_patch(tiny):
    with pytest.raises(ValueError, match=r"40 x 70 .* patch size 14"):
        tiny(make_observation(1, 1, 40, 70))


@torch.no_grad()
def test_other_views_are_interchangeable_and_view_0_is_not(tiny):
    observation = make_observation(2, 4)
    order = [0, 3, 1, 2]
    permuted = tiny(observation.map(lambda tensor: tensor[:, order]))
    original = tiny(observation)
    expected = original.map(lambda tensor: tensor if tensor.ndim == 1 else tensor[:, order])
    assert_equal(permuted, expected)
    swapped = tiny(observation.map(lambda tensor: tensor[:, [1, 0, 2, 3]]))
    assert (swapped.pose_trans[:, 0] - original.pose_trans[:, 1]).abs().max() > 1e-2


@torch.no_grad()
def test_without_a_marked_reference_all_views_are_interchangeable():
    """Another view first: the same tokens, so the same scale, depth and relative poses, now in that view's frame."""
    torch.manual_seed(0)
    model = MapAnything(load_config("mapanything_tiny", {"info_sharing": {"mark_reference": False}})).eval()
    assert "info_sharing.view_pos_table" not in model.state_dict()
    observation, order = make_observation(2, 4), [2, 0, 3, 1]
    original = model(observation)
    permuted = model(observation.map(lambda tensor: tensor[:, order]))
    for name in ("rays", "depth", "confidence", "points_view"):
        torch.testing.assert_close(getattr(permuted, name), getattr(original, name)[:, order], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(permuted.scale, original.scale, rtol=1e-5, atol=0)
    pose, other = (pose_from_quat_trans(each.pose_quat, each.pose_trans) for each in (original, permuted))
    torch.testing.assert_close(other, relative_pose(pose[:, [2]], pose[:, order]), rtol=1e-3, atol=1e-3)
    for first in (pose[:, 0], other[:, 0]):
        torch.testing.assert_close(first, torch.eye(4).expand(2, 4, 4), rtol=0, atol=1e-5)
    assert pose[:, 1:, :3, 3].norm(dim=-1).min() > 1e-2
    moved = transform_points(pose, original.points_view.flatten(2, 3)).view_as(original.points_world)
    torch.testing.assert_close(moved, original.points_world, rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_samples_of_a_batch_do_not_mix(tiny):
    observation = make_observation(3, 2)
    assert_equal(tiny(observation.map(lambda tensor: tensor[1:2])), tiny(observation).map(lambda tensor: tensor[1:2]))


@torch.no_grad()
def test_images_only_model_ignores_everything_but_the_images(tiny):
    observation = make_observation(1, 2)
    other = dataclasses.replace(
        observation,
        rays=-observation.rays,
        depth_prior=torch.rand(1, 2, 42, 70),
        pose_prior=torch.eye(4).expand(1, 2, 4, 4),
        pose_given=torch.zeros(1, 2, dtype=torch.bool),
    )
    assert_equal(tiny(observation), tiny(other), rtol=0, atol=0)


def test_every_parameter_of_an_images_only_model_learns(tiny):
    objective(tiny(make_observation(2, 2))).backward()
    unused = [name for name, value in tiny.named_parameters() if value.grad is None or not value.grad.any()]
    assert unused == []


def observation_with_priors() -> Observation:
    pose = torch.eye(4).repeat(2, 2, 1, 1)
    pose[:, 1, :3, 3] = torch.tensor([3.0, 0.0, 4.0])
    depth = torch.rand(2, 2, 42, 70, generator=torch.Generator().manual_seed(1)) + 1
    return dataclasses.replace(make_observation(2, 2), depth_prior=depth, pose_prior=pose)


@pytest.fixture(scope="module")
def tiny_with_priors() -> MapAnything:
    torch.manual_seed(0)
    return MapAnything(load_config("mapanything_tiny", {"inputs": {"rays": True, "depth": True, "pose": True}}))


@pytest.mark.parametrize("absent", ["depth_prior", "pose_prior"])
@torch.no_grad()
def test_a_prior_may_be_absent(tiny_with_priors, absent):
    with_all = tiny_with_priors(observation_with_priors())
    without = tiny_with_priors(dataclasses.replace(observation_with_priors(), **{absent: None}))
    assert without.depth.isfinite().all()
    assert (without.depth - with_all.depth).abs().max() > 1e-3


@pytest.mark.parametrize("metric", [True, False])
@torch.no_grad()
def test_scale_of_priors_matters_only_where_they_are_metric(tiny_with_priors, metric):
    observation = observation_with_priors()
    is_metric = torch.tensor([[metric] * 2, [not metric] * 2])
    larger_pose = observation.pose_prior.clone()
    larger_pose[..., :3, 3] *= 10
    first = tiny_with_priors(dataclasses.replace(observation, depth_is_metric=is_metric, pose_is_metric=is_metric))
    second = tiny_with_priors(
        dataclasses.replace(
            observation,
            depth_prior=observation.depth_prior * 10,
            pose_prior=larger_pose,
            depth_is_metric=is_metric,
            pose_is_metric=is_metric,
        )
    )
    change = (first.depth - second.depth).abs().amax(dim=(1, 2, 3))
    told, untold = (0, 1) if metric else (1, 0)
    assert change[told] > 1e-3
    assert change[untold] < 1e-4


def test_pose_prior_may_be_in_any_world_frame(tiny_with_priors):
    observation = observation_with_priors()
    turned = torch.tensor([[0.0, 0, 1, 5], [0, 1, 0, -2], [-1, 0, 0, 9], [0, 0, 0, 1]])
    with torch.no_grad():
        moved = tiny_with_priors(dataclasses.replace(observation, pose_prior=turned @ observation.pose_prior))
        assert_equal(moved, tiny_with_priors(observation))


@pytest.mark.parametrize("part", ["encoder", "info_sharing", "heads"])
def test_checkpointing_changes_memory_but_not_gradients(tiny_config, part):
    # every part large enough to show in the sum: the tiny model's own dense head is a few percent of it
    heads = dataclasses.replace(tiny_config.heads, layer_dims=[24, 48, 96, 192], feature_dim=32)
    config = dataclasses.replace(tiny_config, heads=heads)
    torch.manual_seed(0)
    generous = MapAnything(config)
    checkpointing = dataclasses.replace(config.checkpointing, **{part: True})
    frugal = MapAnything(dataclasses.replace(config, checkpointing=checkpointing))
    frugal.load_state_dict(generous.state_dict())
    observation = make_observation(1, 2)
    saved = []
    for model in (generous, frugal):
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor, sizes=sizes: sizes.append(tensor.numel()) or tensor, lambda tensor: tensor
        ):
            loss = objective(model(observation))
        saved.append(sum(sizes))
        loss.backward()
    assert saved[1] < 0.9 * saved[0]
    gradients = dict(generous.named_parameters())
    for name, parameter in frugal.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name].grad, rtol=1e-5, atol=1e-6, msg=name)


def test_heads_stay_in_float32_under_autocast(tiny):
    observation = make_observation(1, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        prediction = tiny(observation)
    objective(prediction).backward()
    assert all(getattr(prediction, name).dtype == torch.float32 for name in FIELDS)
    with torch.no_grad():
        assert_equal(prediction, tiny(observation), rtol=0.05, atol=0.2)


def test_a_model_without_a_mark_keeps_float32_between_blocks_under_autocast():
    model = MapAnything(load_config("mapanything_tiny", {"info_sharing": {"mark_reference": False}}))
    kinds = []
    for block in model.info_sharing.self_attention_blocks:
        block.register_forward_hook(lambda _, __, tokens: kinds.append(tokens.dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(make_observation(1, 2))
    assert set(kinds) == {torch.float32}
