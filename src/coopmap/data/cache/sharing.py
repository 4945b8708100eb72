"""Work that several processes, on one machine or several with the same storage, share by claims."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from coopmap.synthetic.workers import map_unordered, num_cores

T = TypeVar("T")
R = TypeVar("R")

_WAIT_S = 1.0


def until_all_is_done(work: Callable[[T], R | None], items: Sequence[T], num_workers: int | None = None) -> Iterator[R]:
    """Results in the order in which they become ready.

    Args:
        work: gives ``None`` while another process has the item at hand; it is asked again. Can be sent to processes.
        items: to work on.
        num_workers: processes; ``None`` = one per core.
    """
    pending, attempt = list(items), _Attempt(work)
    while pending:
        workers = min(num_workers or num_cores(), len(pending))
        results: Iterable[tuple[T, R | None]]
        results = map_unordered(attempt, pending, workers) if workers > 1 else map(attempt, pending)
        busy = []
        for item, result in results:
            if result is None:
                busy.append(item)
            else:
                yield result
        if len(busy) == len(pending):
            time.sleep(_WAIT_S)
        pending = busy


@dataclass(frozen=True)
class _Attempt(Generic[T, R]):
    """What work gives, with what it was given."""

    work: Callable[[T], R | None]

    def __call__(self, item: T) -> tuple[T, R | None]:
        return item, self.work(item)
