"""Samples from the cache beside the same samples from files, measured in turn."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from coopmap.config.data import DataConfig
from coopmap.data.cache.shards import plan
from coopmap.data.cache.writing import ShardWriter, Split, agree_on_settings
from coopmap.data.dataset import FrameDataset
from coopmap.data.opv2v import DepthSource, select_depth_source
from coopmap.data.requests import SampleRequest

LEAST_SPEED = 6

CACHE = {
    "what": "sample",
    "depth": "depth",
    "files_ms": "from files, CPU (ms)",
    "ms": "from the cache, CPU (ms)",
    "speed": "times as fast",
    "limit": "at least",
}


def cache_rows(dataset: FrameDataset, request: SampleRequest, repeats: int) -> list[dict]:
    """Training and validation, with each kind of depth that there is. Writes the shard of the frame, and deletes it."""
    rows = []
    for depth, source in depth_sources(dataset):
        with tempfile.TemporaryDirectory(prefix="coopmap-bench-") as folder:
            config = replace(dataset.config, cache_root=folder)
            _write_shard(Path(folder), config, Split(dataset.index, source), request.frame)
            for what, seed in (("training", request.seed), ("validation", None)):
                asked = replace(request, seed=seed)
                files, cached = (
                    FrameDataset(dataset.index, dataset.poses, source, each, augment=seed is not None)
                    for each in (dataset.config, config)
                )
                files_ms, ms = _both(files, cached, asked, repeats)
                row = {"what": what, "depth": depth, "files_ms": files_ms, "ms": ms, "speed": files_ms / ms}
                rows.append({**row, "limit": LEAST_SPEED})
    return rows


def depth_sources(dataset: FrameDataset) -> Iterator[tuple[str, DepthSource]]:
    """That of the dataset, and sweeps beside dense depth if there are any."""
    source, index = dataset.depth_source, dataset.index
    yield ("dense" if source.is_dense else "LiDAR"), source
    ref = index.frame(int(dataset.frames[0]))
    if source.is_dense and index.lidar_path(ref, ref.agents[0]).exists():
        yield "LiDAR", select_depth_source(index, source="lidar", max_depth_m=dataset.config.depth.max_m)


def _write_shard(root: Path, config: DataConfig, split: Split, frame: int) -> None:
    splits = {split.index.split: split}
    agree_on_settings(root, config, splits)
    (shard,) = (shard for shard in plan(split.index) if frame in shard.frames)
    ShardWriter(root, config, splits)(shard)


def _both(files: FrameDataset, cached: FrameDataset, asked: SampleRequest, repeats: int) -> tuple[float, float]:
    """Milliseconds of CPU time of each, the fastest of all rounds."""
    best = [float("inf"), float("inf")]
    for _ in range(repeats + 1):
        for place, dataset in enumerate((files, cached)):
            started = time.process_time()
            dataset[asked]
            best[place] = min(best[place], time.process_time() - started)
    return 1e3 * best[0], 1e3 * best[1]
