"""Memory and time that do not depend on single samples (part of ``coopmap bench data``).

Opening a large split whose index and tables are kept: the split is made up of folders without files, and what opening
them once would have left in the cache folder. And the memory of a loader process over many samples.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch.utils.data import DataLoader, Dataset

from coopmap.benchmarks.cache import depth_sources
from coopmap.config.data import DataConfig
from coopmap.data import SampleRequest
from coopmap.data.datamodule import OPV2VDataModule
from coopmap.data.dataset import FrameDataset
from coopmap.data.kept_index import index_path, keep
from coopmap.data.loader_processes import prepare_worker
from coopmap.data.opv2v import SplitIndex
from coopmap.data.pose_table import file_stamps, table_path
from coopmap.data.pose_table import keep as keep_poses

FRAMES_PER_SCENARIO = 150
SPACING_M = 20.0


def made_up_split(folder: Path, frames: int, agents: int) -> DataConfig:
    """A training split of so many frames, all with the same number of agents 20 m apart.

    Args:
        folder: that dataset and cache are made in.
        frames: rounded up to whole scenarios of 150.
        agents: in each frame.
    """
    root, cache = folder / "data", folder / "cache"
    scenarios = [f"scenario_{number:05d}" for number in range(-(-frames // FRAMES_PER_SCENARIO))]
    names = [str(100 + agent) for agent in range(agents)]
    for scenario in scenarios:
        for name in names:
            (root / "train" / scenario / name).mkdir(parents=True)
    first = root / "train" / scenarios[0] / names[0] / "000000.pcd"
    first.touch()  # depth comes from sweeps
    number = len(scenarios) * FRAMES_PER_SCENARIO
    index = SplitIndex(
        root=root,
        split="train",
        scenarios=np.array(scenarios, np.bytes_),
        agents=np.array(names, np.bytes_),
        frame_names=np.tile(
            np.array([f"{frame:06d}" for frame in range(FRAMES_PER_SCENARIO)], np.bytes_), len(scenarios)
        ),
        frame_scenario=np.repeat(np.arange(len(scenarios), dtype=np.int32), FRAMES_PER_SCENARIO),
        agent_start=agents * np.arange(number + 1, dtype=np.int32),
        frame_agents=np.tile(np.arange(agents, dtype=np.int32), number),
    )
    cords = np.zeros((number * agents, 6))
    cords[:, 0] = SPACING_M * index.frame_agents
    keep(index, index_path(root, "train", False, (), cache)[0])
    keep_poses(table_path(index, cache), file_stamps(index), cords)
    return _config(folder, agents)


def _config(folder: Path, agents: int) -> DataConfig:
    return DataConfig(
        root=str(folder / "data"),
        cache_dir=str(folder / "cache"),
        max_agents=agents,
        max_views_per_gpu=2 * agents,
        num_workers=0,
    )


def opening_cost(folder: Path, frames: int, agents: int) -> dict:
    """Seconds and growth of memory (MB) when a process opens a made-up split and draws its first batches."""
    made_up_split(folder, frames, agents)
    command = [sys.executable, "-c", f"from {__name__} import open_in_this_process as go; go()", folder, str(agents)]
    answer = subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True).stdout
    return {"what": f"opening {frames:,} frames of {agents} agents, all tables kept"} | json.loads(
        answer.splitlines()[-1]
    )


def open_in_this_process() -> None:
    """Open the split of the folder in ``sys.argv``; prints what it took."""
    folder, agents = Path(sys.argv[-2]), int(sys.argv[-1])
    before, started = memory_mb("VmRSS"), time.perf_counter()
    module = OPV2VDataModule(_config(folder, agents))
    next(iter(module.train_dataloader().batch_sampler))  # type: ignore[arg-type]
    seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "mb": memory_mb("VmHWM") - before}))


def memory_mb(name: str) -> float:
    """``VmRSS`` (all) or ``VmHWM`` (peak) of this process.

    ``getrusage`` also counts what the process was forked from.
    """
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name)]
    return int(line.split()[1]) / 1e3


class _Watched(Dataset[float]):
    """Makes training samples, and tells the memory of the process after each."""

    def __init__(self, dataset: FrameDataset, number: int, agents: int) -> None:
        self.dataset, self.number, self.agents = dataset, number, agents

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, number: int) -> float:
        frame = int(self.dataset.frames[number % len(self.dataset.frames)])
        self.dataset[SampleRequest(frame, self.agents, number)]
        return unique_mb()


def unique_mb() -> float:
    """Memory that this process shares with no other (USS): what another process like it takes."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1e3


def loader_memory(name: str, dataset: FrameDataset, number: int, agents: int) -> dict:
    """Memory of one loader process after a fifth of so many samples, and how much it has grown after all (MB).

    Each is the mean over a tenth of the samples: single samples come and go.
    """
    watched = _Watched(dataset, number, agents)
    loader = DataLoader(watched, batch_size=None, num_workers=1, worker_init_fn=prepare_worker)
    memory = np.array(list(loader))
    tenth = max(1, number // 10)
    early, late = memory[tenth : 2 * tenth].mean(), memory[-tenth:].mean()
    what = f"loader process, {name}, over {number:,} samples ({early:.0f} MB after {2 * tenth:,})"
    return {"what": what, "mb": float(late - early)}


def memory_rows(dataset: FrameDataset, number: int, agents: int) -> list[dict]:
    """:func:`loader_memory` with each kind of depth that there is, and of mosaics."""
    layout = dataset.config.layout
    kinds = [(f"{layout}, {depth}", source, dataset.config) for depth, source in depth_sources(dataset)]
    if layout != "mosaic":
        kinds.append(("mosaic", dataset.depth_source, replace(dataset.config, layout="mosaic")))
    return [
        loader_memory(name, FrameDataset(dataset.index, dataset.poses, source, config, augment=True), number, agents)
        for name, source, config in kinds
    ]
