"""Damage of a checkpoint is seen, whatever bit it hits."""

import io
import os
import random
import zipfile
from pathlib import Path

import pytest
import torch

from coopmap.config import ConfigError
from coopmap.runs.checkpoint_io import AtomicCheckpointIO, read_checkpoint
from coopmap.runs.seal import MARK, damage, verify


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    file = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"coopmap": {}, "global_step": 1, "weights": torch.arange(40.0)}, file)
    return file


def test_every_bit_counts(checkpoint: Path) -> None:
    content = checkpoint.read_bytes()
    assert MARK in content[-40:]
    generator = random.Random(0)
    places = {
        *(generator.randrange(8 * len(content)) for _ in range(300)),
        *range(8 * len(content) - 400, 8 * len(content)),
    }
    for place in places:
        altered = bytearray(content)
        altered[place // 8] ^= 1 << place % 8
        checkpoint.write_bytes(altered)
        assert damage(checkpoint) is not None, place
    checkpoint.write_bytes(content)
    assert damage(checkpoint) is None


def test_cut_and_empty_files_are_named(checkpoint: Path) -> None:
    content = checkpoint.read_bytes()
    for length in (0, 1, 100, len(content) // 2, len(content) - 1):
        checkpoint.write_bytes(content[:length])
        with pytest.raises(ConfigError, match=r"last\.ckpt: cannot be read as a checkpoint: it (is|was) "):
            read_checkpoint(checkpoint)


def test_a_folder_a_pipe_and_a_dead_link_are_named(tmp_path: Path) -> None:

    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name in ("folder", "pipe", "link", "loop"):
        with pytest.raises(ConfigError, match=f"{name}: cannot be read"):
            verify(tmp_path / name)


def test_files_without_our_checksum_are_judged_by_those_of_zip(checkpoint: Path) -> None:
    torch.save({"coopmap": {}, "weights": torch.arange(40.0)}, checkpoint)
    assert damage(checkpoint) is None
    content = bytearray(checkpoint.read_bytes())
    place = content.index(torch.arange(40.0).numpy().tobytes())
    content[place] ^= 1
    checkpoint.write_bytes(content)
    assert "was altered" in str(damage(checkpoint))


def test_every_reader_of_zip_skips_the_checksum(checkpoint: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(checkpoint.read_bytes())) as archive:
        assert archive.testzip() is None
    assert torch.load(checkpoint, weights_only=True)["global_step"] == 1
