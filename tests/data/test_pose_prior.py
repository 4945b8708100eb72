"""Pose priors: how far off they are, and that they change nothing else."""

import numpy as np
import pytest
import torch

from coopmap.config.priors import PriorsConfig
from coopmap.data import SampleRequest, build_split
from coopmap.geometry import relative_pose, rotation_angle


def agent_errors(sample) -> tuple[torch.Tensor, torch.Tensor]:
    """Meters and degrees between prior and truth, per view."""
    error = relative_pose(sample.target.pose.double(), sample.observation.pose_prior.double())
    return error[:, :3, 3].norm(dim=-1), torch.rad2deg(rotation_angle(error[:, :3, :3]))


def test_without_noise_the_prior_is_the_truth(config_of):
    sample = build_split(config_of(), "val", priors=PriorsConfig(agent_pose="noisy"))[0]
    torch.testing.assert_close(sample.observation.pose_prior, sample.target.pose, atol=1e-4, rtol=0)


def test_noise_has_the_size_that_was_asked_for(config_of):
    priors = PriorsConfig(agent_pose="noisy", trans_noise_m=2.0, rot_noise_deg=3.0)
    dataset = build_split(config_of(), "val", priors=priors)
    errors = [agent_errors(dataset[index]) for index in range(len(dataset))]
    meters, degrees = (torch.cat(values) for values in zip(*errors, strict=True))
    n = len(meters)
    assert n >= 4
    assert (meters.square().mean() / (2 * 2.0**2)).sqrt().item() == pytest.approx(1, abs=2.5 / np.sqrt(n))
    assert (degrees.square().mean() / 3.0**2).sqrt().item() == pytest.approx(1, abs=2.5 / np.sqrt(n))
    again = agent_errors(dataset[0])
    assert torch.equal(again[0], errors[0][0])  # the same in every evaluation


def test_noise_stays_in_the_plane(config_of):
    """GPS and compass err horizontally: height, pitch and roll are those of the truth."""
    priors = PriorsConfig(agent_pose="noisy", trans_noise_m=5.0, rot_noise_deg=20.0)
    sample = build_split(config_of(), "val", priors=priors)[0]
    prior, truth = sample.observation.pose_prior, sample.target.pose
    torch.testing.assert_close(prior[:, 1, 3], truth[:, 1, 3], rtol=2 * torch.finfo(torch.float32).eps, atol=0)
    torch.testing.assert_close(prior[:, :3, 1], truth[:, :3, 1], atol=1e-5, rtol=0)  # the vertical axis
    assert (prior[:, [0, 2], 3] - truth[:, [0, 2], 3]).norm(dim=-1).min() > 0.01


def test_training_draws_its_level_of_noise_and_nothing_else_changes(config_of):
    priors = PriorsConfig(agent_pose="noisy", trans_noise_m=5.0)
    plain, noisy = build_split(config_of(), "train"), build_split(config_of(), "train", priors=priors)
    request = SampleRequest(int(plain.frames[0]), 2, 7)
    first, second = plain[request], noisy[request]
    assert torch.equal(first.observation.images, second.observation.images)
    assert torch.equal(first.target.pose, second.target.pose)
    assert first.observation.pose_prior is None
    means = [agent_errors(noisy[SampleRequest(request.frame, 2, seed)])[0].mean().item() for seed in range(12)]
    assert min(means) < 2 < max(means)


def test_gps_and_cameras(config_of):
    """A camera's rough pose is that of its car, composed with the exact rig."""
    priors = PriorsConfig(agent_pose="gps")
    agents = build_split(config_of(), "val", priors=priors)[0]
    cameras = build_split(config_of(layout="cameras"), "val", priors=priors)[0]
    expected = agents.observation.pose_prior.repeat_interleave(4, dim=0) @ cameras.observation.rig_pose
    torch.testing.assert_close(cameras.observation.pose_prior, expected, atol=1e-3, rtol=0)
    meters, _ = agent_errors(agents)
    assert 0.01 < meters.max() < 20


def test_the_accuracy_that_sources_state(config_of):
    """Of noisy poses that of their noise, in training that of the sample; of GPS the configured one; truth is exact."""
    noise = {"trans_noise_m": 4.0, "rot_noise_deg": 6.0}
    largest = torch.tensor([4.0, np.deg2rad(6.0)], dtype=torch.float32)
    for source, factor in (("noisy", 1.0), ("gps", 1.0), ("truth", 0.0)):
        sample = build_split(config_of(), "val", priors=PriorsConfig(agent_pose=source, **noise))[0]
        expected = (factor * largest).expand(len(sample.meta.agents), 2)
        torch.testing.assert_close(sample.observation.pose_sigma, expected, atol=1e-6, rtol=0)
    dataset = build_split(config_of(), "train", priors=PriorsConfig(agent_pose="noisy", **noise))
    levels, errors = [], []
    for seed in range(40):
        drawn = dataset[SampleRequest(int(dataset.frames[0]), 2, seed)]
        level = drawn.observation.pose_sigma / largest
        torch.testing.assert_close(level, level[:1, :1].expand_as(level))
        levels.append(level[0, 0].item())
        errors.append(agent_errors(drawn)[0].mean().item())
    assert min(levels) < 0.2 < 0.8 < max(levels)
    assert np.corrcoef(levels, errors)[0, 1] > 0.5
