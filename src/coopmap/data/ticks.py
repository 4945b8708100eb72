"""The ticks next to a tick, as further views of its agents."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int

from coopmap.data.from_files import ReadyViews
from coopmap.data.opv2v import SplitIndex
from coopmap.data.vehicles import vehicles_around
from coopmap.data.views import View


class TickTable:
    """For each row of an index (an agent in a frame), the frames next to it that have the same agent.

    Args:
        index: the split.
        number: how many of them.
    """

    def __init__(self, index: SplitIndex, number: int) -> None:
        self.index, self.number = index, number
        self._frame = np.repeat(np.arange(len(index), dtype=np.int32), index.num_agents)
        scenario = index.frame_scenario[self._frame]
        self._track = np.lexsort((self._frame, index.frame_agents, scenario)).astype(np.int32)
        self._place = np.empty_like(self._track)
        self._place[self._track] = np.arange(len(self._track), dtype=np.int32)
        agent, scenario = index.frame_agents[self._track], scenario[self._track]
        begins = np.flatnonzero((np.diff(agent, prepend=-1) != 0) | (np.diff(scenario, prepend=-1) != 0))
        self._begins = np.append(begins, len(self._track)).astype(np.int32)

    @property
    def has_enough(self) -> Bool[np.ndarray, " n"]:
        """Rows whose agent is in so many other frames of the scenario."""
        length = np.diff(self._begins)
        return np.repeat(length > self.number, length)[self._place]

    def nearest(self, row: int) -> list[int]:
        """The nearest other frames, by their order in the scenario; of two equally near ones the earlier first."""
        place = int(self._place[row])
        at = int(np.searchsorted(self._begins, place, side="right"))
        begin, end = self._begins[at - 1 : at + 1].tolist()
        around = (place + sign * step for step in range(1, self.number + 1) for sign in (-1, 1))
        near = [other for other in around if begin <= other < end]
        if len(near) < self.number:  # at an end of the track
            near += [other for other in range(begin, end) if other != place and other not in near]
            near.sort(key=lambda other: (abs(other - place), other))
        return self._frame[self._track[near[: self.number]]].tolist()


def add_neighbors(
    views: list[list[View]],
    ticks: TickTable,
    rows: Int[np.ndarray, " n"],
    agents: Sequence[str],
    ready: ReadyViews,
    rng: np.random.Generator | None,
) -> None:
    """Append to the views of each agent one for each of its neighboring ticks, the nearest first.

    Args:
        views: of the tick itself, by agent; one each.
        ticks: neighbors of rows.
        rows: of the agents, in the whole index.
        agents: their ids.
        ready: makes views.
        rng: as for the views of the tick itself, after them.

    Raises:
        FrameError: if a file is missing or damaged.
    """
    wanted: dict[int, list[tuple[int, int]]] = {}
    for number, row in enumerate(rows):
        views[number] += views[number] * ticks.number  # places to be filled
        for place, frame in enumerate(ticks.nearest(int(row)), start=1):
            wanted.setdefault(frame, []).append((number, place))
    for frame, places in wanted.items():
        records = ready.read(frame, ticks.index.frame(frame), [agents[number] for number, _ in places])
        vehicles = vehicles_around({agent: record.metadata for agent, record in records.items()})
        for number, place in places:
            (views[number][place],) = ready.views(agents[number], records[agents[number]], vehicles, rng)
