"""Neighboring ticks are the views of their own frames, and belong to the agents of the sample's."""

from pathlib import Path

import numpy as np
import pytest
import torch

from coopmap.config import ConfigError, load_config
from coopmap.config.priors import PriorsConfig
from coopmap.data import SampleRequest, build_split
from coopmap.data.datamodule import OPV2VDataModule
from coopmap.data.opv2v import SplitIndex
from coopmap.data.ticks import TickTable
from coopmap.geometry import relative_pose

# what is present in which frame of two scenarios: agent a misses frame 2, agent c has but one
PRESENT = [["ab", "ab", "b", "abc", "ab"], ["b", "ab"]]


def index_of(scenarios: list[list[str]]) -> SplitIndex:
    frames = [agents for scenario in scenarios for agents in scenario]
    return SplitIndex(
        root=Path("nowhere"),
        split="train",
        scenarios=np.array([str(number) for number in range(len(scenarios))], np.bytes_),
        agents=np.array(list("abc"), np.bytes_),
        frame_names=np.array([f"{number:06d}" for number in range(len(frames))], np.bytes_),
        frame_scenario=np.repeat(np.arange(len(scenarios)), [len(scenario) for scenario in scenarios]),
        agent_start=np.cumsum([0, *map(len, frames)]),
        frame_agents=np.array(["abc".index(agent) for agents in frames for agent in agents]),
    )


def row_of(index: SplitIndex, frame: int, agent: str) -> int:
    return int(index.agent_start[frame]) + index.frame(frame).agents.index(agent)


@pytest.mark.parametrize(
    ("frame", "agent", "number", "expected"),
    [
        (1, "b", 1, [0]),
        (1, "b", 2, [0, 2]),
        (1, "b", 3, [0, 2, 3]),
        (1, "a", 2, [0, 3]),  # the frame without it is skipped
        (0, "b", 1, [1]),  # the start of a scenario takes from the other side
        (0, "b", 3, [1, 2, 3]),
        (4, "b", 2, [3, 2]),
        (4, "a", 3, [3, 1, 0]),
        (6, "b", 1, [5]),  # not from another scenario
    ],
)
def test_the_nearest_frames_with_the_agent(frame, agent, number, expected):
    index = index_of(PRESENT)
    assert TickTable(index, number).nearest(row_of(index, frame, agent)) == expected


@pytest.mark.parametrize(("number", "few"), [(1, ["3c", "6a"]), (3, ["3c", "5b", "6a", "6b"])])
def test_agents_with_too_few_frames_are_known(number, few):
    index = index_of(PRESENT)
    enough = TickTable(index, number).has_enough
    rows = [f"{frame}{agent}" for frame in range(len(index)) for agent in index.frame(frame).agents]
    assert [row for row, is_enough in zip(rows, enough, strict=True) if not is_enough] == few


LAYOUTS = ["panorama", "mosaic", "grouped"]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("seed", [None, 5])
def test_own_ticks_are_as_without_neighbors(config_of, layout, seed):
    split = "val" if seed is None else "train"
    alone, with_ticks = (build_split(config_of(layout=layout, neighbor_ticks=n), split) for n in (0, 1))
    request = SampleRequest(int(alone.frames[0]), 2, seed)
    a, b = alone[request], with_ticks[request]
    assert b.meta.agents == tuple(name for name in a.meta.agents for _ in range(2))
    torch.testing.assert_close(b.observation.images[::2], a.observation.images, rtol=0, atol=0)
    for name in ("rays", "depth", "pose", "ground_height_m"):
        torch.testing.assert_close(getattr(b.target, name)[::2], getattr(a.target, name), rtol=0, atol=0)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_neighbors_are_what_their_own_frame_shows(config_of, layout):
    dataset = build_split(config_of(layout=layout, neighbor_ticks=1), "val")
    first, second = (dataset.evaluation_sample(frame, np.array([0, 1])) for frame in (0, 1))
    assert first.meta.agents == second.meta.agents
    for mine, theirs in ((0, 1), (1, 0), (2, 3), (3, 2)):
        torch.testing.assert_close(first.observation.images[mine], second.observation.images[theirs], rtol=0, atol=0)
        torch.testing.assert_close(first.target.pose[mine], second.target.pose[theirs], rtol=0, atol=0)
        torch.testing.assert_close(first.target.depth[mine], second.target.depth[theirs], rtol=0, atol=0)
    assert (first.target.pose[0] != first.target.pose[1]).any()


def test_views_are_labeled_by_agent_and_have_no_rig(config_of):
    sample = build_split(config_of(neighbor_ticks=1), "val")[0]
    agents = sample.target.agent
    assert agents.tolist() == sorted(agents.tolist())
    assert torch.bincount(agents).tolist() == [2] * (len(agents) // 2)
    torch.testing.assert_close(sample.observation.agent, agents)
    assert sample.observation.slot is None
    assert sample.observation.rig_pose is None
    assert sample.target.rig_pose is None


def test_batches_of_training_have_one_shape(config_of):
    module = OPV2VDataModule(config_of(neighbor_ticks=1))
    for batch in module.train_dataloader():
        agents = int(batch.target.agent.max()) + 1
        assert batch.observation.images.shape[1] == 2 * agents


def test_frames_of_agents_with_too_few_ticks_are_left_out(config_of):
    with pytest.raises(ConfigError, match=r"each in data\.neighbor_ticks=2 more frames"):
        build_split(config_of(neighbor_ticks=2), "val")


@pytest.mark.parametrize(("changes", "message"), [({"layout": "cameras"}, "0 with data.layout=cameras"), ({}, "least")])
def test_what_makes_no_sense_is_refused(config_of, changes, message):
    with pytest.raises(ConfigError, match=message):
        config_of(neighbor_ticks=1 if changes else -1, **changes)


def test_matches_are_between_agents_of_one_tick():
    with pytest.raises(ConfigError, match=r"data\.neighbor_ticks=1 with model\.matching\.enabled=true"):
        load_config(["data.neighbor_ticks=1", "model.matching.enabled=true"])


def test_priors_of_an_agents_ticks_share_one_error(config_of):
    """Where the prior has the agent is moved on by what it really drove."""
    priors = PriorsConfig(agent_pose="noisy", trans_noise_m=2.0, rot_noise_deg=3.0)
    sample = build_split(config_of(neighbor_ticks=1), "val", priors=priors)[0]
    prior, true = sample.observation.pose_prior, sample.target.pose
    assert (prior[::2, :3, 3] - true[::2, :3, 3]).norm(dim=-1).min() > 0.1
    torch.testing.assert_close(
        relative_pose(prior[::2], prior[1::2]), relative_pose(true[::2], true[1::2]), atol=1e-3, rtol=0
    )
