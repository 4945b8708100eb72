"""Poses of the cameras, told to the tokens of the panorama."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from coopmap import load_config as load_whole_config
from coopmap.config.fusion import FUSION_LAYOUTS
from coopmap.geometry.poses import rotation_about_y
from coopmap.models import load_weights
from coopmap.models.priors import encode_poses

from ..test_mapanything import FIELDS
from .scenes import KINDS, make_config, make_model, permuted, random_observation, unsettled, without_camera
from .test_cameras import ORDER, permute_slots
from .test_training import gradients

INJECTIONS = ("pose_token", "late")
NUM_PATCHES = 3 * 12


@pytest.fixture(params=[(kind, injection) for kind in KINDS for injection in INJECTIONS], ids="-".join)
def fusion(request) -> dict:
    kind, injection = request.param
    return {"kind": kind, "injection": injection}


def inject(model, observation, seed: int = 0) -> torch.Tensor:
    """What is added to patch tokens of noise."""
    batch, views = observation.images.shape[:2]
    patches = torch.randn(batch, views, NUM_PATCHES, 48, generator=torch.Generator().manual_seed(seed))
    return model.fusion.injection(observation, patches)


@torch.no_grad()
def test_nothing_changes_until_it_is_trained(fusion):
    plain, model = make_model({"kind": fusion["kind"]}), make_model(fusion)
    state = model.state_dict()
    for name, value in plain.state_dict().items():
        assert torch.equal(state[name], value), name  # nor does what is drawn for the rest of the model
    assert {name for name in state if not name.startswith("fusion.injection.")} == set(plain.state_dict())
    observation = random_observation(fusion["kind"])
    expected, prediction = plain(observation), model(observation)
    for name in FIELDS:
        assert torch.equal(getattr(prediction, name), getattr(expected, name)), name
    model.fusion.injection.output.weight.normal_(std=0.3)
    assert (model(observation).depth - expected.depth).abs().max() > 1e-3


@torch.no_grad()
def test_poses_are_told(fusion):
    """A car turned by 180 degrees, whose block is not told directions, sees the same from other camera poses."""
    model = unsettled(make_model(fusion | {"directions": False}))
    observation = random_observation(fusion["kind"])
    about_y = torch.diag(torch.tensor([-1.0, 1, -1, 1]))
    turned = dataclasses.replace(observation, camera_pose=about_y @ observation.camera_pose)
    assert (model(turned).depth - model(observation).depth).abs().max() > 1e-3


@torch.no_grad()
def test_late_injection_depends_on_the_patches_and_the_pose_token_does_not(fusion):
    model, observation = unsettled(make_model(fusion)), random_observation(fusion["kind"])
    change = (inject(model, observation, seed=1) - inject(model, observation)).abs().max()
    assert change > 1e-2 if fusion["injection"] == "late" else change == 0


@torch.no_grad()
def test_each_car_is_told_of_its_own_cameras(fusion):
    model, observation = unsettled(make_model(fusion)), random_observation(fusion["kind"])
    pose = observation.camera_pose.clone()
    pose[:, 1, :, :3, 3] += 0.5
    before, after = inject(model, observation), inject(model, dataclasses.replace(observation, camera_pose=pose))
    assert after.shape == (1, 2, 1, 48)
    assert torch.equal(after[:, 0], before[:, 0])
    assert (after[:, 1] - before[:, 1]).abs().max() > 1e-3


@torch.no_grad()
def test_order_of_the_cameras_matters_to_concatenation_and_recurrence_alone(fusion):
    """By their structure, not by the slot embeddings: those move along."""
    model, observation = unsettled(make_model(fusion)), random_observation(fusion["kind"])
    before = inject(model, observation)
    permute_slots(model)
    after = inject(model, permuted(observation, ORDER))
    if fusion["injection"] == "late" or fusion["kind"] in ("mean", "cross_attention"):
        torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-5)
    else:
        assert (after - before).abs().max() > 1e-2


@pytest.mark.parametrize("injection", INJECTIONS)
@pytest.mark.parametrize("kind", ["mean", "cross_attention"])
@torch.no_grad()
def test_order_of_the_cameras_does_not_matter_to_the_model(kind, injection):
    model = unsettled(make_model({"kind": kind, "injection": injection}))
    observation = random_observation(kind)
    before = model(observation)
    permute_slots(model)
    after = model(permuted(observation, ORDER))
    for name in FIELDS:
        torch.testing.assert_close(getattr(after, name), getattr(before, name), rtol=1e-4, atol=1e-4, msg=name)


def test_a_masked_out_camera_has_no_influence(fusion):
    slot = 2
    model = unsettled(make_model(fusion))
    observation = without_camera(random_observation(fusion["kind"]), slot)
    images, pose = observation.images.requires_grad_(), observation.camera_pose.requires_grad_()
    prediction = model(observation)
    of_inputs = torch.autograd.grad(sum(getattr(prediction, name).sum() for name in FIELDS), (images, pose))
    for gradient in of_inputs:
        reached = gradient.flatten(3).any(dim=3)
        assert torch.equal(reached, (torch.arange(4) != slot).expand_as(reached))
    with torch.no_grad():  # whatever stands there
        unknown = pose.clone()
        unknown[:, :, slot] = torch.nan
        assert torch.equal(
            inject(model, dataclasses.replace(observation, camera_pose=unknown)), inject(model, observation)
        )


@torch.no_grad()
def test_a_car_without_any_camera_is_told_nothing(fusion):
    model, observation = unsettled(make_model(fusion)), random_observation(fusion["kind"])
    angle = observation.camera_angle.clone()
    angle[:, 1] = torch.inf
    added = inject(model, dataclasses.replace(observation, camera_angle=angle))
    assert not added[:, 1].any()
    assert torch.equal(added[:, 0], inject(model, observation)[:, 0])


def test_every_parameter_learns(fusion):
    model, observation = make_model(fusion), random_observation(fusion["kind"])
    at_first = gradients(model, model(observation))
    assert [name for name, gradient in at_first.items() if gradient is None] == []
    assert at_first["fusion.injection.output.weight"].any()
    unsettled(model)
    later = gradients(model, model(observation))
    assert [name for name, gradient in later.items() if not gradient.any()] == []


def test_mixed_precision(fusion):
    model, observation = unsettled(make_model(fusion)), random_observation(fusion["kind"], views=1)
    expected = model(observation)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        prediction = model(observation)
    assert all(getattr(prediction, name).dtype == torch.float32 for name in FIELDS)
    assert (prediction.depth - expected.depth).abs().mean() < 0.1 * expected.depth.abs().mean()
    assert all(gradient.isfinite().all() for gradient in gradients(model, prediction).values())


def test_nothing_waits_for_values(fusion):
    model, observation = make_model(fusion), random_observation(fusion["kind"])
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        added = model.fusion.injection(observation.map(mode.from_tensor), torch.zeros(1, 2, NUM_PATCHES, 48))
        assert added.shape == (1, 2, 1, 48)
        added.sum().backward()


def test_poses_on_both_sides_of_a_half_turn_are_told_alike():
    """There a quaternion changes its sign; the rear camera of real cars stands within 1e-6 of it."""
    both = torch.stack([torch.from_numpy(rotation_about_y(math.pi + turn)) for turn in (-1e-6, 1e-6)])
    both[:, :3, 3] = torch.tensor([0.5, 0.2, -2.0])
    told = encode_poses(both)
    expected = torch.tensor([-1.0, 0, 0, 0, 0, -1, 0.5, 0.2, -2], dtype=told.dtype)  # right is left, ahead is behind
    torch.testing.assert_close(told, expected.expand(2, -1), rtol=0, atol=1e-5)


def test_weights_without_fusion_load(fusion):
    plain, model = make_model({"kind": "none"}), make_model(fusion)
    assert not load_weights(model, {name: value + 1 for name, value in plain.state_dict().items()}).mismatch


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "mean", "injection": "lat"}, r"model.fusion.injection=lat: .*did you mean late"),
        ({"kind": "none", "injection": "late"}, r"model.fusion.injection=late: expected none with .*kind=none"),
    ],
)
def test_wrong_options_name_the_key(options, message):
    with pytest.raises(Exception, match=message):
        make_config(options)


@pytest.mark.parametrize("injection", INJECTIONS)
def test_ablations_differ_from_their_reference_in_nothing_else(injection):
    reference = load_whole_config(["machine=laptop", "experiment=fusion_cross_attention"])
    ablation = load_whole_config(["machine=laptop", f"experiment=fusion_cross_attention_{injection}"])
    assert ablation.model.fusion == dataclasses.replace(reference.model.fusion, injection=injection)
    assert ablation.data.layout in FUSION_LAYOUTS["cross_attention"]
    for part in ("data", "loss", "optim", "task", "priors"):
        assert getattr(ablation, part) == getattr(reference, part), part
    assert dataclasses.replace(ablation.model, fusion=reference.model.fusion) == reference.model
