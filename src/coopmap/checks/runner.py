"""Runs a check: index, read in parallel, judge."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from coopmap.checks.batches import Batches, plan_batches, shortage
from coopmap.checks.facts import AgentFacts, FrameFacts
from coopmap.checks.frames import Examiner, Job
from coopmap.checks.judge import judge
from coopmap.checks.known import mark_known
from coopmap.checks.layout import build_indices, find_splits, keys_of, shared_scenarios, unclear_labels
from coopmap.checks.problems import FrameKey, Problem, roll_up
from coopmap.checks.sequences import Sequences, missing_agents, passing_agents, time_gaps
from coopmap.checks.view_masks import judge_views
from coopmap.config import Config, ConfigError
from coopmap.config.check import CheckConfig
from coopmap.config.data import DataConfig
from coopmap.data.depth_probe import suspect_depth
from coopmap.data.opv2v import (
    DatasetLayoutError,
    DepthSource,
    SplitIndex,
    read_exclusions,
    select_depth_source,
)
from coopmap.data.opv2v.depth import DenseDepth
from coopmap.data.splits import render_missing_town
from coopmap.synthetic.workers import map_unordered, num_cores

FRAMES_PER_JOB = 8
FRAMES_PER_WORKER = 32
"""Fewer are read sooner than another process has started."""

FILE_KINDS = (
    "missing_image", "unreadable_image", "image_size", "missing_lidar", "unreadable_lidar", "missing_depth",
    "unreadable_depth", "depth_size",
)  # fmt: skip
DEPTH_KINDS = ("depth_kind", "depth_unit", "depth_swapped", "missing_depth", "unreadable_depth", "depth_size")
METADATA_KINDS = (
    "unreadable_metadata", "incomplete_metadata", "pose_not_finite", "extrinsic", "pitch_sign", "roll_sign",
    "yaw_sign", "cameras_swapped", "shifted_time", "agents_disagree",
)  # fmt: skip


@dataclass(eq=False)
class Checked:
    """What a check found.

    Attributes:
        config: that was checked.
        problems: in the order of their kinds.
        indices: of each split.
        facts: of each split's agents in frames.
        covisibility: of each split's pairs of agents.
        batches: of each split.
        sources: one line per split about its depth.
        notes: what axes, depth, cameras and time were judged by, and what could not be.
        whole_frames: number of frames of each split that were read whole.
        whole: agents in those frames.
    """

    config: Config
    problems: list[Problem]
    indices: dict[str, SplitIndex]
    facts: dict[str, list[AgentFacts]] = field(default_factory=dict)
    covisibility: dict[str, list[float]] = field(default_factory=dict)
    batches: dict[str, Batches] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    whole_frames: dict[str, int] = field(default_factory=dict)
    whole: set[FrameKey] = field(default_factory=set)

    @property
    def ok(self) -> bool:
        """Nothing is wrong."""
        return not self.problems


def run_check(asked: CheckConfig, config: Config) -> Checked:
    """Check a data set.

    Raises:
        ConfigError: no root is given, or ``data.exclude`` is no list.
        DatasetLayoutError: there is no such root.
    """
    data = config.data
    if not data.root:
        raise ConfigError("data.root is not set: give the folder that holds train, validate and test")
    render_missing_town(data)
    excluded = read_exclusions(data.exclude)
    root = Path(data.root).expanduser()
    splits, problems = find_splits(root, asked.split, data.splits)
    whole, indices, empty = build_indices(root, splits, data.include_rsu, excluded, data.splits)
    problems += empty
    for index in whole.values():
        problems += missing_agents(index, excluded)
    problems += time_gaps(whole.values(), excluded)
    for index in indices.values():
        problems += unclear_labels(index)
    result = Checked(config, problems, indices)
    for split, index in whole.items():
        if passing := passing_agents(index):
            result.notes[f"agents over time, {split}"] = passing
    sources = _depth_sources(data, result)
    _read(asked, Examiner(data, indices, sources), result)
    _judge(data, sources, result)
    problems += _strange_depth(sources, result)
    for split, index in indices.items():
        result.batches[split] = plan_batches(config, index, sources[split] if asked.max_frames is None else None)
        if detail := shortage(data, split, result.batches[split]):
            problems.append(Problem("too_few_agents", str(root / index.folder), detail))
    problems.sort(key=lambda problem: (problem.kind, problem.path))
    return result


def _depth_sources(data: DataConfig, result: Checked) -> dict[str, DepthSource | None]:
    """Where depth of each split comes from; a problem where there is none."""
    sources: dict[str, DepthSource | None] = {}
    depth = data.depth
    for split, index in result.indices.items():
        try:
            source = select_depth_source(
                index, data.depth_root, depth.source, depth.kind, depth.max_m, merge_agents=depth.merge_agents
            )
        except DatasetLayoutError as error:
            kind = "missing_lidar" if error.path.suffix == ".pcd" else "missing_depth"
            result.problems.append(Problem(kind, str(error.path), f"{error.reason}. {error.remedy}"))
            sources[split], result.sources[split] = None, "none"
        else:
            sources[split], result.sources[split] = source, source.describe()
    return sources


def _strange_depth(sources: dict[str, DepthSource | None], result: Checked) -> list[Problem]:
    """What a few frames say of depth that frame by frame nothing was said of; of sweeps nothing else does."""
    is_known = any(problem.kind in DEPTH_KINDS for problem in result.problems)
    problems = []
    for split, source in sources.items():
        is_dense = isinstance(source, DenseDepth)
        if source is None or (is_dense and is_known):
            continue
        suspicion = suspect_depth(result.indices[split], source)
        if suspicion is not None and (suspicion.is_certain or not is_dense):
            folder, detail = str(suspicion.path.parent), f"{suspicion.reason}. {suspicion.remedy}"
            problems.append(Problem("depth_encoding" if is_dense else "lidar_meaning", folder, detail))
    return problems


def _read(asked: CheckConfig, examiner: Examiner, result: Checked) -> None:
    """Examine all frames, in parallel."""
    jobs = []
    for split, index in result.indices.items():
        whole = _spread(len(index), asked.max_frames)
        result.whole_frames[split] = len(whole)
        numbers = [(number, number in whole) for number in range(len(index))]
        jobs += [
            Job(split, tuple(numbers[start : start + FRAMES_PER_JOB]))
            for start in range(0, len(numbers), FRAMES_PER_JOB)
        ]
    frames = sum(len(job.frames) for job in jobs)
    workers = asked.workers or min(num_cores(), -(-frames // FRAMES_PER_WORKER))
    outcomes = map_unordered(examiner, jobs, workers) if workers > 1 else map(examiner, jobs)
    for split, found in _shown(outcomes, frames):
        for frame in found:
            result.problems += frame.problems
            result.whole |= {item.key for item in frame.agents if frame.is_whole}
            result.facts.setdefault(split, []).extend(frame.agents)
            result.covisibility.setdefault(split, []).extend(frame.covisibility)
    for facts in result.facts.values():
        facts.sort(key=lambda item: (item.key.scenario, int(item.key.frame), int(item.key.agent)))


def _judge(data: DataConfig, sources: dict[str, DepthSource | None], result: Checked) -> None:
    """Verdicts that need many frames; what whole folders share is said once."""
    facts = [item for split in result.indices for item in result.facts.get(split, [])]
    known = {key for problem in result.problems for key in problem.keys}
    dense = [source for source in sources.values() if isinstance(source, DenseDepth)]
    judged = judge(data, facts, dense[0].kind if dense else "", known)
    for kind in METADATA_KINDS:
        judged.examined[kind] |= {item.key for item in facts}
    for kind in FILE_KINDS:
        judged.examined[kind] |= {item.key for item in facts if item.rig is not None and item.key in result.whole}
    found = [*result.problems, *judged.problems]
    sequences = Sequences(facts)
    in_time, shared = sequences.problems(), list(shared_scenarios(result.indices))
    found += _without_copies(in_time, shared, result.indices)
    has_unit = not any(problem.kind in ("depth_unit", "depth_swapped") for problem in found)
    found += judge_views(data, facts, has_unit)
    result.problems[:] = roll_up(mark_known(_distinct(found)), judged.examined)
    result.notes |= judged.notes | sequences.notes()


def _without_copies(
    in_time: Sequence[Problem], shared: Sequence[Problem], indices: dict[str, SplitIndex]
) -> Iterator[Problem]:
    """Say of a scenario that stands in two splits just that, whatever it is called there."""
    yield from shared
    copied = {key for problem in shared for key in problem.keys}
    by_scenario: dict[tuple[str, str], set[FrameKey]] = {}
    for problem in in_time:
        if problem.original is None:
            continue
        key = problem.keys[0]
        if problem.original.split != key.split and key not in copied:
            by_scenario.setdefault((key.split, key.scenario), set()).add(key)
    for (split, scenario), keys in by_scenario.items():
        everything = set(keys_of(indices[split], scenario))
        if len(keys) > len(everything) / 2:
            path = indices[split].root / indices[split].folder / scenario
            detail = "holds the images of a scenario in another split"
            yield Problem("scenario_in_two_splits", str(path), detail, tuple(sorted(everything)))
            copied |= everything
    yield from (problem for problem in in_time if copied.isdisjoint(problem.keys))


def _distinct(problems: Iterable[Problem]) -> list[Problem]:
    """One problem per kind and path."""
    return list({(problem.kind, problem.path): problem for problem in problems}.values())


def _spread(number: int, limit: int | None) -> set[int]:
    """Frames to read whole, evenly spread."""
    if limit is None or limit >= number:
        return set(range(number))
    return set(np.linspace(0, number - 1, limit).round().astype(int).tolist())


def _shown(outcomes: Iterable[tuple[str, list[FrameFacts]]], total: int) -> Iterator[tuple[str, list[FrameFacts]]]:
    """Results as they come, with a bar on a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("Reading frames", total=total)
        for outcome in outcomes:
            progress.advance(task, len(outcome[1]))
            yield outcome
