"""The largest ``data.max_views_per_gpu`` that fits."""

from __future__ import annotations

from collections.abc import Iterable

from coopmap.config import Config
from coopmap.planning.memory import Counter

MOST = 4096


def most_views(counter: Counter, config: Config, numbers: Iterable[int], limit: float) -> int:
    """The largest number of views of which every batch fits, whatever its number of agents; 0 if none does.

    Found between counts: by a straight line through the nearest two, which activations follow once they outweigh what
    the objective takes, and every other time by halves.

    Args:
        counter: of steps.
        config: of the run.
        numbers: of agents that training draws.
        limit: bytes.
    """
    numbers = list(numbers)
    least = config.data.max_agents  # validation has these, whatever training draws
    sizes = [least, *(views for views in range(least + 1, MOST + 1) if any(views % n == 0 for n in numbers))]
    need: dict[int, int] = {}
    fits, over, place = -1, len(sizes), 0
    while True:
        need[place] = _need(counter, config, numbers, sizes[place])
        fits, over = (place, over) if need[place] <= limit else (fits, place)
        if over - fits == 1:
            break
        place = _between(need, fits, over, limit)
    if fits < 0:
        return 0
    return sizes[over] - 1 if over < len(sizes) else MOST


def _between(need: dict[int, int], fits: int, over: int, limit: float) -> int:
    """Where to count next, strictly between a size that fits and one that does not."""
    if over not in need:  # none is known: on along the line, not too far
        before = max((place for place in need if place < fits), default=None)
        slope = (need[fits] - need[before]) / (fits - before) if before is not None else 0.0
        guess = fits + (limit - need[fits]) / slope if slope > 0 else fits + 1
        return max(fits + 1, min(int(guess), 4 * fits + 4, over - 1))
    if len(need) % 2:
        return (fits + over) // 2
    share = (limit - need[fits]) / (need[over] - need[fits])
    return max(fits + 1, min(fits + int(share * (over - fits)), over - 1))


def _need(counter: Counter, config: Config, numbers: list[int], views: int) -> int:
    """Bytes with the number of agents that fills ``views`` best, the largest of those."""
    fullest = max(numbers, key=lambda number: (views // number * number, number))
    return counter.memory(config, fullest, views).total
