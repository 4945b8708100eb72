"""What it costs to make samples, beside floors measured in turn (``coopmap bench data``)."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch.utils.data import DataLoader

from coopmap.benchmarks.against import compare
from coopmap.benchmarks.cache import CACHE, cache_rows
from coopmap.benchmarks.opening import memory_rows, opening_cost
from coopmap.benchmarks.options import DataOptions
from coopmap.benchmarks.rendered import AGENTS, render_or_find
from coopmap.benchmarks.report import Report, table
from coopmap.config.data import DataConfig
from coopmap.data import SampleRequest, build_split
from coopmap.data.dataset import FrameDataset
from coopmap.data.layouts import build_views
from coopmap.data.loader_processes import prepare_worker
from coopmap.data.memory import keep_freed_memory
from coopmap.data.opv2v import read_agent, read_images, select_depth_source
from coopmap.data.opv2v.depth import DenseDepth, LidarDepth
from coopmap.data.opv2v.lidar import cull_hidden, drop_own_body, sample_spacing, see
from coopmap.data.opv2v.pcd import read_sweep
from coopmap.data.vehicles import vehicles_around
from coopmap.data.views import Record
from coopmap.geometry.rig import OPV2V_CAMERA_OF_SLOT

COSTS = {
    "what": "what",
    "ms": "CPU (ms)",
    "floor": "floor",
    "floor_ms": "floor (ms)",
    "ratio": "ratio",
    "limit": "at most",
}
RATES = {"workers": "loader processes", "rate": "samples/s", "needed": "processes per GPU", "needed_all": "all GPUs"}
SCALE = {"what": "what", "seconds": "s", "mb": "memory grows by (MB)"}
LARGE_SPLIT, LARGE_AGENTS = 100_000, 3
"""Frames and agents in each, of the split that is opened."""


def main(options: DataOptions, overrides: Sequence[str]) -> None:
    """Command line."""
    if options.against is None:
        options.show(benchmark(options, overrides))
    else:
        options.show(compare(options, overrides))


def benchmark(options: DataOptions, overrides: Sequence[str] = ()) -> Report:
    """Measure on the data that the overrides name, or on a town rendered for the purpose."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    keep_freed_memory()  # as loader processes do
    with threadpool_limits(1), render_or_find(overrides) as (config, source), tempfile.TemporaryDirectory() as cache:
        config = replace(config, cache_dir=cache)
        dataset = build_split(config, options.split)
        with tempfile.TemporaryDirectory() as folder:
            scale = [opening_cost(Path(folder), LARGE_SPLIT, LARGE_AGENTS)]
        bench = Bench.of(dataset, options.repeats)
        costs = [*bench.views(), *bench.lidar(), *bench.samples()]
        cached = cache_rows(dataset, bench.request, options.repeats)
        rates = [_rate(dataset, workers, options) for workers in (1, 2)]
        if options.memory_samples:
            scale += memory_rows(dataset, options.memory_samples, AGENTS)
    notes = {
        "data": f"{source}, split {options.split}, {len(dataset)} frames; {dataset.depth_source.describe()}",
        "views": f"panoramas of {config.panorama.height} x {config.panorama.width}, {AGENTS} agents per sample",
        "needed": f"steps of {options.step_s:g} s with {options.batch} samples per GPU, {options.gpus} GPUs",
    }
    (sample_ms,) = (row["ms"] for row in costs if row["what"] == "training sample")
    cores = options.gpus * options.batch / options.step_s * sample_ms / 1e3
    notes["cores that making samples for all GPUs takes, by CPU time"] = f"{cores:.1f}"
    tables = [
        table("Cost of samples", COSTS, costs),
        table("Cache", CACHE, cached),
        table("Loaders", RATES, rates),
        table("Scale", SCALE, scale),
    ]
    return Report(notes, tables)


def cost(what: str, work: Callable[[], Any], floor: str, least: Callable[[], Any], repeats: int, **more: Any) -> dict:
    """CPU time of work and of its floor, taken in turn; the fastest of each."""
    best = [float("inf"), float("inf")]
    for _ in range(repeats + 1):
        for place, function in enumerate((work, least)):
            started = time.process_time()
            function()
            best[place] = min(best[place], time.process_time() - started)
    ms, floor_ms = (1e3 * seconds for seconds in best)
    return {"what": what, "ms": ms, "floor": floor, "floor_ms": floor_ms, "ratio": ms / floor_ms, **more}


@dataclass(frozen=True)
class Bench:
    """A dataset with the decoded files of its first sample."""

    dataset: FrameDataset
    request: SampleRequest
    records: dict[str, Record]
    repeats: int

    @classmethod
    def of(cls, dataset: FrameDataset, repeats: int) -> Bench:
        """Read the first sample."""
        frame = int(dataset.frames[0])
        ref = dataset.index.frame(frame)
        agents = {
            agent: read_agent(dataset.index.yaml_path(ref, agent), with_vehicles=True) for agent in ref.agents[:AGENTS]
        }
        depths = dataset.depth_source.read(ref, agents)
        images = {agent: read_images(_images(dataset, frame, agent), agents[agent].rig.image_size) for agent in agents}
        records = {agent: Record(agents[agent], images[agent], depths[agent]) for agent in agents}
        return cls(dataset, SampleRequest(frame, len(records), 0), records, repeats)

    def views(self) -> list[dict]:
        """One view from decoded arrays."""
        agent, record = next(iter(self.records.items()))
        vehicles = vehicles_around({name: each.metadata for name, each in self.records.items()})
        config, dense = self.dataset.config, self.dataset.depth_source.is_dense
        tilted = replace(config, augmentation=replace(config.augmentation, tilt_deg=5.0))
        central = replace(config, panorama=replace(config.panorama, geometry="central"))

        def view(changed: DataConfig, boxes: Any = None) -> Callable[[], Any]:
            views = build_views(changed, dense)
            return lambda: views(agent, record, boxes, np.random.default_rng(0))

        plain, remap = view(config), self._remap(record)
        return [
            cost("view", plain, "one cv2.remap", remap, self.repeats, limit=4),
            cost("view, tilted", view(tilted), "view", plain, self.repeats, limit=2),
            cost("view with vehicle masks", view(config, vehicles), "view", plain, self.repeats, limit=2),
            cost("view, central geometry", view(central), "view", plain, min(self.repeats, 3), limit=2),
        ]

    def _remap(self, record: Record) -> Callable[[], Any]:
        """One bilinear lookup from one camera image into a panorama."""
        panorama = self.dataset.config.panorama
        height, width = record.images.shape[1:3]
        u, v = np.meshgrid(np.linspace(0, width - 1, panorama.width), np.linspace(0, height - 1, panorama.height))
        maps = u.astype(np.float32), v.astype(np.float32)
        return lambda: cv2.remap(record.images[0], *maps, cv2.INTER_LINEAR)

    def lidar(self) -> list[dict]:
        """Depth from one sweep."""
        index = self.dataset.index
        ref, (agent, record) = index.frame(self.request.frame), next(iter(self.records.items()))
        path, rig = index.lidar_path(ref, agent), record.metadata.rig
        if not path.exists():
            return []
        lines = path.read_bytes()
        header = lines[: lines.index(b"DATA")].count(b"\n") + 1
        source = select_depth_source(index, source="lidar")
        points = read_sweep(path)
        spacing, seen = sample_spacing(points), see(drop_own_body(points), rig)

        def read() -> Any:
            return read_sweep(path)

        def parse() -> Any:
            return np.loadtxt(path, np.float32, skiprows=header, usecols=(0, 1, 2))

        focal = rig.intrinsics[:, 0, 0]
        rows = [
            cost("LiDAR depth", lambda: source.read(ref, {agent: record.metadata}), "reading", read, 5, limit=1.5),
            cost("LiDAR: points in the images", lambda: see(points, rig), "reading", read, 5),
            cost("LiDAR: culling", lambda: cull_hidden(seen, focal, spacing), "reading", read, 5),
        ]
        if b"DATA ascii" in lines[:2000]:
            rows.insert(0, cost("reading a sweep", read, "np.loadtxt", parse, 5, limit=1))
        return rows

    def samples(self) -> list[dict]:
        """A training sample from files."""
        dataset, frame, source = self.dataset, self.request.frame, self.dataset.depth_source
        assert isinstance(source, DenseDepth | LidarDepth)
        ref, paths = dataset.index.frame(frame), [_images(dataset, frame, agent) for agent in self.records]
        metadata = {agent: record.metadata for agent, record in self.records.items()}

        def decode_images() -> None:
            for path in chain.from_iterable(paths):
                cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)

        def decode() -> None:
            decode_images()
            for agent in self.records:
                for path in source.paths(ref, agent):
                    _decode_depth(path)

        size = next(iter(metadata.values())).rig.image_size

        def read_all_images() -> None:
            for each in paths:
                read_images(each, size)

        repeats = self.repeats
        return [
            cost("training sample", lambda: dataset[self.request], "decoding its files", decode, repeats, limit=1.3),
            cost("its images", read_all_images, "decoding images", decode_images, repeats),
            cost("its depth", lambda: source.read(ref, metadata), "decoding its files", decode, repeats),
        ]


def _images(dataset: FrameDataset, frame: int, agent: str) -> list[Path]:
    ref = dataset.index.frame(frame)
    return [dataset.index.image_path(ref, agent, camera) for camera in OPV2V_CAMERA_OF_SLOT]


def _decode_depth(path: Path) -> None:
    if path.suffix == ".npy":
        np.load(path)
    elif path.suffix == ".png":
        cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    else:
        read_sweep(path)


class _Repeated(torch.utils.data.Dataset):
    """Samples of a dataset again and again."""

    def __init__(self, dataset: FrameDataset, number: int) -> None:
        self.dataset, self.number = dataset, number

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, number: int) -> Any:
        frame = int(self.dataset.frames[number % len(self.dataset.frames)])
        return self.dataset[SampleRequest(frame, AGENTS, number)]


def _rate(dataset: FrameDataset, workers: int, options: DataOptions) -> dict:
    """Samples per second of wall time, after the first has come."""
    loader = DataLoader(
        _Repeated(dataset, options.samples),
        batch_size=None,
        num_workers=workers,
        worker_init_fn=prepare_worker,
    )
    iterator = iter(loader)
    next(iterator)
    started = time.perf_counter()
    rate = sum(1 for _ in iterator) / (time.perf_counter() - started)
    needed = options.batch / options.step_s / (rate / workers)
    return {"workers": workers, "rate": rate, "needed": needed, "needed_all": options.gpus * needed}
