"""Which samples make up which batch on which rank."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from coopmap.data.order import GlobalOrder
from coopmap.data.requests import SampleRequest

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Position:
    """Where a number of ranks stands in the global order.

    Attributes:
        epoch, step: batch of each rank.
        micro_batch: what the first rank takes for it; the others take those that follow.
    """

    epoch: int = 0
    step: int = 0
    micro_batch: int = 0

    def micro_batch_at(self, epoch: int, step: int, batches_per_epoch: int, world_size: int) -> int:
        """What the first rank takes for another batch, if nothing changes in between."""
        return self.micro_batch + ((epoch - self.epoch) * batches_per_epoch + step - self.step) * world_size

    def batch_of(self, micro_batch: int, batches_per_epoch: int, world_size: int) -> tuple[int, int]:
        """Epoch and batch that take a micro-batch, if nothing changes in between."""
        batches = (micro_batch - self.micro_batch) // world_size
        return divmod(self.epoch * batches_per_epoch + self.step + batches, batches_per_epoch)


def continued(state: Mapping[str, int], world_size: int, accumulate: int) -> tuple[Position, int]:
    """Where a saved run goes on with another number of ranks or another accumulation, and the groups of its order.

    The order goes on where it stood, as long as the number of ranks divides its groups. Otherwise ranks would differ in
    their number of agents, and the order becomes that of a run which had these ranks from the start.

    Args:
        state: ``epoch``, ``step``, ``micro_batch``, ``group``, ``world_size``, ``accumulate`` and
            ``steps_per_epoch`` of the saved run.
        world_size: number of ranks from now on.
        accumulate: micro-batches of each rank per optimizer step from now on.
    """
    epoch, step, micro_batch = state["epoch"], state["step"], state["micro_batch"]
    if accumulate != state["accumulate"]:
        step, unfinished = divmod(step, state["accumulate"])  # gradients of an unfinished optimizer step are lost
        step, micro_batch = step * accumulate, micro_batch - unfinished * state["world_size"]
    if state["group"] % world_size == 0:
        return Position(epoch, step, micro_batch - micro_batch % world_size), state["group"]
    group = world_size * accumulate
    log.warning(
        "the run was begun with %d micro-batches per optimizer step, which %d ranks cannot share: from here on its "
        "batches are drawn anew, in groups of %d",
        state["group"],
        world_size,
        group,
    )
    return Position(epoch, step, (epoch * state["steps_per_epoch"] * accumulate + step) * world_size), group


class TrainBatchSampler:
    """Endless epochs of exactly ``batches_per_epoch`` batches per rank: of ``world_size`` that follow one another in
    the global order, rank ``r`` takes the ``r``-th.

    Args:
        order: of all micro-batches.
        batches_per_epoch: of each rank.
        rank, world_size: this process among all; ``world_size`` divides the groups of the order.
        position: where the first pass starts (a resumed run); later passes start at step 0 of the next epoch.
    """

    def __init__(
        self,
        order: GlobalOrder,
        batches_per_epoch: int,
        rank: int = 0,
        world_size: int = 1,
        position: Position | None = None,
    ) -> None:
        assert order.group % world_size == 0, "ranks would differ in their number of agents"
        self.order, self.batches_per_epoch = order, batches_per_epoch
        self.rank, self.world_size = rank, world_size
        self.position = position or Position()
        self.epoch, self.step = self.position.epoch, self.position.step

    @property
    def sampler(self) -> TrainBatchSampler:
        """Lightning looks for ``set_epoch`` on ``batch_sampler.sampler``."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next pass."""
        if epoch != self.epoch:
            self.epoch, self.step = epoch, 0

    def __len__(self) -> int:
        return self.batches_per_epoch

    def __iter__(self) -> Iterator[list[SampleRequest]]:
        # Only the first pass of a resumed run starts midway: the first that is drawn from, not just asked for, since a
        # loader with processes of its own asks twice.
        step, self.step = self.step, 0
        start = self.position.micro_batch_at(self.epoch, step, self.batches_per_epoch, self.world_size)
        mine = itertools.islice(self.order.micro_batches(start), self.rank, None, self.world_size)
        yield from itertools.islice(mine, self.batches_per_epoch - step)


class EvalBatchSampler:
    """All frames once, each with as many agents as it has (at most ``max_agents``), in a fixed order.

    Frames with equally many agents share batches. Ranks take every ``world_size``-th batch, and equally many: what they
    do together in a validation stays in step. One that runs short repeats the first batch, which is not to be counted
    again, so that figures do not depend on the number of GPUs.

    Attributes:
        num_own: batches of this rank before that.
    """

    def __init__(
        self,
        num_agents: Int[np.ndarray, " n"],
        frames: Int[np.ndarray, " n"],
        max_views_per_gpu: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self._groups = []
        for count in np.unique(num_agents).tolist():
            size = max(1, max_views_per_gpu // count)
            self._groups.append((count, size, frames[num_agents == count]))
        self._ends = np.cumsum([-(-len(group) // size) for _, size, group in self._groups])
        total = int(self._ends[-1]) if self._groups else 0
        self._numbers = list(range(rank, total, world_size))
        self.num_own = len(self._numbers)
        self._numbers += [0] * (-(-total // world_size) - self.num_own)

    def __len__(self) -> int:
        return len(self._numbers)

    def __iter__(self) -> Iterator[list[SampleRequest]]:
        for number in self._numbers:
            at = int(np.searchsorted(self._ends, number, side="right"))
            count, size, group = self._groups[at]
            start = size * (number - (int(self._ends[at - 1]) if at else 0))
            yield [SampleRequest(frame, count) for frame in group[start : start + size].tolist()]
