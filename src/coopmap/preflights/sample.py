"""A look at a few frames of the data, as ``coopmap check`` has it for all."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from coopmap.checks.frames import Examiner, Job
from coopmap.checks.judge import judge
from coopmap.checks.judgment import Judgment
from coopmap.checks.problems import FrameKey, Problem
from coopmap.checks.runner import FILE_KINDS
from coopmap.checks.view_masks import judge_views
from coopmap.config.data import DataConfig
from coopmap.data import OPV2VDataModule
from coopmap.data.opv2v.depth import DenseDepth
from coopmap.preflights.findings import Finding

FRAMES = {"train": 3, "val": 1}
"""Frames of each split that are read whole."""
SINGLE_FILES = (*FILE_KINDS, "unreadable_metadata", "incomplete_metadata", "lidar_mismatch", "duplicate_frame")
"""Kinds that a data set may have some of: ``data.bad_frame_budget`` is for them."""

STATISTICAL = ("pitch_sign", "roll_sign", "yaw_sign", "cameras_swapped", "depth_swapped", "depth_kind", "depth_unit")
"""Kinds that are told by what fits better: a few agents may look so."""


def sample_finding(data: DataConfig, datamodule: OPV2VDataModule) -> Finding:
    """What a few frames of training and validation have wrong."""
    if data.cache_root is not None:
        return Finding("sample of the data", "views come from data.cache_root, checked when they were written")
    judged, looked_at = _judged(data, datamodule)
    what, problems = "sample of the data", judged.problems
    if not problems:
        return Finding(what, f"{looked_at} agents in frames, nothing wrong")
    kinds = Counter(problem.kind for problem in problems)
    fatal = fatal_problems(problems, judged.examined)
    shown = (fatal or problems)[0]
    found = ", ".join(f"{kind} ({number})" for kind, number in kinds.items())
    remedy = f"{shown.kind}, {shown.path}: {shown.detail}. coopmap check data.root={data.root} shows all"
    return Finding(what, f"{looked_at} agents in frames: {found}", "WRONG" if fatal else "note", remedy)


def fatal_problems(problems: Sequence[Problem], examined: Mapping[str, Collection[FrameKey]]) -> list[Problem]:
    """Problems that end a run: of more than single files, and not told by statistics of a minority of agents alone.

    Args:
        problems: found.
        examined: for each kind that is told by statistics, the agents in frames that could have had it.
    """
    told: dict[str, set[FrameKey]] = defaultdict(set)
    for problem in problems:
        told[problem.kind].update(problem.keys)
    minor = {kind for kind in STATISTICAL if 2 * len(told[kind]) <= len(examined.get(kind, ()))}
    return [
        problem
        for problem in problems
        if problem.kind not in SINGLE_FILES and (problem.kind not in minor or not problem.keys)  # of a whole split
    ]


def _judged(data: DataConfig, datamodule: OPV2VDataModule) -> tuple[Judgment, int]:
    """Everything wrong in a few frames, and the number of agents in them."""
    datasets = {split: datamodule.dataset(split) for split in FRAMES}
    indices = {split: dataset.index for split, dataset in datasets.items()}
    sources = {split: dataset.depth_source for split, dataset in datasets.items()}
    examiner = Examiner(data, indices, sources)  # type: ignore[arg-type]
    problems, facts = [], []
    for split, dataset in datasets.items():
        chosen = np.unique(np.linspace(0, len(dataset.frames) - 1, FRAMES[split]).round().astype(int))
        job = Job(split, tuple((int(dataset.frames[place]), True) for place in chosen))
        for frame in examiner(job)[1]:
            problems += frame.problems
            facts += frame.agents
    kinds = [source.kind for source in sources.values() if isinstance(source, DenseDepth)]
    known = {key for problem in problems for key in problem.keys}
    judged = judge(data, facts, kinds[0] if kinds else "", known)
    problems += judged.problems
    has_unit = not any(problem.kind in ("depth_unit", "depth_swapped") for problem in problems)
    judged.problems = [*problems, *judge_views(data, facts, has_unit)]
    return judged, len(facts)
