"""Splits, scenarios and names: what can be told from folders alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from coopmap.checks.problems import FrameKey, Problem
from coopmap.data.opv2v import SPLIT_FOLDERS, DatasetLayoutError, SplitIndex, find_split_folder
from coopmap.data.opv2v.wrong_root import other_root

NEEDED = ("train", "val")


def find_splits(root: Path, asked: str, folders: Mapping[str, str]) -> tuple[list[str], list[Problem]]:
    """Splits to check, and what is wrong with their folders.

    Args:
        root: of the data set.
        asked: a split, or ``all``: then a folder that ``folders`` gives two splits is checked as the first of them.
        folders: of splits that are called otherwise (``data.splits``).

    Raises:
        DatasetLayoutError: there is no such root.
    """
    if not root.is_dir():
        raise DatasetLayoutError(root, "the dataset root does not exist", "Set data.root to the folder with the splits")
    wanted = list(SPLIT_FOLDERS) if asked == "all" else [asked]
    found = {split: find_split_folder(root, split, folders) for split in wanted}
    present = [split for split, folder in found.items() if folder is not None]
    needed = NEEDED if asked == "all" else (asked,)
    other = None if present else other_root(root)
    detail = "no such folder" if other is None else f"no such folder. {other}"
    problems = [
        Problem("missing_split", str(root / (SPLIT_FOLDERS | dict(folders))[split]), detail)
        for split in needed
        if split not in present
    ]
    firsts = {found[split]: split for split in reversed(present)}
    return [split for split in present if firsts[found[split]] == split], problems


def build_indices(
    root: Path, splits: list[str], include_rsu: bool, excluded: Collection[str], folders: Mapping[str, str]
) -> tuple[dict[str, SplitIndex], dict[str, SplitIndex], list[Problem]]:
    """Indices with and without what is excluded, and splits that are empty."""
    whole: dict[str, SplitIndex] = {}
    used: dict[str, SplitIndex] = {}
    problems = []
    for split in splits:
        try:
            whole[split] = SplitIndex.build(root, split, include_rsu, folders=folders)
            used[split] = whole[split]
            if excluded:
                used[split] = SplitIndex.build(root, split, include_rsu, excluded, folders)
        except DatasetLayoutError as error:
            problems.append(Problem("empty_split", str(error.path), error.reason))
    return whole, used, problems


def shared_scenarios(indices: Mapping[str, SplitIndex]) -> Iterator[Problem]:
    """Scenarios that stand in two splits under one name."""
    home: dict[str, str] = {}
    for split, index in indices.items():
        for name in _scenarios(index):
            if name in home:
                path = index.root / index.folder / name
                detail = f"stands in {indices[home[name]].folder} too"
                yield Problem("scenario_in_two_splits", str(path), detail, tuple(keys_of(index, name)))
            home.setdefault(name, split)


def keys_of(index: SplitIndex, scenario: str) -> Iterator[FrameKey]:
    """All agents in frames of a scenario."""
    for number in range(len(index)):
        ref = index.frame(number)
        if ref.scenario == scenario:
            yield from (FrameKey(index.split, index.folder, scenario, agent, ref.frame) for agent in ref.agents)


def unclear_labels(index: SplitIndex) -> Iterator[Problem]:
    """Names that differ in letters' case or leading zeros alone: one label for two things."""
    folder = index.root / index.folder
    yield from _clashes([(name.casefold(), folder / name) for name in _scenarios(index)])
    agents: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for number in range(len(index)):
        ref = index.frame(number)
        for agent in ref.agents:
            agents[ref.scenario][agent].add(ref.frame)
    for scenario, frames_of in agents.items():
        yield from _clashes([(str(int(agent)), folder / scenario / agent) for agent in frames_of])
        for agent, frames in frames_of.items():
            yield from _clashes([
                (str(int(frame)), folder / scenario / agent / f"{frame}.yaml") for frame in sorted(frames)
            ])  # fmt: skip


def _clashes(labels: list[tuple[str, Path]]) -> Iterator[Problem]:
    first: dict[str, Path] = {}
    for label, path in labels:
        if label in first:
            yield Problem("label_not_unique", str(path), f"means the same as {first[label].name}")
        first.setdefault(label, path)


def _scenarios(index: SplitIndex) -> list[str]:
    present = set(index.frame_scenario.tolist())
    return [name.decode() for number, name in enumerate(index.scenarios) if number in present]
