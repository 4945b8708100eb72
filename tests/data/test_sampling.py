from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coopmap.data.sampling import EvalBatchSampler, TrainBatchSampler

FRAMES_WITH = {2: np.arange(40), 3: np.arange(25), 4: np.arange(10)}


def sampler(**changes) -> TrainBatchSampler:
    arguments = {"max_views_per_gpu": 12, "steps_per_epoch": 30, "seed": 0} | changes
    return TrainBatchSampler(FRAMES_WITH, **arguments)


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
    assert list(rest) == whole[17:]
    rest.set_epoch(4)
    assert list(rest) == list(sampler(epoch=4))


def test_all_numbers_of_agents_are_drawn():
    counts = Counter(batch[0].num_agents for batch in sampler(steps_per_epoch=300))
    assert all(70 < counts[count] < 130 for count in (2, 3, 4))


def test_nothing_to_draw_from_is_an_error():
    with pytest.raises(ValueError, match="no frame has enough agents"):
        TrainBatchSampler({2: np.array([], int)}, 8, 10, 0)


@pytest.mark.parametrize("world_size", [1, 3, 10])
def test_evaluation_covers_each_frame_once_on_any_number_of_ranks(world_size):
    num_agents = np.array([2, 3, 2, 4, 4, 2, 3, 2, 2])
    frames = np.arange(9) * 10
    batches = [
        batch
        for rank in range(world_size)
        for batch in EvalBatchSampler(num_agents, frames, max_views_per_gpu=4, rank=rank, world_size=world_size)
    ]
    requests = [request for batch in batches for request in batch]
    assert sorted(request.frame for request in requests) == frames.tolist()
    assert all(request.num_agents == num_agents[request.frame // 10] for request in requests)
    assert all(len({request.num_agents for request in batch}) == 1 for batch in batches)
    assert all(sum(request.num_agents for request in batch) <= 4 for batch in batches)
