import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coopmap.config import ConfigError
from coopmap.config.data import DataConfig
from coopmap.data import OPV2VDataModule
from coopmap.data.order import GlobalOrder, Pool
from coopmap.data.pairs import PairLimits
from coopmap.data.requests import SampleRequest
from coopmap.data.sampling import EvalBatchSampler, Position, TrainBatchSampler, continued

FRAMES_WITH = {2: np.arange(40), 3: np.arange(25), 4: np.arange(10)}
STEPS = 30


def order(frames_with=None, **changes) -> GlobalOrder:
    arguments = {"max_views_per_gpu": 12, "steps_per_pass": STEPS, "seed": 0} | changes
    return GlobalOrder(Pool(PairLimits(), frames_with or FRAMES_WITH), **arguments)


def sampler(seed=0, rank=0, world_size=1, accumulate=1, epoch=0, step=0, steps_per_epoch=STEPS) -> TrainBatchSampler:
    batches = steps_per_epoch * accumulate
    position = Position(epoch, step, (epoch * batches + step) * world_size)
    batch_order = order(steps_per_pass=steps_per_epoch, seed=seed, group=world_size * accumulate)
    return TrainBatchSampler(batch_order, batches, rank, world_size, position)


def all_ranks(world_size: int, **changes) -> list[list[SampleRequest]]:
    """What all ranks together see, in the global order."""
    ranks = [list(sampler(rank=rank, world_size=world_size, **changes)) for rank in range(world_size)]
    return [batch for batches in zip(*ranks, strict=True) for batch in batches]


@given(seed=st.integers(0, 1000), world_size=st.sampled_from([1, 2, 10]))
def test_every_rank_sees_the_same_number_of_agents_at_a_step(seed, world_size):
    ranks = [list(sampler(seed=seed, rank=rank, world_size=world_size)) for rank in range(world_size)]
    for batches in zip(*ranks, strict=True):
        counts = {request.num_agents for batch in batches for request in batch}
        assert len(counts) == 1
        count = counts.pop()
        assert all(len(batch) == 12 // count for batch in batches)
        assert all(request.frame in FRAMES_WITH[count] for batch in batches for request in batch)


@pytest.mark.parametrize("world_size", [1, 2, 10])
def test_an_epoch_has_the_same_length_for_any_world_size(world_size):
    assert len(list(sampler(world_size=world_size))) == 30


def test_ranks_share_out_frames_without_repeating_any():
    ranks = [list(sampler(rank=rank, world_size=2)) for rank in range(2)]
    for first, second in zip(*ranks, strict=True):
        if first[0].num_agents < 4:  # of those there are enough for both
            assert not {request.frame for request in first} & {request.frame for request in second}
        assert not {request.seed for request in first} & {request.seed for request in second}


def test_no_frame_comes_twice_until_all_came_once():
    drawn = [request.frame for batch in sampler() for request in batch if request.num_agents == 2]
    assert set(Counter(drawn[:40]).values()) == {1}


def test_same_seed_same_batches_and_every_epoch_differs():
    first, again = sampler(), sampler()
    assert list(first) == list(again)
    again.set_epoch(1)
    assert list(first) != list(again)
    assert list(sampler(seed=1)) != list(first)


def test_a_resumed_pass_continues_where_it_stopped():
    whole = list(sampler(epoch=3))
    rest = sampler(epoch=3, step=17)
    rest.set_epoch(3)  # as the trainer does at the start of the epoch
    iter(rest)  # as a loader with processes of its own does
    assert list(rest) == whole[17:]
    rest.set_epoch(4)
    assert list(rest) == list(sampler(epoch=4))


def test_all_numbers_of_agents_are_drawn():
    counts = Counter(batch[0].num_agents for batch in sampler(steps_per_epoch=300))
    assert all(70 < counts[count] < 130 for count in (2, 3, 4))


def test_nothing_to_draw_from_is_an_error():
    with pytest.raises(ValueError, match="no frame has enough agents"):
        order({2: np.array([], int)})


@pytest.mark.parametrize("world_size", [1, 3, 10])
def test_evaluation_covers_each_frame_once_on_any_number_of_ranks(world_size):
    num_agents = np.array([2, 3, 2, 4, 4, 2, 3, 2, 2])
    frames = np.arange(9) * 10
    samplers = [
        EvalBatchSampler(num_agents, frames, max_views_per_gpu=4, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    assert len({len(list(sampler)) for sampler in samplers} | {len(sampler) for sampler in samplers}) == 1
    batches = [batch for sampler in samplers for batch in itertools.islice(sampler, sampler.num_own)]
    requests = [request for batch in batches for request in batch]
    assert sorted(request.frame for request in requests) == frames.tolist()
    assert all(request.num_agents == num_agents[request.frame // 10] for request in requests)
    assert all(len({request.num_agents for request in batch}) == 1 for batch in batches)
    assert all(sum(request.num_agents for request in batch) <= 4 for batch in batches)


def test_an_order_is_what_it_always_was():
    """Figures of recorded runs stay comparable: the first samples of a run on one GPU."""
    drawn = [(r.frame, r.num_agents, r.seed) for batch in sampler() for r in batch][:8]
    assert drawn == [
        (5, 4, 810068569591007721),
        (2, 4, 810068569591007722),
        (8, 4, 810068569591007723),
        (20, 3, 3980710167602192323),
        (12, 3, 3980710167602192324),
        (10, 3, 3980710167602192325),
        (8, 3, 3980710167602192326),
        (11, 3, 2497049138943368779),
    ]


@given(seed=st.integers(0, 1000), epoch=st.integers(0, 3), steps=st.integers(1, 40))
def test_ranks_see_what_one_rank_with_more_accumulation_sees(seed, epoch, steps):
    chosen = {"seed": seed, "epoch": epoch, "steps_per_epoch": steps}
    alone = all_ranks(1, accumulate=4, **chosen)
    assert len(alone) == 4 * steps
    assert all_ranks(2, accumulate=2, **chosen) == alone
    assert all_ranks(4, accumulate=1, **chosen) == alone


@given(seed=st.integers(0, 1000), step=st.integers(0, STEPS), before=st.sampled_from([1, 2, 4]))
def test_a_resume_on_other_ranks_continues_the_global_order(seed, step, before):
    """With the accumulation adapted, and without: then fewer micro-batches make up a step, in the same order."""
    whole = [batch for epoch in (0, 1) for batch in all_ranks(4, seed=seed, epoch=epoch)]
    at = step * (4 // before)
    state = {"epoch": 0, "step": at, "micro_batch": at * before, "group": 4, "world_size": before}
    state |= {"accumulate": 4 // before, "steps_per_epoch": STEPS}
    for world_size, accumulate in ((1, 4), (2, 2), (4, 1), (1, 1), (2, 1)):
        position, group = continued(state, world_size, accumulate)
        assert position.step == step * accumulate
        ranks = [
            TrainBatchSampler(order(seed=seed, group=group), STEPS * accumulate, rank, world_size, position)
            for rank in range(world_size)
        ]
        seen = []
        for epoch in (0, 1):
            for rank in ranks:
                rank.set_epoch(epoch)
            seen += [batch for batches in zip(*map(list, ranks), strict=True) for batch in batches]
        assert seen == whole[4 * step :][: len(seen)]
        assert len(seen) == (2 * STEPS - step) * world_size * accumulate


def test_ranks_that_cannot_share_the_groups_start_groups_of_their_own(caplog):
    state = {"epoch": 1, "step": 7, "micro_batch": 74, "group": 2, "world_size": 2, "accumulate": 1}
    position, group = continued(state | {"steps_per_epoch": STEPS}, 3, 1)
    assert (position, group) == (Position(1, 7, 111), 3)
    assert "2 micro-batches per optimizer step, which 3 ranks cannot share" in caplog.text


def test_an_unfinished_optimizer_step_is_taken_again_if_its_size_changes():
    state = {"epoch": 0, "step": 5, "micro_batch": 10, "group": 6, "world_size": 2, "accumulate": 3}
    state["steps_per_epoch"] = STEPS
    assert continued(state, 2, 3) == (Position(0, 5, 10), 6)
    assert continued(state, 6, 1) == (Position(0, 1, 6), 6)


def chi_square(observed, expected) -> float:
    observed, expected = np.asarray(observed, float), np.asarray(expected, float)
    return float(((observed - expected) ** 2 / expected).sum())


def test_numbers_of_agents_follow_the_configured_frequencies():
    steps, odds = 3000, {2: 0.3, 3: 0.4, 4: 0.3}
    counts = Counter(batch[0].num_agents for batch in order(steps_per_pass=steps, frequencies=odds)._pass(0))
    expected = [steps * share for share in odds.values()]
    assert chi_square([counts[number] for number in odds], expected) < 13.8  # p = 0.001 with two degrees of freedom
    assert chi_square([counts[number] for number in odds], [steps / 3] * 3) > 13.8
    only = {batch[0].num_agents for batch in order(frequencies={2: 1.0, 4: 3.0})._pass(0)}
    assert only == {2, 4}


def test_a_number_of_agents_that_no_frame_has_names_the_key():
    with pytest.raises(ConfigError, match=r"data\.sampling\.agents: no frame has 5 agents"):
        order(frequencies={2: 0.5, 5: 0.5})


def test_each_scenario_comes_equally_often_whatever_its_length():
    scenario_of = np.repeat([0, 1, 2], [30, 8, 2])
    drawn = {
        name: [r.frame for batch in order({2: np.arange(40)}, scenario_of=given)._pass(0) for r in batch]
        for name, given in (("scenarios", scenario_of), ("frames", None))
    }
    counts = {name: np.bincount(scenario_of[frames]) for name, frames in drawn.items()}
    assert counts["scenarios"].tolist() == [60, 60, 60]
    assert chi_square(counts["frames"], 180 * np.array([30, 8, 2]) / 40) < 13.8
    of_first = [frame for frame in drawn["scenarios"] if scenario_of[frame] == 0]
    assert set(Counter(of_first).values()) == {2}  # 30 frames in 60 turns


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, "has no micro_batch.*model.weights=<checkpoint>"),  # as earlier revisions saved it
        ({"seed": 1}, "seed=1, now it is 0"),
        ({"steps_per_epoch": 9}, "data.steps_per_epoch=9, now it is 5000"),
    ],
)
def test_a_state_that_cannot_be_continued_says_why(change, message):
    state = {"epoch": 0, "step": 3, "seed": 0, "steps_per_epoch": 5000} | change
    with pytest.raises(ConfigError, match=message):
        OPV2VDataModule(DataConfig()).load_state_dict(state)
