"""The largest ``data.max_views_per_gpu`` that fits."""

from __future__ import annotations

from collections.abc import Iterable

from coopmap.config import Config
from coopmap.planning.memory import Counter

MOST = 4096


def most_views(counter: Counter, config: Config, numbers: Iterable[int], limit: float) -> int:
    """The largest number of views of which every batch fits, whatever its number of agents; 0 if none does.

    Activations grow by the same for each further sample: two counts tell by how much, and the answer is counted.

    Args:
        counter: of steps.
        config: of the run.
        numbers: agents of a sample.
        limit: bytes.
    """
    numbers = list(numbers)
    largest = max(numbers)
    one, two = (counter.step(config, largest, batch) for batch in (1, 2))
    slopes = [getattr(two, name) - getattr(one, name) for name in ("activation_bytes", "joint_bytes")]

    def estimate(views: int) -> int:
        further = max(views // number * number for number in numbers) / largest - 1
        activations, joint = (
            round(value + further * slope)
            for value, slope in zip((one.activation_bytes, one.joint_bytes), slopes, strict=True)
        )
        return counter.memory_with(config, activations, joint).total

    if estimate(largest) > limit:
        return 0
    views = largest
    while views < MOST and estimate(views + 1) <= limit:
        views += 1
    while views > largest and _need(counter, config, numbers, views) > limit:
        views -= 1
    return views


def _need(counter: Counter, config: Config, numbers: list[int], views: int) -> int:
    """Bytes with the number of agents that fills ``views`` best, the largest of those."""
    fullest = max(numbers, key=lambda number: (views // number * number, number))
    return counter.memory(config, fullest, views).total
