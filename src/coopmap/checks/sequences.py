"""Time: frames that are missing or come twice, clocks that are off, poses that jump."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from coopmap.checks.facts import AgentFacts
from coopmap.checks.problems import FrameKey, Problem
from coopmap.data.opv2v import SplitIndex
from coopmap.data.opv2v.index import entries_of

TICK_S = 0.05
"""Frame names count simulation ticks, in OPV2V as in the town."""
MAX_ACCELERATION = 10.0
JUMP_M = 0.5
"""A car may move its speed times the time, this acceleration, and this much more."""
MOVING_MPS = 0.5
SEEN_WITHIN_M = 0.35
"""Others see an agent where it is, up to this."""


Frames = list[tuple[str, tuple[str, ...]]]
"""Names of a scenario's frames, in order, with their agents."""


def missing_agents(index: SplitIndex, excluded: Collection[str]) -> Iterator[Problem]:
    """Frames between an agent's first and last which others of its scenario have, unless they are left out."""
    listed = _listed(index, excluded)
    for scenario, frames in _by_scenario(index).items():
        for agent, (first, last) in _spans(frames).items():
            for frame, agents in frames[first:last]:
                others = [other for other in agents if (scenario, other, frame) not in listed]
                if others and agent not in agents and (scenario, agent, frame) not in listed:
                    key = FrameKey(index.split, index.folder, scenario, agent, frame)
                    path = index.root / index.folder / scenario / agent / f"{frame}.yaml"
                    yield Problem("missing_agent", str(path), f"agents {', '.join(others)} have this frame", (key,))


def passing_agents(index: SplitIndex) -> str:
    """Says which agents are not there from the first to the last frame of their scenario; empty if none."""
    number, passing = 0, []
    for scenario, frames in _by_scenario(index).items():
        for agent, (first, last) in _spans(frames).items():
            number += 1
            if first > 0 or last < len(frames) - 1:
                passing.append(f"{agent} of {scenario} is there from {frames[first][0]} to {frames[last][0]}")
    return f"{len(passing)} of {number} agents enter late or leave early, as {passing[0]}" if passing else ""


def time_gaps(indices: Iterable[SplitIndex], excluded: Collection[str]) -> Iterator[Problem]:
    """Scenarios with longer (or shorter) steps between frames than is usual, unless a frame between is listed."""
    steps: dict[tuple[SplitIndex, str], list[tuple[FrameKey, str, int]]] = {}
    entries: dict[SplitIndex, set[tuple[str, ...]]] = {}
    for index in indices:
        entries[index] = _listed(index, excluded)
        for scenario, frames in _by_scenario(index).items():
            keys = [FrameKey(index.split, index.folder, scenario, agents[0], frame) for frame, agents in frames]
            steps[index, scenario] = [(a, b.frame, int(b.frame) - int(a.frame)) for a, b in pairwise(keys)]
    counts = Counter(step for found in steps.values() for *_, step in found)
    if not counts:
        return
    usual = counts.most_common(1)[0][0]
    for (index, scenario), found in steps.items():
        own = Counter(step for *_, step in found).most_common(1)
        expected = own[0][0] if own and own[0][1] > len(found) / 2 and len(found) > 2 else usual
        listed = {int(frame) for name, _, frame in entries[index] if name == scenario}
        gaps = [
            (before, frame, step)
            for before, frame, step in found
            if step not in (0, expected)  # two names of one frame are reported as such
            and not any(int(before.frame) < number < int(frame) for number in listed)
        ]
        if gaps:
            _, frame, step = gaps[0]
            more = f" (and {len(gaps) - 1} more like it)" if len(gaps) > 1 else ""
            detail = f"frame {frame} comes {step} ticks after the last, not {expected}{more}"
            missing = tuple(
                replace(before, frame=f"{int(before.frame) + expected:0{len(frame)}d}")
                for before, frame, step in gaps
                if step > expected
            )
            yield Problem("time_gap", str(index.root / index.folder / scenario), detail, missing)


def _by_scenario(index: SplitIndex) -> dict[str, Frames]:
    found: dict[str, Frames] = defaultdict(list)
    for number in range(len(index)):
        ref = index.frame(number)
        found[ref.scenario].append((ref.frame, ref.agents))
    return found


def _spans(frames: Frames) -> dict[str, tuple[int, int]]:
    """First and last place of each agent among the frames of its scenario."""
    spans: dict[str, tuple[int, int]] = {}
    for place, (_, agents) in enumerate(frames):
        spans |= {agent: (spans.get(agent, (place,))[0], place) for agent in agents}
    return spans


def _listed(index: SplitIndex, excluded: Collection[str]) -> set[tuple[str, ...]]:
    """Scenario, agent and frame of the entries of a split, whether there is such a frame or not."""
    return {tuple(entry.split("/")) for entry in entries_of(excluded, index.split, index.folder)}


class Sequences:
    """The agents of a data set in the order of time.

    Args:
        facts: of all agents in frames.
    """

    def __init__(self, facts: Sequence[AgentFacts]) -> None:
        self.tracks: dict[tuple[str, str, str], list[AgentFacts]] = defaultdict(list)
        for item in facts:
            if item.pose is not None:
                self.tracks[item.key.split, item.key.scenario, item.key.agent].append(item)
        for track in self.tracks.values():
            track.sort(key=lambda item: int(item.key.frame))
        self.facts = [item for track in self.tracks.values() for item in track]

    def problems(self) -> list[Problem]:
        """What is wrong in time; a frame is named by the most telling of its defects alone."""
        found = list(self.duplicates())
        explained = {key for problem in found for key in problem.keys}
        disagreements = list(self.disagreements(explained))
        shifted = [problem for problem in disagreements if problem.kind == "shifted_time"]
        explained |= {key for problem in shifted for key in problem.keys}
        jumps = list(self.jumps(explained))
        explained |= {key for problem in jumps for key in problem.keys}
        rest = [
            problem
            for problem in disagreements
            if problem.kind != "shifted_time" and explained.isdisjoint(problem.keys)
        ]
        return [*found, *shifted, *jumps, *rest]

    def notes(self) -> dict[str, str]:
        """What could not be judged."""
        silent = sum(bool(np.isnan(item.speed)) for item in self.facts)
        text = f"{silent} of {len(self.facts)} files lack ego_speed: steps between two of them were not judged"
        return {"steps against speed": text} if silent else {}

    def duplicates(self) -> Iterator[Problem]:
        """The same images and sweep twice, though the car moved, or at two places of the data set."""
        groups: dict[str, list[AgentFacts]] = defaultdict(list)
        for item in self.facts:
            if item.content:
                groups[item.content].append(item)
        for group in groups.values():
            first = group[0]
            for item in group[1:]:
                same_track = (item.key.scenario, item.key.agent) == (first.key.scenario, first.key.agent)
                if same_track and item.key.split == first.key.split and _stands(first, item):
                    continue  # nothing moved
                detail = f"the same images and sweep as {first.path}"
                yield Problem("duplicate_frame", item.path, detail, (item.key,), original=first.key)

    def jumps(self, explained: Collection[FrameKey]) -> Iterator[Problem]:
        """Agents that move farther from one frame to the next than their speed allows."""
        for track in self.tracks.values():
            steps = [_jump(a, b) for a, b in pairwise(track)]
            place = 0
            while place < len(steps):
                if steps[place]:
                    comes_back = place + 1 < len(steps) and bool(steps[place + 1])
                    stranger = 0 if place == 0 and len(steps) > 1 and not comes_back else place + 1
                    around = {item.key for item in track[max(0, stranger - 1) : stranger + 2]}
                    if around.isdisjoint(explained):
                        yield Problem("pose_jump", track[stranger].path, steps[place], (track[stranger].key,))
                    place += comes_back
                place += 1

    def disagreements(self, explained: Collection[FrameKey]) -> Iterator[Problem]:
        """Agents that are not where others see them; where others saw them at another frame, their clock is off."""
        at_frame: dict[tuple[str, str, str], list[AgentFacts]] = defaultdict(list)
        for item in self.facts:
            if item.key not in explained:
                at_frame[item.key.split, item.key.scenario, item.key.frame].append(item)
        accused: Counter[tuple[str, str, str]] = Counter()
        sightings = []
        for agents in at_frame.values():
            for observer in agents:
                for item in agents:
                    seen_at = observer.others.get(item.key.agent)
                    if seen_at is not None and _distance(seen_at, item.ground) > SEEN_WITHIN_M:
                        sightings.append((observer, item, seen_at))
                        accused[_track(observer)] += 1
                        accused[_track(item)] += 1
        named = set()
        for observer, item, seen_at in sightings:
            guilty = max((observer, item), key=lambda one: (accused[_track(one)], _track(one)))
            if guilty.key in named:
                continue
            other = item if guilty is observer else observer
            named.add(guilty.key)
            yield self._named(guilty, other, seen_at, seen_of_other=guilty is observer)

    def _named(self, guilty: AgentFacts, other: AgentFacts, seen_at: tuple[float, ...], seen_of_other: bool) -> Problem:
        track = self.tracks[_track(other if seen_of_other else guilty)]
        times = [item.key.frame for item in track if _distance(seen_at, item.ground) < SEEN_WITHIN_M]
        root = Path(guilty.path).parents[3]
        if times and (len(times) == 1 or guilty.key.frame not in times):
            relation = f"shows {other.key.agent} as of" if seen_of_other else f"is where {other.key.agent} sees it at"
            detail = f"the file of frame {guilty.key.frame} {relation} frame {times[0]}"
            return Problem("shifted_time", guilty.path, detail, (guilty.key,), str(root))
        gap = _distance(seen_at, (other if seen_of_other else guilty).ground)
        detail = f"{other.key.agent} and it disagree by {gap:.1f} m about where one of them is"
        return Problem("agents_disagree", guilty.path, detail, (guilty.key,), str(root))


def _track(item: AgentFacts) -> tuple[str, str, str]:
    return item.key.split, item.key.scenario, item.key.agent


def _step(a: AgentFacts, b: AgentFacts) -> tuple[float, float, float]:
    """Seconds, meters and the larger of the two speeds; NaN if neither is known."""
    assert a.pose is not None
    assert b.pose is not None
    seconds = (int(b.key.frame) - int(a.key.frame)) * TICK_S
    moved = float(np.linalg.norm(b.pose[:3, 3] - a.pose[:3, 3]))
    return seconds, moved, float(np.fmax(abs(a.speed), abs(b.speed)))


def _stands(a: AgentFacts, b: AgentFacts) -> bool:
    """Whether an agent stood still, by its speed, or by its poses where its files do not tell the speed."""
    seconds, moved, speed = _step(a, b)
    return moved <= MOVING_MPS * seconds if np.isnan(speed) else speed < MOVING_MPS


def _jump(a: AgentFacts, b: AgentFacts) -> str:
    """What is wrong with a step, or nothing, also where no speed is known."""
    seconds, moved, speed = _step(a, b)
    allowed = speed * seconds + MAX_ACCELERATION / 2 * seconds**2 + JUMP_M
    if np.isnan(speed) or moved <= allowed:
        return ""
    return f"{moved:.1f} m between frames {a.key.frame} and {b.key.frame}, {seconds:.2f} s at {speed:.1f} m/s"


def _distance(a: tuple[float, ...] | None, b: tuple[float, ...] | None) -> float:
    """Horizontal distance, CARLA axes."""
    if a is None or b is None:
        return 0.0
    return float(np.hypot(a[0] - b[0], a[1] - b[1]))
