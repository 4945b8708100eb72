"""Killed writers leave what can be continued; two writers share the work."""

import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from coopmap.config.data import DataConfig
from coopmap.data import SampleRequest, build_split
from coopmap.data.cache import shards
from coopmap.data.cache.records import RecordWriter, read_record
from coopmap.data.cache.shards import Shard, claimed, plan

SCRIPT = """
import sys
from pathlib import Path
from coopmap.config.cache import CacheConfig
from coopmap.config.data import DataConfig, PanoramaConfig
from coopmap.data.cache import shards
from coopmap.data.cache.command import fill_cache
shards.FRAMES_PER_SHARD = 1
root, depth_root, cache_root = sys.argv[1:]
config = DataConfig(root=root, depth_root=depth_root, max_agents=3, panorama=PanoramaConfig(height=84, width=336))
print("ready", flush=True)
print(fill_cache(CacheConfig(cache_root=cache_root, workers=1), config), flush=True)
"""


@pytest.fixture
def writer(config_of: Callable[..., DataConfig], tmp_path: Path) -> Callable[[], subprocess.Popen]:
    """Starts a process that fills the cache in ``tmp_path``, a frame to a shard; returns when it begins."""

    def start() -> subprocess.Popen:
        config = config_of()
        command = [sys.executable, "-c", SCRIPT, config.root, config.depth_root, str(tmp_path / "cache")]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "ready\n"
        return process

    return start


@pytest.fixture
def assert_filled(config_of, tmp_path, monkeypatch) -> Callable[[], None]:
    """The cache holds everything, and what files give."""

    def check() -> None:
        monkeypatch.setattr(shards, "FRAMES_PER_SHARD", 1)
        cache_root = str(tmp_path / "cache")
        for split in ("train", "val"):
            files, cache = build_split(config_of(), split), build_split(config_of(cache_root=cache_root), split)
            cache.ready.files.read = None
            for number, frame in enumerate(files.frames):
                request = SampleRequest(int(frame), 2, number if split == "train" else None)
                first, second = files[request], cache[request]
                assert torch.equal(first.target.pose, second.target.pose)
                assert torch.equal(first.target.valid, second.target.valid)
                assert second.skipped == ()
                if split == "val":
                    assert torch.equal(first.observation.images, second.observation.images)

    return check


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_at_any_moment_it_continues(kills, writer, assert_filled, tmp_path):
    """From right after the start to about the time that all takes."""
    rng = random.Random(0)
    started = time.monotonic()
    process = writer()
    process.communicate()
    whole_s = time.monotonic() - started
    for path in (tmp_path / "cache").rglob("*"):
        if path.is_file():
            path.unlink()
    for _ in range(kills):
        process = writer()
        time.sleep(rng.uniform(0, whole_s / kills))
        process.kill()
        process.communicate()
    process = writer()
    report, _ = process.communicate()
    assert process.returncode == 0
    assert "could not be read" not in report
    assert_filled()


def test_two_writers_share_the_work(writer, assert_filled, tmp_path):
    both = [writer(), writer()]
    reports = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert len(set(reports)) == 1
    assert_filled()
    assert not list((tmp_path / "cache").rglob("*.begun"))


def test_a_claim_is_exclusive_and_ends_with_its_context(tmp_path):
    shard = Shard("train", "town", 0, (0,))
    with claimed(shard, tmp_path) as mine:
        assert mine
        with claimed(shard, tmp_path) as second:
            assert not second
    with claimed(shard, tmp_path) as mine:
        assert mine


def test_the_plan_covers_every_frame_once(config_of, monkeypatch):
    index = build_split(config_of(), "train").index
    for size in (1, 2, 32):
        monkeypatch.setattr(shards, "FRAMES_PER_SHARD", size)
        frames = [frame for shard in plan(index) for frame in shard.frames]
        np.testing.assert_array_equal(frames, np.arange(len(index)))
        assert all(len(shard.frames) <= size for shard in plan(index))


def test_records_that_were_committed_stay(tmp_path):
    path = tmp_path / "records.lmdb"
    script = (
        "import os, sys; from pathlib import Path; from coopmap.data.cache.records import RecordWriter\n"
        "writer = RecordWriter(Path(sys.argv[1]))\n"
        "for i in range(5): writer.write({str(i): bytes(100_000)})\n"
        "os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", script, str(path)]).returncode == -9
    writer = RecordWriter(path)
    assert all(writer.get(str(i)) == bytes(100_000) for i in range(5))
    writer.write({"5": b"more"})
    writer.close()
    assert read_record(path, path.stat().st_size, "5") == b"more"
    assert read_record(path, path.stat().st_size, "6") is None
