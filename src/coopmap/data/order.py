"""The global order of training micro-batches: pure functions of a seed and a place in the order.

A micro-batch is what one rank sees between two gradients. An optimizer step takes a *group* of them: ranks times
``trainer.accumulate_grad_batches``. How a group is shared out over ranks and time does not enter here, so that two
ranks see what one rank with twice the accumulation sees. Only a curriculum looks at time: at the optimizer step.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Protocol

import numpy as np
from jaxtyping import Bool, Int

from coopmap.config import ConfigError
from coopmap.config.sampling import CurriculumConfig
from coopmap.data.pairs import PairLimits, PairTable
from coopmap.data.requests import SampleRequest

STAGES = 100
"""A curriculum moves on in so many equal stages."""


@dataclass(frozen=True, eq=False)
class Pool:
    """What a step draws from.

    Attributes:
        limits: which agents of a frame may be put together.
        frames_with: for each number of agents, the frames in which so many may be.
    """

    limits: PairLimits
    frames_with: Mapping[int, Int[np.ndarray, " n"]]

    def nearest(self, number: int) -> int:
        """The number of agents, or the next smaller one that some frame has."""
        return max(count for count, frames in self.frames_with.items() if count <= number and len(frames))


def build_pool(pairs: PairTable, limits: PairLimits, numbers: Sequence[int]) -> Pool:
    """Frames in which each of some numbers of agents may be put together."""
    sizes = pairs.group_sizes(limits)
    return Pool(limits, {number: np.flatnonzero(sizes >= number) for number in numbers})


class Curriculum:
    """The pool of each micro-batch: limits that go from one pair of values to another, linearly.

    Args:
        config: of the limits.
        least: limits that hold all along.
        steps: optimizer steps in which the limits get from first to last.
        step_of: optimizer step of the run that takes a micro-batch.
        pool_of: what limits leave to draw from.

    Raises:
        ConfigError: if the strictest limits leave nothing.
    """

    def __init__(
        self,
        config: CurriculumConfig,
        least: PairLimits,
        steps: int,
        step_of: Callable[[int], int],
        pool_of: Callable[[PairLimits], Pool],
    ) -> None:
        self.distance = config.distance_m or [least.max_distance_m] * 2
        self.covisibility = config.covisibility or [least.min_covisibility] * 2
        self.steps, self._step_of = steps, step_of
        self._pool_of = lru_cache(maxsize=2)(lambda stage: pool_of(self._limits(stage / STAGES)))
        strictest = PairLimits(min(self.distance), max(self.covisibility))
        frames_with = pool_of(strictest).frames_with
        if not len(frames_with[min(frames_with)]):
            raise ConfigError(
                f"data.sampling.curriculum: no frame has {min(frames_with)} agents within "
                f"{strictest.max_distance_m:g} m and with a co-visibility of {strictest.min_covisibility:g}: expected "
                "distance_m and covisibility that leave some pairs at any time"
            )

    def __call__(self, micro_batch: int) -> Pool:
        """What a micro-batch draws from."""
        return self._pool_of(max(0, min(STAGES, STAGES * self._step_of(micro_batch) // self.steps)))

    def _limits(self, progress: float) -> PairLimits:
        distance, share = (
            first if first == last else first + progress * (last - first)
            for first, last in (self.distance, self.covisibility)
        )
        return PairLimits(distance, share)


class GlobalOrder:
    """All micro-batches of a run, in groups of one optimizer step each.

    Each group draws its number of agents and takes ``max_views_per_gpu // agents`` frames per micro-batch from a
    shuffled order of the frames that have that many. In each pass of ``steps_per_pass`` groups, no frame comes twice
    for the same number of agents until all have come once.

    Args:
        pool: everything that may be drawn.
        max_views_per_gpu: bound on the views of a micro-batch.
        steps_per_pass: groups after which all is shuffled anew: an epoch.
        seed: same seed, same order.
        group: micro-batches of an optimizer step.
        frequencies: relative frequency of each number of agents; ``None`` = equal.
        scenario_of: scenario of each frame, to draw each of them equally often; ``None`` = each frame equally often.
        curriculum: narrows the pool down, for each group by its first micro-batch; ``None`` = never.

    Raises:
        ValueError: if no frame has enough agents.
    """

    def __init__(
        self,
        pool: Pool,
        max_views_per_gpu: int,
        steps_per_pass: int,
        seed: int,
        group: int = 1,
        frequencies: Mapping[int, float] | None = None,
        scenario_of: Int[np.ndarray, " f"] | None = None,
        curriculum: Curriculum | None = None,
    ) -> None:
        present = {count: frames for count, frames in sorted(pool.frames_with.items()) if len(frames)}
        if not present:
            raise ValueError("no frame has enough agents within communication range to draw a batch from")
        missing = sorted(set(frequencies or {}) - set(present))
        if missing:
            raise ConfigError(
                f"data.sampling.agents: no frame has {missing[0]} agents that may be put together (see "
                "data.communication_range_m and data.sampling.min_covisibility): leave that number out"
            )
        self.pool = replace(pool, frames_with=present)
        self._num_frames = 1 + max(int(frames.max()) for frames in present.values())
        self.max_views_per_gpu, self.steps_per_pass = max_views_per_gpu, steps_per_pass
        self.seed, self.group = seed, group
        self.frequencies, self.scenario_of, self.curriculum = frequencies, scenario_of, curriculum

    def micro_batches(self, start: int = 0) -> Iterator[list[SampleRequest]]:
        """All micro-batches from one on, without end."""
        number, offset = divmod(start, self.steps_per_pass * self.group)
        this_pass = itertools.islice(self._pass(number), offset, None)
        return itertools.chain(this_pass, itertools.chain.from_iterable(map(self._pass, itertools.count(number + 1))))

    def _pass(self, number: int) -> Iterator[list[SampleRequest]]:
        rng = np.random.default_rng([self.seed, number])
        counts = self._draw_counts(rng)
        seeds = rng.integers(2**62, size=self.steps_per_pass).tolist()
        deals = {count: self._deal(frames, number, count) for count, frames in self.pool.frames_with.items()}
        for step, (count, seed) in enumerate(zip(counts, seeds, strict=True)):
            pool, allowed = self.pool, None
            if self.curriculum is not None:
                pool = self.curriculum((number * self.steps_per_pass + step) * self.group)
                count = pool.nearest(count)
                allowed = np.zeros(self._num_frames, bool)
                allowed[pool.frames_with[count]] = True
            size = max(1, self.max_views_per_gpu // count)
            frames = deals[count].take(size * self.group, allowed)
            requests = [SampleRequest(frame, count, (seed + i) % 2**62, pool.limits) for i, frame in enumerate(frames)]
            for first in range(0, len(requests), size):
                yield requests[first : first + size]

    def _draw_counts(self, rng: np.random.Generator) -> list[int]:
        """Number of agents of each step of a pass."""
        if self.frequencies is None:
            return rng.choice(np.array(list(self.pool.frames_with)), size=self.steps_per_pass).tolist()
        counts, weights = np.array(list(self.frequencies)), np.array(list(self.frequencies.values()))
        return rng.choice(counts, size=self.steps_per_pass, p=weights / weights.sum()).tolist()

    def _deal(self, frames: Int[np.ndarray, " n"], number: int, count: int) -> _Deal:
        seed = [self.seed, number, count]
        if self.scenario_of is None:
            return _Shuffled(frames, seed)
        return _Balanced(frames, self.scenario_of[frames], seed)


class _Deal(Protocol):
    def take(self, number: int, allowed: Bool[np.ndarray, " f"] | None = None) -> list[int]:
        """The next frames among those that are allowed (at least one; ``None`` = all)."""


class _Shuffled:
    """Deals frames from one shuffled pass after another, the remainder of a pass before the next."""

    def __init__(self, frames: Int[np.ndarray, " n"], seed: Sequence[int]) -> None:
        self._frames, self._rng = frames, np.random.default_rng(seed)
        self._queue = frames[:0]

    def take(self, number: int, allowed: Bool[np.ndarray, " f"] | None = None) -> list[int]:
        """See :class:`_Deal`."""
        while len(at := self._allowed(allowed)) < number:
            queue, fresh = self._queue[at], self._rng.permutation(self._frames)
            # what is still queued comes last in the next pass, so that a batch across the border repeats nothing
            repeated = np.isin(fresh, queue)
            self._queue = np.concatenate([queue, fresh[~repeated], fresh[repeated]])
        taken = self._queue[at[:number]]
        self._queue = np.delete(self._queue, at[:number])
        return taken.tolist()

    def _allowed(self, allowed: Bool[np.ndarray, " f"] | None) -> Int[np.ndarray, " q"]:
        """Places in the queue."""
        return np.arange(len(self._queue)) if allowed is None else np.flatnonzero(allowed[self._queue])


class _Balanced:
    """Deals one frame of each scenario, in random order, before the next of any."""

    def __init__(self, frames: Int[np.ndarray, " n"], scenarios: Int[np.ndarray, " n"], seed: Sequence[int]) -> None:
        self._frames = {scenario: frames[scenarios == scenario] for scenario in np.unique(scenarios).tolist()}
        self._deals = {scenario: _Shuffled(some, [*seed, scenario]) for scenario, some in self._frames.items()}
        self._turns = _Shuffled(np.array(list(self._frames)), [*seed, len(frames)])

    def take(self, number: int, allowed: Bool[np.ndarray, " f"] | None = None) -> list[int]:
        """See :class:`_Deal`."""
        open_to = None
        if allowed is not None:
            open_to = np.zeros(1 + max(self._frames), bool)
            open_to[[scenario for scenario, frames in self._frames.items() if allowed[frames].any()]] = True
        turns = self._turns.take(number, open_to)
        return [frame for scenario in turns for frame in self._deals[scenario].take(1, allowed)]


def curriculum_steps(config: CurriculumConfig, total_steps: int | None) -> int:
    """Optimizer steps that a curriculum takes.

    Raises:
        ConfigError: if it is a share of a run without an end.
    """
    if config.over_steps is not None:
        return config.over_steps
    if total_steps is None:
        raise ConfigError(
            f"data.sampling.curriculum.over={config.over:g}: is a share of a run without an end: expected "
            "data.sampling.curriculum.over_steps, trainer.max_epochs or trainer.max_steps"
        )
    return max(1, math.ceil(config.over * total_steps))
