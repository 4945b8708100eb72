"""Which scenarios, frames and agents a split holds, from file names alone."""

from __future__ import annotations

import errno
import logging
import os
from collections import defaultdict
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int, Shaped

from coopmap.data.opv2v.errors import DatasetLayoutError, printable
from coopmap.data.opv2v.folder_names import AGENT, FRAME, LAYOUT, OTHER_FOLDERS, SPLIT_FOLDERS
from coopmap.data.opv2v.images import image_file
from coopmap.data.opv2v.wrong_root import remedy
from coopmap.geometry.rig import OPV2V_CAMERA_OF_SLOT

log = logging.getLogger(__name__)

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
        folder: of the split below the root; by default that of :data:`SPLIT_FOLDERS`.
        is_whole: every folder could be listed; else what is in some is missing here.
    """

    root: Path
    split: str
    scenarios: Shaped[np.ndarray, " s"]
    agents: Shaped[np.ndarray, " a"]
    frame_names: Shaped[np.ndarray, " f"]
    frame_scenario: Int[np.ndarray, " f"]
    agent_start: Int[np.ndarray, " f+1"]
    frame_agents: Int[np.ndarray, " n"]
    folder: str = ""
    is_whole: bool = True

    def __post_init__(self) -> None:
        if not self.folder:
            object.__setattr__(self, "folder", SPLIT_FOLDERS[self.split])

    @classmethod
    def build(
        cls,
        root: Path | str,
        split: str,
        include_rsu: bool = False,
        exclude: Collection[str] = (),
        folders: Mapping[str, str] | None = None,
    ) -> SplitIndex:
        """Scan a split; opens no file.

        Args:
            root: folder that holds the split folders.
            split: a key of :data:`SPLIT_FOLDERS`.
            include_rsu: also count V2XSet's road-side units (negative agent ids).
            exclude: entries ``SPLIT/SCENARIO/AGENT/FRAME`` to treat as absent, a split by its own name or its folder's;
                those that name nothing are warned of.
            folders: folder of a split below the root, where it is none of the usual.

        Raises:
            ValueError: if ``split`` is unknown.
            DatasetLayoutError: if the root or split folder is missing, or holds no frame.
        """
        root = Path(root).expanduser()
        relative = split_folder(root, split, folders)
        folder = root / relative
        unlisted: list[Path] = []
        found = agent_folders(root, split, include_rsu, folders, unlisted)
        with ThreadPoolExecutor(_SCAN_THREADS) as pool:
            frames = list(pool.map(lambda place: _frames(place[2], unlisted), found))
        if not any(map(len, frames)):
            raise DatasetLayoutError(
                folder,
                f"the split is empty: {len(_scenarios(folder))} scenario folders, {len(found)} agent folders, no frame",
                f"Expected {LAYOUT}" + ("" if include_rsu else " (negative AGENT ids count with include_rsu only)"),
            )
        if exclude:
            unwanted = entries_of(exclude, split, relative)
            mention_strange_entries(unwanted, split, folder)
            frames = [
                names[[f"{scenario}/{agent}/{name.decode()}" not in unwanted for name in names]]
                for (scenario, agent, _), names in zip(found, frames, strict=True)
            ]
        if not any(map(len, frames)):
            raise DatasetLayoutError(folder, "every frame of the split is excluded", "Change data.exclude")
        return cls._from_folders(root, split, found, frames, relative, not unlisted)

    @classmethod
    def _from_folders(
        cls,
        root: Path,
        split: str,
        found: list[tuple[str, str, Path]],
        frames: list[Shaped[np.ndarray, " _"]],
        relative: str,
        is_whole: bool,
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
            folder=relative,
            is_whole=is_whole,
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
        return Path(self.folder, ref.scenario, agent)

    def yaml_path(self, ref: FrameRef, agent: str) -> Path:
        """Metadata of an agent in a frame."""
        return self.root / self.relative_folder(ref, agent) / f"{ref.frame}.yaml"

    def image_path(self, ref: FrameRef, agent: str, camera: int) -> Path:
        """Image of OPV2V camera number ``camera`` (not slot)."""
        return self.root / self.relative_folder(ref, agent) / f"{ref.frame}_camera{camera}.png"

    def image_names(self, ref: FrameRef, agent: str) -> list[str]:
        """The agent's images as they lie below the scenario's folder, PNG or JPEG, in the order of slots."""
        paths = [image_file(self.image_path(ref, agent, camera)) for camera in OPV2V_CAMERA_OF_SLOT]
        return [f"{agent}/{path.name}" for path in paths]

    def lidar_path(self, ref: FrameRef, agent: str) -> Path:
        """LiDAR sweep of an agent in a frame."""
        return self.root / self.relative_folder(ref, agent) / f"{ref.frame}.pcd"


def entries_of(exclude: Collection[str], split: str, folder: str) -> set[str]:
    """Entries of ``data.exclude`` for a split whose folder is given, as ``SCENARIO/AGENT/FRAME``.

    Lists may have any name of the split.
    """
    heads = {f"{Path(folder).name}/", f"{SPLIT_FOLDERS[split]}/", f"{split}/"}
    return {entry.removeprefix(head) for entry in exclude for head in heads if entry.startswith(head)}


def mention_strange_entries(entries: Collection[str], split: str, folder: Path) -> None:
    """Warn of entries of ``data.exclude`` whose car is not in the split, or whose frame is called otherwise there.

    A frame that is simply not there may have been there when the list was written.

    Args:
        entries: see :func:`entries_of`.
        split: for the message.
        folder: of the split.
    """
    by_car: dict[str, list[str]] = defaultdict(list)
    for entry in sorted(entries):
        car, _, frame = entry.rpartition("/")
        by_car[car].append(frame)
    strange = []
    for car, frames in by_car.items():
        if not (folder / car).is_dir():
            strange += [f"{car}/{frame}" for frame in frames]
            continue
        names = {name.decode() for name in _frames(folder / car, []).tolist()}
        numbers = set(map(int, names))
        strange += [f"{car}/{frame}" for frame in frames if frame not in names and int(frame) in numbers]
    if strange:
        log.warning(
            "%d of %d entries of data.exclude for %s name nothing in %s, the first: %s; expected SPLIT/SCENARIO/AGENT/"
            "FRAME as folders and files are called there",
            len(strange), len(entries), split, printable(str(folder)), printable(min(strange)),
        )  # fmt: skip


def split_folder(root: Path, split: str, folders: Mapping[str, str] | None = None) -> str:
    """The folder below the root that holds the scenarios of a split.

    That of ``folders``, or one of the usual names; archives that unpack to ``test/test`` may stay so.

    Raises:
        ValueError: if ``split`` is unknown.
        DatasetLayoutError: if the root or the folder is missing; tells what is there instead.
    """
    if split not in SPLIT_FOLDERS:
        raise ValueError(f"unknown split {split!r}; choose one of {', '.join(SPLIT_FOLDERS)}")
    if not root.is_dir():
        raise DatasetLayoutError(
            root, "the dataset root does not exist", f"Set data.root to a folder laid out as {LAYOUT}"
        )
    if (found := find_split_folder(root, split, folders)) is not None:
        return found
    folder = root / (folders or {}).get(split, SPLIT_FOLDERS[split])
    raise DatasetLayoutError(folder, f"no folder for split {split!r}", remedy(root, split, folders))


def find_split_folder(root: Path, split: str, folders: Mapping[str, str] | None = None) -> str | None:
    """As :func:`split_folder`, ``None`` if there is none."""
    names = (SPLIT_FOLDERS[split], *OTHER_FOLDERS.get(split, ()))
    if folders and split in folders:
        names = (folders[split],)
    name = next((name for name in names if (root / name).is_dir()), None)
    if name is None:
        return None
    scenarios = _scenarios(root / name)
    if len(scenarios) == 1 and scenarios[0] in {Path(each).name for each in names}:
        inner = root / name / scenarios[0]
        if not any(AGENT.fullmatch(folder) for folder in _folders(inner)):  # else it is a scenario of that name
            return f"{name}/{scenarios[0]}"
    return name


def agent_folders(
    root: Path,
    split: str,
    include_rsu: bool,
    folders: Mapping[str, str] | None = None,
    unlisted: list[Path] | None = None,
) -> list[tuple[str, str, Path]]:
    """Scenario, agent and path of each agent folder of a split: scenarios by name, vehicles before road-side units.

    Args:
        root: see :meth:`SplitIndex.build`.
        split: see there.
        include_rsu: see there.
        folders: see there.
        unlisted: receives what could not be looked into.

    Raises:
        ValueError: if ``split`` is unknown.
        DatasetLayoutError: if the root or split folder is missing.
    """
    folder = root / split_folder(root, split, folders)
    return [
        (scenario, agent, folder / scenario / agent)
        for scenario in _scenarios(folder, unlisted)
        for agent in _agents_by_number(folder / scenario, include_rsu, unlisted)
    ]


def _scenarios(folder: Path, unlisted: list[Path] | None = None) -> list[str]:
    return [name for name in _folders(folder, unlisted) if not name.startswith(".")]


def _folders(path: Path, unlisted: list[Path] | None = None) -> list[str]:
    """Names of folders in a folder; what cannot be listed or named is said and left out."""
    unlisted = [] if unlisted is None else unlisted
    try:
        with os.scandir(path) as entries:
            names = sorted(entry.name for entry in entries if _is_folder(entry, unlisted))
    except OSError as error:
        _leave_out(path, error, unlisted)
        return []
    named = [name for name in names if name == name.encode("utf-8", "ignore").decode()]
    for name in sorted(set(names) - set(named)):
        log.warning("%s: its name is not UTF-8: left out; rename it", printable(str(path / name)))
    return named


def _is_folder(entry: os.DirEntry[str], unlisted: list[Path]) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno != errno.ELOOP:  # a link that leads back to itself is none
            _leave_out(Path(entry.path), error, unlisted)
        return False


def _agents_by_number(scenario: Path, include_rsu: bool, unlisted: list[Path] | None) -> list[str]:
    """Agent folders: vehicles by number, then road-side units."""
    names = [name for name in _folders(scenario, unlisted) if AGENT.fullmatch(name) and (include_rsu or name[0] != "-")]
    return sorted(names, key=lambda name: (name[0] == "-", abs(int(name))))


def _frames(agent_folder: Path, unlisted: list[Path]) -> Shaped[np.ndarray, " _"]:
    try:
        with os.scandir(agent_folder) as entries:
            names = [match.group(1) for entry in entries if (match := FRAME.fullmatch(entry.name))]
    except OSError as error:
        _leave_out(agent_folder, error, unlisted)
        names = []
    return np.array(names, np.bytes_)


def _leave_out(path: Path, error: OSError, unlisted: list[Path]) -> None:
    log.warning("%s: cannot be listed (%s): left out", printable(str(path)), error.strerror)
    unlisted.append(path)
