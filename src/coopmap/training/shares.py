"""Which rank keeps the optimizer's state of which parameter."""

from __future__ import annotations

from collections.abc import Sequence


def shares(sizes: Sequence[int], num_ranks: int) -> list[list[int]]:
    """Share items out so that sums of sizes are about equal: the largest first, each to the rank that has least so far.

    Args:
        sizes: of all items.
        num_ranks: number of ranks.

    Returns:
        For each rank the numbers of its items, ascending.
    """
    found: list[list[int]] = [[] for _ in range(num_ranks)]
    totals = [0] * num_ranks
    for item in sorted(range(len(sizes)), key=lambda number: -sizes[number]):
        rank = totals.index(min(totals))
        found[rank].append(item)
        totals[rank] += sizes[item]
    return [sorted(items) for items in found]
