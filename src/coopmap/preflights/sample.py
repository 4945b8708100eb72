"""A look at a few frames of the data, as ``coopmap check`` has it for all."""

from __future__ import annotations

from collections import Counter

import numpy as np

from coopmap.checks.frames import Examiner, Job
from coopmap.checks.judge import judge, judge_views
from coopmap.checks.problems import Problem
from coopmap.checks.runner import FILE_KINDS
from coopmap.config.data import DataConfig
from coopmap.data import OPV2VDataModule
from coopmap.data.opv2v.depth import DenseDepth
from coopmap.preflights.findings import Finding

FRAMES = {"train": 3, "val": 1}
"""Frames of each split that are read whole."""
SINGLE_FILES = (*FILE_KINDS, "unreadable_metadata", "incomplete_metadata", "lidar_mismatch", "duplicate_frame")
"""Kinds that a data set may have some of: ``data.bad_frame_budget`` is for them."""


def sample_finding(data: DataConfig, datamodule: OPV2VDataModule) -> Finding:
    """What a few frames of training and validation have wrong."""
    if data.cache_root is not None:
        return Finding("sample of the data", "views come from data.cache_root, checked when they were written")
    problems, looked_at = _problems(data, datamodule)
    what = "sample of the data"
    if not problems:
        return Finding(what, f"{looked_at} agents in frames, nothing wrong")
    kinds = Counter(problem.kind for problem in problems)
    fatal = [problem for problem in problems if problem.kind not in SINGLE_FILES]
    shown = (fatal or problems)[0]
    found = ", ".join(f"{kind} ({number})" for kind, number in kinds.items())
    remedy = f"{shown.kind}, {shown.path}: {shown.detail}. coopmap check data.root={data.root} shows all"
    return Finding(what, f"{looked_at} agents in frames: {found}", "WRONG" if fatal else "note", remedy)


def _problems(data: DataConfig, datamodule: OPV2VDataModule) -> tuple[list[Problem], int]:
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
    problems += judge(data, facts, kinds[0] if kinds else "", known).problems
    has_unit = not any(problem.kind in ("depth_unit", "depth_swapped") for problem in problems)
    return [*problems, *judge_views(data, facts, has_unit)], len(facts)
