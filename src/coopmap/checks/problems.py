"""What can be wrong with a data set, where, and how much of it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

KINDS = {
    "missing_split": "a split that training needs is not there",
    "empty_split": "a split without frames",
    "too_few_agents": "no frame has enough agents within communication range, or of those that training asks for",
    "scenario_in_two_splits": "a scenario, or its content, stands in two splits",
    "label_not_unique": "two names that mean the same agent, frame or scenario",
    "missing_agent": "an agent lacks a frame between its first and last that others have",
    "time_gap": "frames missing in a scenario's sequence",
    "unreadable_metadata": "a YAML file that is damaged, cut off or a link to nothing",
    "incomplete_metadata": "a YAML file without a key that is needed, or with a wrong value",
    "pose_not_finite": "NaN or infinity in a pose",
    "extrinsic": "extrinsic contradicts cords and lidar_pose",
    "pitch_sign": "pitch has the wrong sign",
    "roll_sign": "roll has the wrong sign",
    "yaw_sign": "yaw has the wrong sign",
    "cameras_swapped": "images belong to other cameras than their names say",
    "depth_swapped": "depth files belong to other cameras than their names say",
    "missing_image": "a camera image is not there",
    "unreadable_image": "a camera image is damaged or cut off",
    "image_size": "an image is not of the size that its intrinsics are for",
    "missing_lidar": "a sweep is not there",
    "unreadable_lidar": "a sweep is damaged or cut off",
    "missing_depth": "a depth file is not there",
    "unreadable_depth": "a depth file is damaged or cut off",
    "depth_size": "depth is not of the size that the intrinsics are for",
    "depth_kind": "data.depth.kind takes z-depth for range, or range for z-depth",
    "depth_unit": "depth is not in meters",
    "depth_encoding": "depth files hold something else than depth",
    "lidar_meaning": "sweeps hold something else than meters, x forward, y right, z up",
    "lidar_mismatch": "the sweep does not fit depth: of another frame, or another pose",
    "duplicate_frame": "the same images and sweep twice",
    "shifted_time": "an agent's clock is off: others saw it there at another frame",
    "agents_disagree": "an agent is not where others see it",
    "pose_jump": "an agent moves farther than its speed allows",
    "crop": "images are cropped to the panorama's aspect before they are warped",
    "coverage": "panoramas cover something else than this rig predicts",
    "masks": "the mean of a mask is below 0.05, or below what its sweeps give: next to nothing to learn from",
    "rays": "target rays are no unit vectors, or far from those of the panorama",
    "views": "views are not what the configuration asks for",
}
"""Kinds of problems, with what they mean."""


@dataclass(frozen=True, order=True)
class FrameKey:
    """An agent in a frame.

    Attributes:
        split: which.
        folder: of the split, below the root.
        scenario, agent, frame: which.
    """

    split: str
    folder: str
    scenario: str
    agent: str
    frame: str

    @property
    def entry(self) -> str:
        """As in the file that ``data.exclude`` takes."""
        return f"{Path(self.folder).name}/{self.scenario}/{self.agent}/{self.frame}"

    def above(self, levels: int) -> tuple[str, ...]:
        """Folder that holds it: 1 = the agent's, 2 = the scenario's, 3 = the split's, 4 = the root."""
        return (self.folder, self.scenario, self.agent)[: 4 - levels]


@dataclass(frozen=True)
class Problem:
    """Something wrong.

    Attributes:
        kind: one of :data:`KINDS`.
        path: file, folder or key of the configuration.
        detail: what was found and what was expected.
        keys: agents in frames that it concerns, to be left out; none if that would not help. A frame that is missing is
            listed as known to be missing.
        root: folder that ``path`` lies below, for problems that whole folders share; ``None`` = never put together.
        original: what a duplicate repeats.
    """

    kind: str
    path: str
    detail: str
    keys: tuple[FrameKey, ...] = ()
    root: str | None = None
    original: FrameKey | None = None


def roll_up(problems: Sequence[Problem], examined: Mapping[str, Collection[FrameKey]]) -> list[Problem]:
    """Put problems together that everything below a folder shares.

    Args:
        problems: of single agents in frames where they can be put together.
        examined: for each kind, the agents in frames that could have had it.

    Returns:
        One problem for each topmost folder in which all that was examined has the kind, the others as they are.
    """
    groups: dict[tuple[str, str], list[Problem]] = defaultdict(list)
    kept = []
    for problem in problems:
        if problem.root is None or not problem.keys or problem.kind not in examined:
            kept.append(problem)
        else:
            groups[problem.kind, problem.root].append(problem)
    for (kind, root), group in groups.items():
        kept += _rolled(group, Path(root), examined[kind])
    return kept


def _rolled(group: Sequence[Problem], root: Path, examined: Collection[FrameKey]) -> Iterable[Problem]:
    everything = set(examined) | {key for problem in group for key in problem.keys}
    left = list(group)
    for levels in (4, 3, 2, 1):
        below = Counter(key.above(levels) for key in everything)
        members: dict[tuple[str, ...], list[Problem]] = defaultdict(list)
        for problem in left:
            members[problem.keys[0].above(levels)].append(problem)
        left = []
        for folder, problems in members.items():
            keys = {key for problem in problems for key in problem.keys}
            if len(keys) < below[folder] or len(keys) == 1:
                left += problems
                continue
            first = problems[0]
            detail = f"{first.detail} (and so in all {len(keys)} agent frames below; the first: {first.path})"
            keys_to_leave = tuple(sorted(keys)) if levels < 3 else ()  # a whole split is to be repaired, not left out
            yield replace(first, path=str(root.joinpath(*folder)), detail=detail, keys=keys_to_leave)
    yield from left
