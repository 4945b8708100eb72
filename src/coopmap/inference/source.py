"""Where the views of a data set's frame come from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from coopmap.data.opv2v import FrameRef, SplitIndex
from coopmap.types import Target


@dataclass(frozen=True, eq=False)
class FrameSource:
    """A frame of a data set.

    Attributes:
        index: that holds the frame.
        ref: the frame, with the agents of the views, the reference first.
        target: true poses of the views, and which agent each belongs to; without batch dimension.
        origin: of the poses, in the scenario's world (see :class:`~coopmap.types.SampleMeta`).
    """

    index: SplitIndex
    ref: FrameRef
    target: Target
    origin: tuple[float, float, float]

    @property
    def split_folder(self) -> Path:
        """Folder of the scenarios."""
        return self.index.root / self.index.folder
