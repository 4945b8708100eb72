"""Files that a car lacks for a part of its drive, told from the names in its folders: nothing is opened."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from jaxtyping import Int

from coopmap.data.opv2v import DepthSource, FrameRef, SplitIndex
from coopmap.data.opv2v.images import names_of_image
from coopmap.geometry.rig import OPV2V_CAMERA_OF_SLOT


def frames_without_files(
    index: SplitIndex, source: DepthSource, agent: str, frames: Int[np.ndarray, " n"]
) -> tuple[Int[np.ndarray, " m"], Path | None]:
    """Which frames of a car lack an image or a depth file, and the first of these files.

    All are looked at only if its first, middle or last frame lacks one: a camera that dies does so for the rest.

    Args:
        index: the split.
        source: of its depth.
        agent: which car.
        frames: of the index, in order, all of one scenario; at least one.
    """
    folders: dict[Path, set[str] | None] = {}

    def absent(frame: int) -> Path | None:
        return _first_absent(index, source, index.frame(frame), agent, folders)

    if all(absent(int(frame)) is None for frame in frames[[0, len(frames) // 2, -1]]):
        return frames[:0], None
    found = [absent(int(frame)) for frame in frames]
    return frames[[path is not None for path in found]], next(path for path in found if path is not None)


def _first_absent(
    index: SplitIndex, source: DepthSource, ref: FrameRef, agent: str, folders: dict[Path, set[str] | None]
) -> Path | None:
    images = [index.image_path(ref, agent, camera) for camera in OPV2V_CAMERA_OF_SLOT]
    wanted = [(path, names_of_image(path)) for path in images]
    wanted += [(path, [path.name]) for path in source.paths(ref, agent)]
    return next((path for path, names in wanted if _lacks(path.parent, names, folders)), None)


def _lacks(folder: Path, names: list[str], known: dict[Path, set[str] | None]) -> bool:
    """Whether a folder has none of some names; one that cannot be listed is left to those who read from it."""
    if folder not in known:
        try:
            known[folder] = set(os.listdir(folder))
        except FileNotFoundError:
            known[folder] = set()
        except OSError:
            known[folder] = None
    present = known[folder]
    return present is not None and present.isdisjoint(names)
