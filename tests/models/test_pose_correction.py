from __future__ import annotations

import dataclasses

import pytest
import torch

from coopmap import load_config as load_whole_config
from coopmap.config import ConfigError
from coopmap.config.priors import PriorsConfig
from coopmap.config.task import TaskConfig
from coopmap.geometry import invert
from coopmap.models import MapAnything
from coopmap.models.addons.pose_correction import PoseCorrection
from coopmap.training.inputs import draw_inputs

from .support import load_config, make_observation


def poses(batch: int, views: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    rotation = torch.linalg.qr(torch.randn(batch, views, 3, 3, generator=generator)).Q
    rotation = rotation * torch.linalg.det(rotation)[..., None, None]
    pose = torch.eye(4).repeat(batch, views, 1, 1)
    pose[..., :3, :3], pose[..., :3, 3] = rotation, 10 * torch.randn(batch, views, 3, generator=generator)
    return pose


def test_at_first_nothing_is_corrected_and_the_reference_never_is():
    torch.manual_seed(0)
    correction, pose, patches = PoseCorrection(24, 16), poses(2, 3), torch.randn(2, 3, 5, 24)
    relative = invert(pose[:, :1]) @ pose
    torch.testing.assert_close(correction(pose, patches), relative, atol=1e-5, rtol=0)
    for parameter in correction.mlp[-1].parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    corrected = correction(pose, patches)
    torch.testing.assert_close(corrected[:, 0], torch.eye(4).expand(2, 4, 4), atol=1e-5, rtol=0)
    assert (corrected - relative)[:, 1:].abs().amax(dim=(-1, -2)).min() > 0.01
    rotation = corrected[..., :3, :3]
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3).expand_as(rotation), atol=1e-5, rtol=0)
    moved = poses(2, 1) @ pose  # the world frame does not matter
    torch.testing.assert_close(correction(moved, patches), corrected, atol=1e-3, rtol=0)


def test_it_can_learn_to_undo_noise_that_the_images_show():
    """Tokens that tell the error: the correction learns to remove it, so noise is not handed straight through."""
    torch.manual_seed(0)
    correction = PoseCorrection(24, 64)
    optimizer = torch.optim.Adam(correction.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(2)
    readout = torch.randn(3, 24, generator=generator)
    errors = []
    for _ in range(300):
        true = torch.eye(4).repeat(16, 2, 1, 1)
        true[:, 1, :3, 3] = 10 * torch.randn(16, 3, generator=generator)
        noise = torch.randn(16, 3, generator=generator)
        rough = true.clone()
        rough[:, 1, :3, 3] += noise
        patches = (noise @ readout)[:, None, None].expand(16, 2, 4, 24)
        error = (correction(rough, patches)[:, 1, :3, 3] - true[:, 1, :3, 3]).norm(dim=-1).mean()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        errors.append(float(error.detach()))
    assert errors[0] == pytest.approx(1.6, abs=0.5)
    assert sum(errors[-20:]) / 20 < 0.5 * errors[0]


@pytest.fixture(scope="module")
def model() -> MapAnything:
    torch.manual_seed(0)
    inputs = {"pose": True, "rig": True}
    return MapAnything(load_config("mapanything_tiny", {"inputs": inputs, "pose_correction": True})).eval()


@torch.no_grad()
def test_absent_priors_leave_the_model_bit_identical(model):
    observation = make_observation(2, 4, 28, 42)
    with_priors = dataclasses.replace(
        observation,
        pose_prior=poses(2, 4),
        rig_pose=poses(2, 4),
        agent=torch.arange(4).expand(2, 4),
        pose_given=torch.zeros(2, 4, dtype=torch.bool),
        rig_given=torch.zeros(2, 4, dtype=torch.bool),
    )
    images_only = MapAnything(load_config("mapanything_tiny")).eval()
    images_only.load_state_dict(model.state_dict(), strict=False)
    expected = images_only(observation)
    for field in dataclasses.fields(expected):
        if field.name != "matches":
            assert torch.equal(getattr(model(with_priors), field.name), getattr(expected, field.name)), field.name
    given = model(dataclasses.replace(with_priors, pose_given=None, rig_given=None))
    assert not torch.equal(given.depth, expected.depth)


def test_priors_are_absent_per_sample_and_per_agent():
    batch, agents = 4000, 3
    observation = dataclasses.replace(
        make_observation(1, 1, 14, 14),
        images=torch.zeros(batch, 4 * agents, 3, 1, 1),
        rays=torch.zeros(batch, 4 * agents, 1, 1, 3),
        agent=torch.arange(agents).repeat_interleave(4).expand(batch, -1),
    )
    priors = PriorsConfig(agent_pose="gps", rig=True, absent_sample=0.2, absent_agent=0.1)
    drawn = draw_inputs(observation, TaskConfig(), priors, torch.Generator().manual_seed(0))
    for given in (drawn.pose_given, drawn.rig_given):
        per_agent = given.unflatten(1, (agents, 4))
        assert (per_agent == per_agent[..., :1]).all()  # the cameras of a car have the same
        assert given.float().mean().item() == pytest.approx(0.8 * 0.9, abs=0.02)
        assert given.any(dim=1).float().mean().item() == pytest.approx(0.8 * (1 - 0.1**3), abs=0.02)
    assert not torch.equal(drawn.pose_given, drawn.rig_given)
    evaluated = draw_inputs(observation, TaskConfig(), priors.for_evaluation(), torch.Generator())
    assert evaluated.pose_given.all()
    assert evaluated.rig_given.all()


def test_priors_need_their_encoders_and_layout():
    with pytest.raises(ConfigError, match=r"priors\.agent_pose=gps.*model\.inputs\.pose=true"):
        load_whole_config(["machine=laptop", "priors.agent_pose=gps"])
    with pytest.raises(ConfigError, match=r"priors\.rig=true needs data\.layout=cameras"):
        load_whole_config(["machine=laptop", "priors=rig"])
    config = load_whole_config(["machine=laptop", "priors=rig", "experiment=four_camera"])
    assert config.model.inputs.rig
    assert load_whole_config(["machine=laptop", "priors=noisy"]).priors.describe() == [
        "poses with noise of 5 m and 10 deg"
    ]
