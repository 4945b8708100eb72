"""Training checkpoints on disk: written atomically, read without running code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from coopmap.config.checks import ConfigError
from coopmap.report.files import replacing


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a temporary file, flushes it, then renames it: a killed job leaves the old file or the new one."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint of tensors and plain containers."""
        with replacing(Path(path)) as temporary, temporary.open("wb") as file:
            torch.save(checkpoint, file)

    def load_checkpoint(self, path: str | Path, map_location: Any = "cpu", weights_only: bool | None = True) -> Any:
        """Read a checkpoint; ``weights_only`` cannot be switched off."""
        return read_checkpoint(path)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read one of our checkpoints on the CPU; executes no code from the file.

    Raises:
        ConfigError: the file is missing, unreadable, or not one of ours.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such checkpoint") from None
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"{path}: cannot be read as a checkpoint of tensors and plain values ({reason})") from error
    if not isinstance(checkpoint, dict) or "coopmap" not in checkpoint:
        raise ConfigError(f"{path}: not a checkpoint of a coopmap run (for weights alone use model.weights)")
    return checkpoint
