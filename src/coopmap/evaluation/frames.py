"""Fixed lists of frames: read, found among the splits, loaded."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int
from torch.utils.data import Dataset

from coopmap.config import ConfigError
from coopmap.data.dataset import FrameDataset
from coopmap.data.opv2v.index import SPLIT_FOLDERS, find_split_folder
from coopmap.data.requests import SampleRequest
from coopmap.data.samples import SkippedSample
from coopmap.types import Sample, SampleMeta


@dataclass(frozen=True)
class PublishedFigures:
    """Results that others report for the same frames."""

    name: str
    trans_m: float
    rot_deg: float


@dataclass(frozen=True)
class FrameList:
    """Frames with the agents to use of each, the reference agent first.

    Attributes:
        file: where it was read from.
        sha256: of that file, which shows whether two evaluations used the same frames.
        name: of the list.
        frames: in the file's order.
        published: results to compare with.
        published_conditions: how they were measured.
    """

    file: Path
    sha256: str
    name: str
    frames: tuple[SampleMeta, ...]
    published: tuple[PublishedFigures, ...] = ()
    published_conditions: str = ""


def read_frame_list(file: Path | str) -> FrameList:
    """Read a list of frames: ``[{scenario, frame, agents}, ...]``, or a mapping with these under ``frames``.

    Raises:
        ConfigError: there is no such file, or an entry is malformed.
    """
    file = Path(file).expanduser()
    try:
        content = file.read_bytes()
        parsed = json.loads(content)
    except FileNotFoundError:
        raise ConfigError(f"frames={file}: there is no such file") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"frames={file}: cannot be read as JSON ({error})") from None
    outer = parsed if isinstance(parsed, dict) else {"frames": parsed}
    entries = outer.get("frames")
    if not isinstance(entries, list) or not entries:
        raise ConfigError(f"frames={file}: expected a list of {{scenario, frame, agents}}, or one under 'frames'")
    frames = tuple(_entry(file, number, entry) for number, entry in enumerate(entries))
    if repeated := [frame for i, frame in enumerate(frames) if frame in frames[:i]]:
        raise ConfigError(f"frames={file}: {_text(repeated[0])} is listed twice")
    return FrameList(
        file,
        hashlib.sha256(content).hexdigest(),
        str(outer.get("name", file.stem)),
        frames,
        tuple(_published(file, entry) for entry in outer.get("published", [])),
        str(outer.get("published_conditions", "")),
    )


def _entry(file: Path, number: int, entry: Any) -> SampleMeta:
    keys = {"scenario": str, "frame": str, "agents": list}
    if not isinstance(entry, dict) or not all(isinstance(entry.get(key), kind) for key, kind in keys.items()):
        raise ConfigError(
            f"frames={file}: entry {number} is {json.dumps(entry)[:100]}, expected "
            '{"scenario": "...", "frame": "000069", "agents": ["641", "650"]}'
        )
    agents = tuple(str(agent) for agent in entry["agents"])
    if not agents or len(set(agents)) < len(agents):
        raise ConfigError(f"frames={file}: entry {number}: expected at least one agent, each only once")
    return SampleMeta(entry["scenario"], entry["frame"], agents)


def _published(file: Path, entry: Any) -> PublishedFigures:
    try:
        return PublishedFigures(str(entry["name"]), float(entry["trans_m"]), float(entry["rot_deg"]))
    except (KeyError, TypeError, ValueError):
        raise ConfigError(f"frames={file}: 'published' entries need name, trans_m and rot_deg, not {entry}") from None


def splits_of(frames: FrameList, root: Path | str, folders: Mapping[str, str] | None = None) -> dict[str, str]:
    """The split that holds each of the list's scenarios, by scenario.

    Args:
        frames: the list.
        root: of the dataset.
        folders: folder of a split below the root, where it is none of the usual.

    Raises:
        ConfigError: a scenario is in none.
    """
    root = Path(root).expanduser()
    found = {}
    present = {split: find_split_folder(root, split, folders) for split in SPLIT_FOLDERS}
    expected = {**SPLIT_FOLDERS, **(folders or {})}
    for frame in frames.frames:
        holding = [split for split, folder in present.items() if folder and (root / folder / frame.scenario).is_dir()]
        if not holding:
            names = ", ".join(present[split] or name for split, name in expected.items())
            raise ConfigError(
                f"frames={frames.file}: scenario {frame.scenario} is in none of the folders {names} of {root}: "
                "unpack it there, or remove it from the list"
            )
        found[frame.scenario] = holding[0]
    return found


@dataclass(frozen=True, eq=False)
class ListedSample:
    """Where a listed frame is: a dataset, the frame's number in its index, and the rows of its agents."""

    dataset: FrameDataset
    frame: int
    rows: Int[np.ndarray, " v"]


def find_sample(meta: SampleMeta, dataset: FrameDataset) -> ListedSample:
    """Find a frame and its agents in the dataset of its split.

    Raises:
        ConfigError: one of them does not exist; the message names it and what exists.
    """
    index = dataset.index
    in_scenario = np.flatnonzero(index.scenarios[index.frame_scenario] == meta.scenario.encode())
    numbers = {index.frame(number).frame: number for number in in_scenario.tolist()}
    if meta.frame not in numbers:
        names = list(numbers)
        span = f"it has {len(names)}, {names[0]} to {names[-1]}" if names else "it has none"
        raise ConfigError(f"scenario {meta.scenario} has no frame {meta.frame} ({span})")
    present, agents = index.frame(numbers[meta.frame]).agents, list(dict.fromkeys(meta.agents))  # one per view
    for agent in agents:
        if agent not in present:
            raise ConfigError(f"{meta.scenario} {meta.frame} has no agent {agent} (it has {', '.join(present)})")
    return ListedSample(dataset, numbers[meta.frame], np.array([present.index(agent) for agent in agents]))


def find_samples(frames: FrameList, datasets: dict[str, FrameDataset]) -> ListedFrames:
    """All samples of a list.

    Args:
        frames: the list.
        datasets: by scenario.

    Raises:
        ConfigError: a frame or agent does not exist.
    """
    try:
        return ListedFrames([find_sample(frame, datasets[frame.scenario]) for frame in frames.frames])
    except ConfigError as error:
        raise ConfigError(f"frames={frames.file}: {error}") from None


def _text(meta: SampleMeta) -> str:
    return f"{meta.scenario} {meta.frame} with agents {', '.join(meta.agents)}"


class ListedFrames(Dataset[Sample | SkippedSample]):
    """Listed samples; the ``frame`` of a request is the position in the list."""

    def __init__(self, samples: Sequence[ListedSample]) -> None:
        self.samples = list(samples)

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def num_agents(self) -> Int[np.ndarray, " n"]:
        """Agents of each sample."""
        return np.array([len(sample.rows) for sample in self.samples])

    def __getitem__(self, request: SampleRequest | int) -> Sample | SkippedSample:
        """The sample as in evaluation: without augmentation."""
        sample = self.samples[request.frame if isinstance(request, SampleRequest) else request]
        return sample.dataset.evaluation_sample(sample.frame, sample.rows)
