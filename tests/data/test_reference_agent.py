"""View 0 is the frame of every prediction: which car it is."""

from collections import Counter

import numpy as np

from coopmap.data import SampleRequest, build_split


def frame_with(dataset, number: int) -> int:
    """First frame in which every agent hears ``number`` agents, itself among them."""
    for frame in dataset.frames:
        hearing = dataset.poses.hearing(int(frame), dataset.config.communication_range_m)
        if len(hearing) >= number and (hearing.sum(axis=1) >= number).all():
            return int(frame)
    raise AssertionError(f"no frame of {number} agents in range of one another")


def test_in_training_every_car_is_the_reference_as_often_as_any_other(config_of):
    dataset = build_split(config_of(), "train")
    frame = frame_with(dataset, 2)
    number = len(dataset.index.frame(frame).agents)
    drawn = [dataset._choose_agents(SampleRequest(frame, 2), frame, np.random.default_rng(seed)) for seed in range(300)]
    counts = Counter(int(rows[0]) for rows in drawn)
    assert set(counts) == set(range(number))
    expected = 300 / number
    assert all(abs(count - expected) < 5 * np.sqrt(expected) for count in counts.values())
    assert all(len(set(rows.tolist())) == 2 for rows in drawn)


def test_the_reference_of_a_training_sample_depends_on_its_seed_alone(config_of):
    dataset = build_split(config_of(keep_in_memory=True), "train")
    frame = frame_with(dataset, 2)
    references = {seed: dataset[SampleRequest(frame, 2, seed)].meta.agents[0] for seed in range(8)}
    assert len(set(references.values())) > 1
    assert all(dataset[SampleRequest(frame, 2, seed)].meta.agents[0] == agent for seed, agent in references.items())


def test_in_evaluation_the_reference_is_always_the_same_car(config_of):
    dataset = build_split(config_of(), "val")
    for position, frame in enumerate(dataset.frames):
        hearing = dataset.poses.hearing(int(frame), dataset.config.communication_range_m)
        agents = dataset.index.frame(int(frame)).agents
        first_that_hears_enough = int(np.flatnonzero(hearing.sum(axis=1) >= dataset.num_agents[position])[0])
        samples = [dataset[position] for _ in range(2)]
        assert samples[0].meta == samples[1].meta
        assert samples[0].meta.agents[0] == agents[first_that_hears_enough]
