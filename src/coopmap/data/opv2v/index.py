"""Which scenarios, frames and agents a split holds, from file names alone."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int, Shaped

from coopmap.data.opv2v.errors import DatasetLayoutError

SPLIT_FOLDERS = {"train": "train", "val": "validate", "test": "test", "test_culvercity": "test_culvercity"}
"""Folder of each split."""

_AGENT = re.compile(r"-?\d+")
_FRAME = re.compile(r"(\d+)\.yaml")
_LAYOUT = "ROOT/{train,validate,test,test_culvercity}/SCENARIO/AGENT/FRAME.yaml"
_SCAN_THREADS = 16  # the scan waits for directory reads, which matters on network storage


@dataclass(frozen=True)
class FrameRef:
    """One timestamp of one scenario and the agents present in it (vehicles by number, then road-side units)."""

    split: str
    scenario: str
    frame: str
    agents: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class SplitIndex:
    """The frames of a split in flat arrays: cheap to pickle and to share between loader processes.

    Frames are ordered by scenario, then by number. An agent counts as present if its YAML file of that frame exists.

    Attributes:
        root: dataset root.
        split: ``train``, ``val``, ``test`` or ``test_culvercity``.
        scenarios: scenario folder names.
        agents: distinct agent folder names.
        frame_names: name of each frame, without suffix.
        frame_scenario: index into ``scenarios``.
        agent_start: frame ``i`` has the entries ``agent_start[i] : agent_start[i + 1]`` of ``frame_agents``.
        frame_agents: indices into ``agents``.
    """

    root: Path
    split: str
    scenarios: Shaped[np.ndarray, " s"]
    agents: Shaped[np.ndarray, " a"]
    frame_names: Shaped[np.ndarray, " f"]
    frame_scenario: Int[np.ndarray, " f"]
    agent_start: Int[np.ndarray, " f+1"]
    frame_agents: Int[np.ndarray, " n"]

    @classmethod
    def build(
        cls, root: Path | str, split: str, include_rsu: bool = False, exclude: Collection[str] = ()
    ) -> SplitIndex:
        """Scan a split; opens no file.

        Args:
            root: folder that holds the split folders.
            split: a key of :data:`SPLIT_FOLDERS`.
            include_rsu: also count V2XSet's road-side units (negative agent ids).
            exclude: entries ``SPLIT_FOLDER/SCENARIO/AGENT/FRAME`` to treat as absent.

        Raises:
            ValueError: if ``split`` is unknown.
            DatasetLayoutError: if the root or split folder is missing, or holds no frame.
        """
        root = Path(root).expanduser()
        folder = _split_folder(root, split)
        found = agent_folders(root, split, include_rsu)
        with ThreadPoolExecutor(_SCAN_THREADS) as pool:
            frames = list(pool.map(lambda place: _frames(place[2]), found))
        if not any(map(len, frames)):
            raise DatasetLayoutError(
                folder,
                f"the split is empty: {len(_scenarios(folder))} scenario folders, {len(found)} agent folders, no frame",
                f"Expected {_LAYOUT}" + ("" if include_rsu else " (negative AGENT ids count with include_rsu only)"),
            )
        if exclude:
            frames = [
                names[[f"{folder.name}/{scenario}/{agent}/{name.decode()}" not in exclude for name in names]]
                for (scenario, agent, _), names in zip(found, frames, strict=True)
            ]
        if not any(map(len, frames)):
            raise DatasetLayoutError(folder, "every frame of the split is excluded", "Change data.exclude")
        return cls._from_folders(root, split, found, frames)

    @classmethod
    def _from_folders(
        cls, root: Path, split: str, found: list[tuple[str, str, Path]], frames: list[Shaped[np.ndarray, " _"]]
    ) -> SplitIndex:
        """Sort the frames of agent folders, a row for each YAML file, by scenario, number and the order of agents."""
        scenarios, folder_scenario = np.unique([scenario for scenario, *_ in found], return_inverse=True)
        agents, folder_agent = np.unique(np.array([agent for _, agent, _ in found], np.bytes_), return_inverse=True)
        folder = np.repeat(np.arange(len(found)), [len(names) for names in frames])
        name = np.concatenate(frames)
        number = np.char.lstrip(name, b"0")
        order = np.lexsort((folder, name, number, np.char.str_len(number), folder_scenario[folder]))
        row_scenario, row_frame = folder_scenario[folder][order].astype(np.int32), name[order]
        is_new = np.ones(len(order), dtype=bool)
        is_new[1:] = (row_scenario[1:] != row_scenario[:-1]) | (row_frame[1:] != row_frame[:-1])
        start = np.flatnonzero(is_new).astype(np.int32)
        return cls(
            root=root,
            split=split,
            scenarios=np.char.encode(scenarios, "utf-8"),
            agents=agents,
            frame_names=row_frame[start],
            frame_scenario=row_scenario[start],
            agent_start=np.append(start, np.int32(len(order))),
            frame_agents=folder_agent[folder][order].astype(np.int32),
        )

    def __len__(self) -> int:
        return len(self.frame_names)

    @property
    def num_agents(self) -> Int[np.ndarray, " f"]:
        """Number of agents present in each frame."""
        return np.diff(self.agent_start)

    def frame(self, i: int) -> FrameRef:
        """Frame ``i``; negative ``i`` counts from the end."""
        i = range(len(self))[i]
        entries = self.frame_agents[self.agent_start[i] : self.agent_start[i + 1]]
        return FrameRef(
            split=self.split,
            scenario=self.scenarios[self.frame_scenario[i]].decode(),
            frame=self.frame_names[i].decode(),
            agents=tuple(self.agents[agent].decode() for agent in entries),
        )

    def relative_folder(self, ref: FrameRef, agent: str) -> Path:
        """Folder of an agent below the dataset root, and below a depth root."""
        return Path(SPLIT_FOLDERS[ref.split], ref.scenario, agent)

    def yaml_path(self, ref: FrameRef, agent: str) -> Path:
        """Metadata of an agent in a frame."""
        return self.root / self.relative_folder(ref, agent) / f"{ref.frame}.yaml"

    def image_path(self, ref: FrameRef, agent: str, camera: int) -> Path:
        """Image of OPV2V camera number ``camera`` (not slot)."""
        return self.root / self.relative_folder(ref, agent) / f"{ref.frame}_camera{camera}.png"

    def lidar_path(self, ref: FrameRef, agent: str) -> Path:
        """LiDAR sweep of an agent in a frame."""
        return self.root / self.relative_folder(ref, agent) / f"{ref.frame}.pcd"


def _split_folder(root: Path, split: str) -> Path:
    """The split's folder, or an error that tells what is there instead."""
    if split not in SPLIT_FOLDERS:
        raise ValueError(f"unknown split {split!r}; choose one of {', '.join(SPLIT_FOLDERS)}")
    if not root.is_dir():
        raise DatasetLayoutError(
            root, "the dataset root does not exist", f"Set data.root to a folder laid out as {_LAYOUT}"
        )
    folder = root / SPLIT_FOLDERS[split]
    if folder.is_dir():
        return folder
    present = [name for name in SPLIT_FOLDERS.values() if (root / name).is_dir()]
    if present:
        remedy = f"Present are: {', '.join(present)}. Unpack the missing part there"
    elif root.name in SPLIT_FOLDERS.values():
        remedy = f"data.root is itself a split folder; set it to {root.parent}"
    else:
        remedy = f"None of {', '.join(SPLIT_FOLDERS.values())} is in {root}; set data.root to the folder that has them"
    raise DatasetLayoutError(folder, f"no folder for split {split!r}", remedy)


def agent_folders(root: Path, split: str, include_rsu: bool) -> list[tuple[str, str, Path]]:
    """Scenario, agent and path of each agent folder of a split: scenarios by name, vehicles before road-side units.

    Raises:
        ValueError: if ``split`` is unknown.
        DatasetLayoutError: if the root or split folder is missing.
    """
    folder = _split_folder(root, split)
    return [
        (scenario, agent, folder / scenario / agent)
        for scenario in _scenarios(folder)
        for agent in _agents_by_number(folder / scenario, include_rsu)
    ]


def _scenarios(folder: Path) -> list[str]:
    return [name for name in _folders(folder) if not name.startswith(".")]


def _folders(path: Path) -> list[str]:
    with os.scandir(path) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir())


def _agents_by_number(scenario: Path, include_rsu: bool) -> list[str]:
    """Agent folders: vehicles by number, then road-side units."""
    names = [name for name in _folders(scenario) if _AGENT.fullmatch(name) and (include_rsu or name[0] != "-")]
    return sorted(names, key=lambda name: (name[0] == "-", abs(int(name))))


def _frames(agent_folder: Path) -> Shaped[np.ndarray, " _"]:
    with os.scandir(agent_folder) as entries:
        names = [match.group(1) for entry in entries if (match := _FRAME.fullmatch(entry.name))]
    return np.array(names, np.bytes_)
