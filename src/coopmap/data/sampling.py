"""Which frames make up which batch: pure functions of seed, epoch and step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int


@dataclass(frozen=True)
class SampleRequest:
    """What a dataset is asked for.

    Attributes:
        frame: frame number in the split's index.
        num_agents: views of the sample.
        seed: decides agents, order and augmentation; ``None`` asks for the fixed evaluation sample.
    """

    frame: int
    num_agents: int
    seed: int | None = None


class TrainBatchSampler:
    """Endless epochs of exactly ``steps_per_epoch`` batches per rank.

    Each step draws the number of agents, the same for the whole batch and on every rank, and takes
    ``max_views_per_gpu // agents`` frames per rank from a shuffled order of the frames that have that many. Within an
    epoch no frame comes twice for the same number of agents until all have come once.

    Args:
        frames_with: for each number of agents, the frames in which that many hear one another.
        max_views_per_gpu: bound on views per rank and step.
        steps_per_epoch: batches per rank and epoch.
        seed: same seed, same batches.
        rank, world_size: this process among all.
        epoch, step: where the first pass starts (a resumed run); later passes start at step 0 of the next epoch.
    """

    def __init__(
        self,
        frames_with: dict[int, Int[np.ndarray, " n"]],
        max_views_per_gpu: int,
        steps_per_epoch: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        epoch: int = 0,
        step: int = 0,
    ) -> None:
        self.frames_with = {count: frames for count, frames in sorted(frames_with.items()) if len(frames)}
        if not self.frames_with:
            raise ValueError("no frame has enough agents within communication range to draw a batch from")
        self.max_views_per_gpu = max_views_per_gpu
        self.steps_per_epoch = steps_per_epoch
        self.seed, self.rank, self.world_size = seed, rank, world_size
        self.epoch, self.step = epoch, step

    @property
    def sampler(self) -> TrainBatchSampler:
        """Lightning looks for ``set_epoch`` on ``batch_sampler.sampler``."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next pass."""
        if epoch != self.epoch:
            self.epoch, self.step = epoch, 0

    def __len__(self) -> int:
        return self.steps_per_epoch

    def __iter__(self) -> Iterator[list[SampleRequest]]:
        first = self.step
        self.step = 0  # only the first pass of a resumed run starts midway
        for step, batch in enumerate(self._global_batches(self.epoch)):
            if step >= first:
                share = len(batch) // self.world_size
                yield batch[self.rank * share : (self.rank + 1) * share]

    def _global_batches(self, epoch: int) -> Iterator[list[SampleRequest]]:
        """The batches of all ranks, concatenated, for one epoch."""
        rng = np.random.default_rng([self.seed, epoch])
        counts = rng.choice(np.array(list(self.frames_with)), size=self.steps_per_epoch)
        seeds = rng.integers(2**62, size=self.steps_per_epoch)
        order = {count: _Shuffled(frames, [self.seed, epoch, count]) for count, frames in self.frames_with.items()}
        for count, step_seed in zip(counts.tolist(), seeds.tolist(), strict=True):
            size = max(1, self.max_views_per_gpu // count) * self.world_size
            frames = order[count].take(size)
            yield [SampleRequest(frame, count, (step_seed + i) % 2**62) for i, frame in enumerate(frames)]


class _Shuffled:
    """Deals frames from one shuffled pass after another, the remainder of a pass before the next."""

    def __init__(self, frames: Int[np.ndarray, " n"], seed: Sequence[int]) -> None:
        self._frames, self._rng = frames, np.random.default_rng(seed)
        self._queue = frames[:0]

    def take(self, number: int) -> list[int]:
        while len(self._queue) < number:
            fresh = self._rng.permutation(self._frames)
            # what is still queued comes last in the next pass, so that a batch across the border repeats nothing
            repeated = np.isin(fresh, self._queue)
            self._queue = np.concatenate([self._queue, fresh[~repeated], fresh[repeated]])
        taken, self._queue = self._queue[:number], self._queue[number:]
        return taken.tolist()


class EvalBatchSampler:
    """All frames once, each with as many agents as it has (at most ``max_agents``), in a fixed order.

    Frames with equally many agents share batches. Ranks take every ``world_size``-th batch: none is repeated to even
    out the ranks, so figures do not depend on the number of GPUs.
    """

    def __init__(
        self,
        num_agents: Int[np.ndarray, " n"],
        frames: Int[np.ndarray, " n"],
        max_views_per_gpu: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        batches = []
        for count in np.unique(num_agents).tolist():
            size = max(1, max_views_per_gpu // count)
            group = frames[num_agents == count].tolist()
            batches += [
                [SampleRequest(frame, count) for frame in group[start : start + size]]
                for start in range(0, len(group), size)
            ]
        self._batches = batches[rank::world_size]

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[list[SampleRequest]]:
        return iter(self._batches)
