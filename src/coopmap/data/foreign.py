"""Agents of other scenarios among those of a training sample: they teach what having nothing in common looks like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from coopmap.data.opv2v import SplitIndex
from coopmap.data.pose_table import PoseTable
from coopmap.data.views import Record, View

ABOVE_M = 1000.0
"""How far above the others a foreign agent is put: no view reaches as far up or down, so that no point is shared."""
MAX_DRAWS = 10


class ForeignAgent(NamedTuple):
    """An agent of another scenario: frame of the index, and its row there."""

    frame: int
    row: int


def draw_foreign(
    index: SplitIndex,
    poses: PoseTable,
    frames: Int[np.ndarray, " f"],
    frame: int,
    probability: float,
    rng: np.random.Generator,
) -> ForeignAgent | None:
    """With ``probability``, any agent with a pose in any of ``frames`` that is of another scenario than ``frame``.

    Its random numbers are its own: what else is drawn for a sample does not depend on it. ``None`` also where ten draws
    found no other scenario: there is hardly any.
    """
    own = rng.spawn(1)[0]
    if own.random() >= probability:
        return None
    for other in own.choice(frames, size=MAX_DRAWS):
        if index.frame(int(other)).scenario != index.frame(frame).scenario:
            cords = poses.cords[poses.start[other] : poses.start[other + 1]]
            readable = np.flatnonzero(np.isfinite(cords).all(axis=1))
            return ForeignAgent(int(other), int(readable[own.integers(len(readable))]))
    return None


def put_apart(record: Record, views: Sequence[View], from_view: View) -> tuple[Record, list[View]]:
    """One agent where nothing of it is seen from another's view, and the other way around; so is its pose prior."""
    shift = np.eye(4)
    shift[:3, 3] = from_view.pose[:3, 3] - views[0].pose[:3, 3] + np.array([0.0, -ABOVE_M, 0.0])
    metadata = record.metadata
    metadata = replace(metadata, pose=shift @ metadata.pose, pose_prior=shift @ metadata.pose_prior)
    return replace(record, metadata=metadata), [replace(view, pose=shift @ view.pose) for view in views]
