"""Training checkpoints on disk: written atomically and sealed, verified, read without running code."""

from __future__ import annotations

import errno
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from coopmap.config.checks import ConfigError
from coopmap.report.files import replacing
from coopmap.runs.seal import SealedStream, remember_whole, verify
from coopmap.runs.snapshot import fits, snapshot

IN_BACKGROUND = "in the background"
"""``storage_options`` of a checkpoint that training need not wait for."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a temporary file, flushes it, then renames it: a killed job leaves the old file or the new one.

    One file at a time: whatever is still being written in the background is waited for before the next is written or
    any is read.
    """

    def __init__(self) -> None:
        self._pending: Future[None] | None = None

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint of tensors and plain containers.

        Args:
            checkpoint: what to write.
            path: the file.
            storage_options: :data:`IN_BACKGROUND`: return once the checkpoint is copied, if there is memory for that.

        Raises:
            OSError: it, or the one before that was written in the background, cannot be written, for instance because
                the disk is full; the old file stays.
        """
        self.wait()
        if storage_options != IN_BACKGROUND or not fits(checkpoint):
            write_sealed(checkpoint, Path(path))
            return
        thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending = thread.submit(write_sealed, snapshot(checkpoint), Path(path))
        thread.shutdown(wait=False)  # ends with its work; Python waits for it at the exit

    def wait(self) -> None:
        """Return when nothing is being written any more.

        Raises:
            OSError: what was written in the background could not be.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def teardown(self) -> None:
        """Leave nothing unfinished."""
        self.wait()

    def load_checkpoint(self, path: str | Path, map_location: Any = "cpu", weights_only: bool | None = True) -> Any:
        """Read a checkpoint; ``weights_only`` cannot be switched off."""
        self.wait()
        return read_checkpoint(path)


def write_sealed(content: dict[str, Any], file: Path) -> None:
    """Write tensors and plain containers atomically, with a checksum.

    Raises:
        OSError: it cannot be written, for instance because the disk is full, with the reason, which ``torch.save``
            leaves out, and the file's name; an old file stays.
    """
    with replacing(file) as temporary, temporary.open("wb") as opened:
        stream = SealedStream(opened)
        try:
            torch.save(content, stream)  # type: ignore[arg-type]  # it asks for write and flush alone
            stream.close()
        except Exception:
            if (reason := stream.error) is None:
                raise
            raise OSError(reason.errno or errno.EIO, reason.strerror, str(file)) from None
    remember_whole(file)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read one of our checkpoints on the CPU; executes no code from the file.

    Raises:
        ConfigError: the file is missing, damaged, unreadable, or not one of ours.
    """
    verify(path)
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"{path}: cannot be read as a checkpoint of tensors and plain values ({reason})") from error
    if not isinstance(checkpoint, dict) or "coopmap" not in checkpoint:
        raise ConfigError(f"{path}: not a checkpoint of a coopmap run (for weights alone use model.weights)")
    return checkpoint
