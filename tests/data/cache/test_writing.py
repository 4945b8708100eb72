"""Killed writers leave what can be continued; two writers share the work."""

import errno
import fcntl
import multiprocessing
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import lmdb
import numpy as np
import pytest
import torch

from coopmap.config.cache import CacheConfig
from coopmap.config.data import DataConfig
from coopmap.config.synth import ScenarioCounts
from coopmap.data import SampleRequest, build_split
from coopmap.data.cache import records, shards
from coopmap.data.cache.command import fill_cache
from coopmap.data.cache.records import RecordWriter, read_record
from coopmap.data.cache.shards import Shard, claimed, describe, plan

from ...worlds import tiny_streets

FORK = multiprocessing.get_context("fork")  # nothing to import: killed while it works, not while it starts


@pytest.fixture(autouse=True)
def _a_frame_to_a_shard(monkeypatch):
    monkeypatch.setattr(shards, "FRAMES_PER_SHARD", 1)


@pytest.fixture
def writer(config_of: Callable[..., DataConfig], tmp_path: Path) -> Callable[[], BaseProcess]:
    """Starts a process that fills the cache in ``tmp_path``."""
    asked, config = CacheConfig(cache_root=str(tmp_path / "cache"), workers=1), config_of()

    def start() -> BaseProcess:
        process = FORK.Process(target=fill_cache, args=(asked, config))
        process.start()
        return process

    return start


@pytest.fixture
def assert_filled(config_of, tmp_path) -> Callable[[], None]:
    """The cache holds everything, and what files give."""

    def check() -> None:
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


def test_killed_at_twenty_moments_it_continues(writer, assert_filled, tmp_path):
    """From right after the start to about the time that all takes; every other time while it writes a shard."""
    rng = random.Random(0)
    cache, started = tmp_path / "cache", time.monotonic()
    writer().join()
    whole_s = time.monotonic() - started
    shutil.rmtree(cache)
    left_unfinished = 0
    for attempt in range(20):
        process = writer()
        if attempt % 2:
            time.sleep(rng.uniform(0, 0.6 * whole_s))  # starting takes a good part of it
        else:
            before = set(cache.rglob("*.begun"))
            while process.is_alive() and not set(cache.rglob("*.begun")) - before:
                pass  # a shard takes milliseconds
        process.kill()
        process.join()
        left_unfinished += any(cache.rglob("*.begun"))
    process = writer()
    process.join()
    assert process.exitcode == 0
    assert left_unfinished > 0  # or nothing was interrupted
    assert_filled()


def test_two_writers_share_the_work(writer, assert_filled, tmp_path):
    both = [writer(), writer()]
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    assert_filled()
    assert not list((tmp_path / "cache").rglob("*.begun"))


def test_the_second_of_two_writers_takes_what_the_first_has_not(config_of, writer, tmp_path):
    """The shard at hand is waited for; the others are written meanwhile."""
    first, *others = plan(build_split(config_of(), "train").index)
    with claimed(first, tmp_path / "cache"):
        process = writer()
        deadline = time.monotonic() + 60
        while not all(describe(shard, tmp_path / "cache") for shard in others) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert all(describe(shard, tmp_path / "cache") for shard in others)
        assert process.is_alive()
        assert describe(first, tmp_path / "cache") is None
    process.join(60)
    assert process.exitcode == 0
    assert describe(first, tmp_path / "cache") is not None


def test_a_claim_is_exclusive_and_ends_with_its_context(tmp_path):
    shard = Shard("train", "town", 0, (0,))
    with claimed(shard, tmp_path) as mine:
        assert mine
        with claimed(shard, tmp_path) as second:
            assert not second
    with claimed(shard, tmp_path) as mine:
        assert mine


@pytest.mark.parametrize("keep_files", [True, False])
@pytest.mark.parametrize("reason", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_said_once(reason, keep_files, config_of, tmp_path, monkeypatch, caplog):
    def refuse(*_):
        raise OSError(reason, os.strerror(reason))

    monkeypatch.setattr(fcntl, "flock", refuse)
    config = config_of()
    if not keep_files:
        town = tiny_streets(str(tmp_path / "streets"), None, scenarios=ScenarioCounts(2, 0, 0), agents_max=2)
        config = replace(config, root=town.root, depth_root=None, town=town)
    asked = CacheConfig(cache_root=str(tmp_path / "cache"), splits=["train"], workers=1, keep_files=keep_files)
    assert "views in" in fill_cache(asked, config)
    (line,) = (record.message for record in caplog.records if "no locks" in record.message)
    assert line.startswith(f"{tmp_path / 'cache'}: the file system has no locks (flock); fill it with one command at a")


def test_the_plan_covers_every_frame_once(config_of, monkeypatch):
    index = build_split(config_of(), "train").index
    for size in (1, 2, 32):
        monkeypatch.setattr(shards, "FRAMES_PER_SHARD", size)
        frames = [frame for shard in plan(index) for frame in shard.frames]
        np.testing.assert_array_equal(frames, np.arange(len(index)))
        assert all(len(shard.frames) <= size for shard in plan(index))


def test_threads_may_meet_at_a_file_that_is_not_open_yet(tmp_path, monkeypatch):
    """As those that look at the cars of a split before a run; LMDB refuses to open a file twice in a process."""
    path, opened = tmp_path / "000.lmdb", lmdb.open
    with closing(RecordWriter(path)) as writer:
        writer.write({"a": b"content"})

    def slowly(*args, **options):
        time.sleep(0.05)
        file = opened(*args, **options)
        time.sleep(0.05)
        return file

    monkeypatch.setattr(lmdb, "open", slowly)
    with ThreadPoolExecutor(4) as pool:
        read = list(pool.map(lambda _: read_record(path, path.stat().st_size, "a"), range(4)))
    assert read == [b"content"] * 4


def test_records_that_were_committed_stay(tmp_path):
    path = tmp_path / "records.lmdb"

    def write_and_die() -> None:
        writer = RecordWriter(path)
        for i in range(5):
            writer.write({str(i): bytes(100_000)})
        os.kill(os.getpid(), signal.SIGKILL)

    process = FORK.Process(target=write_and_die)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    writer = RecordWriter(path)
    assert [writer.holds(str(i)) for i in range(6)] == [True] * 5 + [False]
    writer.write({"5": b"more"})
    writer.close()
    assert read_record(path, path.stat().st_size, "4") == bytes(100_000)
    assert read_record(path, path.stat().st_size, "5") == b"more"
    assert read_record(path, path.stat().st_size, "6") is None


@pytest.mark.parametrize(
    ("error", "free"), [(lmdb.DiskError("no space"), 1 << 40), (lmdb.Error("mdb_txn_commit: Input/output error"), 3)]
)
def test_a_full_disk_is_told_as_everywhere(error: lmdb.Error, free: int, tmp_path, monkeypatch):
    """LMDB calls it an I/O error where a write is cut short."""
    transaction = MagicMock()
    transaction.__enter__.return_value.put.side_effect = error
    transaction.__exit__.return_value = False
    writer = RecordWriter(tmp_path / "000.lmdb")
    monkeypatch.setattr(writer, "_file", SimpleNamespace(begin=lambda write: transaction))
    monkeypatch.setattr(records.shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    with pytest.raises(OSError, match=r"No space left on device: '.*000\.lmdb'$"):
        writer.write({"a": b"more"})
