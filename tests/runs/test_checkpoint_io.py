import errno
import os
import pickle
import resource
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from coopmap.cli.errors import user_errors_end_quietly
from coopmap.config import ConfigError
from coopmap.report.files import write_text
from coopmap.runs.checkpoint_io import IN_BACKGROUND, AtomicCheckpointIO, read_checkpoint
from coopmap.runs.snapshot import fits


def test_round_trip_and_no_leftovers(tmp_path: Path) -> None:
    file = tmp_path / "folder" / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"coopmap": {}, "weights": torch.arange(3)}, file)
    assert torch.equal(read_checkpoint(file)["weights"], torch.arange(3))
    assert [path.name for path in file.parent.iterdir()] == ["last.ckpt"]


def test_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"coopmap": {}, "step": 1}, file)

    def half(content: object, stream: object) -> None:
        stream.write(b"half")  # type: ignore[attr-defined]
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(OSError, match="disk full"):
        AtomicCheckpointIO().save_checkpoint({"coopmap": {}, "step": 2}, file)
    assert read_checkpoint(file)["step"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_file_that_is_too_large_for_its_place_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A checkpoint, whose writer in C++ names no reason, and a text, whose error names no file."""
    writers: dict[str, Callable[[Path], None]] = {
        "last.ckpt": lambda file: AtomicCheckpointIO().save_checkpoint({"weights": torch.zeros(1_000_000)}, file),
        "curves.html": lambda file: write_text("x" * 4_000_000, file),
    }
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
    try:
        for name, write in writers.items():
            with pytest.raises(SystemExit) as ended, user_errors_end_quietly():
                write(tmp_path / name)
            assert ended.value.code == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    reason = "File too large; larger than its file system or ulimit -f allows"
    assert capsys.readouterr().err == "".join(f"error: {tmp_path / name}: {reason}\n" for name in writers)
    assert not list(tmp_path.iterdir())


def test_target_appears_only_when_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, seen = tmp_path / "last.ckpt", []
    synchronize = os.fsync

    def fsync(descriptor: int) -> None:
        seen.append(file.exists())
        synchronize(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    AtomicCheckpointIO().save_checkpoint({"coopmap": {}}, file)
    assert seen == [False, True]  # content first, then the folder entry


def test_a_file_in_the_background_is_what_training_was_at(tmp_path: Path) -> None:
    writer, file = AtomicCheckpointIO(), tmp_path / "last.ckpt"
    weights, counts = torch.arange(1000.0), [1]
    parts = {"whole": weights, "half": weights[500:].view(50, 10).T, "counts": counts, "none": torch.empty(0)}
    writer.save_checkpoint({"coopmap": {}, **parts}, file, IN_BACKGROUND)
    weights.zero_()
    counts.append(2)
    writer.wait()
    found = read_checkpoint(file)
    assert torch.equal(found["whole"], torch.arange(1000.0))
    assert torch.equal(found["half"], torch.arange(500.0, 1000.0).view(50, 10).T)
    assert found["half"].untyped_storage().data_ptr() == found["whole"].untyped_storage().data_ptr()
    assert found["counts"] == [1]
    assert len(found["none"]) == 0


def test_files_are_written_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    save, may_end = torch.save, threading.Event()

    def slow(content: dict[str, object], stream: object) -> None:
        order.append(f"begin {content['step']}")
        assert may_end.wait(60)
        save(content, stream)  # type: ignore[arg-type]
        order.append(f"end {content['step']}")

    monkeypatch.setattr(torch, "save", slow)
    writer, file = AtomicCheckpointIO(), tmp_path / "last.ckpt"
    writer.save_checkpoint({"coopmap": {}, "step": 1}, file, IN_BACKGROUND)
    assert not file.exists()
    threading.Timer(0.05, may_end.set).start()
    writer.save_checkpoint({"coopmap": {}, "step": 2}, file, IN_BACKGROUND)
    assert writer.load_checkpoint(file)["step"] == 2
    assert order == ["begin 1", "end 1", "begin 2", "end 2"]


@pytest.mark.parametrize("then", ["save", "load", "teardown"])
def test_a_write_that_failed_in_the_background_is_told(
    then: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, file = AtomicCheckpointIO(), tmp_path / "last.ckpt"
    writer.save_checkpoint({"coopmap": {}, "step": 1}, file)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("coopmap.runs.seal.SealedStream._put_all", full)
        writer.save_checkpoint({"coopmap": {}, "step": 2}, file, IN_BACKGROUND)
        again = {
            "save": lambda: writer.save_checkpoint({"coopmap": {}, "step": 3}, file),
            "load": lambda: writer.load_checkpoint(file),
            "teardown": writer.teardown,
        }
        with pytest.raises(OSError, match=r"No space left on device: .*last\.ckpt"):
            again[then]()
    assert read_checkpoint(file)["step"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]


def test_without_memory_for_a_copy_it_is_written_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable: 7 kB\n")
    monkeypatch.setattr("coopmap.runs.snapshot.MEMORY", tmp_path / "meminfo")
    assert fits({"weights": torch.zeros(896)})
    assert not fits({"weights": torch.zeros(897)})
    monkeypatch.setattr("coopmap.runs.checkpoint_io.snapshot", None)
    AtomicCheckpointIO().save_checkpoint({"coopmap": {}, "weights": torch.zeros(897)}, tmp_path / "a", IN_BACKGROUND)
    assert len(read_checkpoint(tmp_path / "a")["weights"]) == 897


class Payload:
    def __reduce__(self) -> tuple[object, ...]:
        return os.system, ("touch executed",)


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "evil.ckpt"
    torch.save({"coopmap": {}, "payload": Payload()}, file)
    with pytest.raises(ConfigError, match=r"evil\.ckpt: cannot be read"):
        AtomicCheckpointIO().load_checkpoint(file, weights_only=False)
    file.write_bytes(pickle.dumps(Payload()))
    with pytest.raises(ConfigError, match=r"evil\.ckpt: cannot be read"):
        read_checkpoint(file)
    assert not (tmp_path / "executed").exists()


def test_missing_and_foreign_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no\.ckpt: there is no such checkpoint"):
        read_checkpoint(tmp_path / "no.ckpt")
    torch.save({"model": {}}, tmp_path / "other.ckpt")
    with pytest.raises(ConfigError, match=r"other\.ckpt: not a checkpoint of a coopmap run"):
        read_checkpoint(tmp_path / "other.ckpt")
