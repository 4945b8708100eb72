"""Agents of other scenarios in training samples."""

import functools
import shutil

import numpy as np
import pytest
import torch

from coopmap.config import ConfigError, load_config
from coopmap.config.data import CamerasConfig, DepthConfig
from coopmap.config.priors import PriorsConfig
from coopmap.config.sampling import SamplingConfig
from coopmap.data import SampleRequest, build_split
from coopmap.data.samples import collate
from coopmap.geometry import invert
from coopmap.losses.cells import true_matches

ALL, NONE = SamplingConfig(foreign_prob=1.0), SamplingConfig()


@pytest.fixture
def config_of(config_of, town, tmp_path):
    """As elsewhere, with a second training scenario: the first one under another name."""
    for kind, root in (("root", town.root), ("depth_root", town.depth_root)):
        shutil.copytree(root, tmp_path / kind)
        (scenario,) = (path for path in (tmp_path / kind / "train").iterdir() if path.is_dir())
        shutil.copytree(scenario, scenario.with_name("other"))
    return functools.partial(config_of, root=str(tmp_path / "root"), depth_root=str(tmp_path / "depth_root"))


@pytest.fixture
def drawn(config_of):
    """Training samples of three agents of the first frame that has so many."""

    def draw(sampling: SamplingConfig, seed: int = 3, **changes):
        dataset = build_split(config_of(sampling=sampling, **changes), "train")
        frame = int(np.flatnonzero(dataset.group_sizes >= 3)[0])
        return dataset[SampleRequest(frame, 3, seed)]

    return draw


def test_the_last_agent_is_of_another_scenario_and_the_others_are_as_without(drawn):
    with_foreign, plain = drawn(ALL), drawn(NONE)
    assert with_foreign.meta.agents[:2] == plain.meta.agents[:2]
    scenario, _ = with_foreign.meta.agents[2].split("/")
    assert scenario != with_foreign.meta.scenario == plain.meta.scenario
    for part in ("images", "rays"):
        assert torch.equal(getattr(with_foreign.observation, part)[:2], getattr(plain.observation, part)[:2])
    assert torch.equal(with_foreign.target.points_world[:2], plain.target.points_world[:2])
    assert not torch.equal(with_foreign.observation.images[2], plain.observation.images[2])
    assert with_foreign.target.valid[2].any()  # its ranges are taught


@pytest.mark.parametrize("source", ["npy", "lidar"])
def test_nothing_is_shared_with_it(drawn, source):
    """Every cell is known to match nothing."""
    target = drawn(ALL, depth=DepthConfig(source=source)).target.map(lambda value: value[None])
    true = true_matches(target, num_cells=6 * 24, dense_share=0.5)
    assert true.covisibility[0, 0] > 0.05  # agents 0 and 1
    assert true.covisibility[0, 1:].tolist() == [0, 0]
    for matched, unmatched in zip(true.matched, true.unmatched, strict=True):
        assert not matched[0, 1:].any()
        assert unmatched[0, 1:].all()


@pytest.mark.parametrize("layout", ["cameras", "grouped", "warped", "mosaic"])
def test_all_views_of_an_agent_move_together(drawn, layout):
    changes = {"cameras": CamerasConfig(height=56, width=70)} if layout in ("cameras", "grouped") else {}
    target = drawn(ALL, layout=layout, **changes).target
    up = -(target.pose[:, 1, 3] - target.pose[0, 1, 3])
    far = up > 900
    assert far.tolist() == [False] * (2 * len(far) // 3) + [True] * (len(far) // 3)
    assert np.ptp(up[far].numpy()) < 10
    assert torch.equal(target.foreign, far)


def test_batches_hold_samples_with_and_without_it(config_of):
    dataset = build_split(config_of(sampling=SamplingConfig(foreign_prob=0.5)), "train")
    frame = int(np.flatnonzero(dataset.group_sizes >= 2)[0])
    batch = collate([dataset[SampleRequest(frame, 2, seed)] for seed in range(8)])
    assert batch.target.foreign[:, 1].tolist() == ["/" in meta.agents[1] for meta in batch.metas]
    assert 0 < batch.target.foreign.sum() < 8
    assert not batch.target.foreign[:, 0].any()


def test_agents_that_were_left_out_are_not_drawn(config_of):
    dataset = build_split(config_of(sampling=ALL, min_agents=2), "train")
    index = dataset.index
    frame_of = np.repeat(np.arange(len(index)), index.num_agents)
    (other,) = np.flatnonzero(index.scenarios == b"other")
    left_out = index.frame(int(frame_of[index.frame_scenario[frame_of] == other][0])).agents[0]
    is_agent = index.agents[index.frame_agents] == left_out.encode()
    dataset.leave_out((index.frame_scenario[frame_of] == other) & is_agent)
    frame = next(int(frame) for frame in dataset.frames if index.frame_scenario[frame] != other)
    drawn = {dataset[SampleRequest(frame, 2, seed)].meta.agents[1] for seed in range(20)}
    assert len(drawn) > 1
    assert f"other/{left_out}" not in drawn


@pytest.mark.parametrize("layout", ["panorama", "cameras"])
def test_its_pose_prior_errs_as_those_of_the_others(config_of, layout):
    """The compass turns it where it is, not around where it was."""
    cameras = {"cameras": CamerasConfig(height=56, width=70)} if layout == "cameras" else {}
    config = config_of(sampling=ALL, layout=layout, **cameras)
    for priors in (PriorsConfig(agent_pose="noisy", rot_noise_deg=30.0), PriorsConfig(agent_pose="gps")):
        dataset = build_split(config, "train", priors=priors)
        frame = int(np.flatnonzero(dataset.group_sizes >= 2)[0])
        for seed in range(4):
            sample = dataset[SampleRequest(frame, 2, seed)]
            poses = (sample.observation.pose_prior, sample.target.pose)
            if sample.target.rig_pose is not None:
                poses = tuple(pose @ invert(sample.target.rig_pose) for pose in poses)
            prior, true = poses
            off = (prior[:, :3, 3] - true[:, :3, 3]).norm(dim=-1)
            assert off.max() < (1e-3 if priors.agent_pose == "noisy" else 2.0)
            assert not torch.allclose(prior[-1, :3, :3], true[-1, :3, :3], atol=1e-6)


def test_it_comes_as_often_as_asked_for(config_of):
    dataset = build_split(config_of(sampling=SamplingConfig(foreign_prob=0.3)), "train")
    frame = int(np.flatnonzero(dataset.group_sizes >= 2)[0])
    foreign = ["/" in dataset[SampleRequest(frame, 2, seed)].meta.agents[1] for seed in range(60)]
    assert 0.1 < np.mean(foreign) < 0.5


def test_evaluation_and_single_agents_have_none(config_of):
    dataset = build_split(config_of(sampling=ALL), "val")
    assert not any("/" in agent for agent in dataset[0].meta.agents)
    train = build_split(config_of(sampling=ALL), "train")
    assert not any("/" in agent for agent in train[SampleRequest(int(train.frames[0]), 1, 0)].meta.agents)


def test_poses_that_are_regressed_have_no_answer_for_it():
    foreign = ["preset=none", "data.sampling.foreign_prob=0.1"]
    assert load_config(["experiment=cyl_matching", *foreign]).data.sampling.foreign_prob == 0.1
    assert load_config(["experiment=cyl_posefix", *foreign]).loss.weights.pts3d == 1
    reason = r"expected 0 without model\.matching\.enabled=true"
    with pytest.raises(ConfigError, match=rf"data\.sampling\.foreign_prob=0\.1: {reason}"):
        load_config(["experiment=cyl_posefix", "loss=pose", *foreign])


def test_batches_that_are_measured_have_none():
    foreign = ["preset=none", "experiment=cyl_matching", "data.sampling.foreign_prob=0.1"]
    with pytest.raises(ConfigError, match=r"foreign_prob=0\.1: expected 0 with trainer\.overfit_batches"):
        load_config([*foreign, "trainer.overfit_batches=3"])
