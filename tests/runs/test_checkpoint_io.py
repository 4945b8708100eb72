import os
import pickle
from pathlib import Path

import pytest
import torch

from coopmap.config import ConfigError
from coopmap.runs.checkpoint_io import AtomicCheckpointIO, read_checkpoint


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


def test_target_appears_only_when_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, seen = tmp_path / "last.ckpt", []
    synchronize = os.fsync

    def fsync(descriptor: int) -> None:
        seen.append(file.exists())
        synchronize(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    AtomicCheckpointIO().save_checkpoint({"coopmap": {}}, file)
    assert seen == [False, True]  # content first, then the folder entry


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
