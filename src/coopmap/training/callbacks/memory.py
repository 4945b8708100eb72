"""Memory that training takes."""

from __future__ import annotations

import multiprocessing
import resource
import sys
from pathlib import Path

import lightning as L
import torch

GB = 1e9
RSS_UNIT = 1 if sys.platform == "darwin" else 1024


class Memory(L.Callback):
    """Logs peaks since the last log: ``memory/device_gb`` (CUDA alone) and since the start: ``memory/host_gb``.

    And what loader processes hold now, ``memory/loaders_gb``: it is they that fill a host which runs full. Logged are
    those of rank 0; the counters are the allocator's and the kernel's own: reading them waits for nothing.
    """

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: object) -> None:
        """Log the peaks, at steps that are logged."""
        if trainer.global_step % trainer.log_every_n_steps:  # type: ignore[attr-defined]
            return
        figures = {"memory/host_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT / GB}
        if held := _held_by_children():
            figures["memory/loaders_gb"] = held / GB
        if pl_module.device.type == "cuda":
            figures["memory/device_gb"] = torch.cuda.max_memory_allocated(pl_module.device) / GB
            torch.cuda.reset_peak_memory_stats(pl_module.device)
        pl_module.log_dict(figures)


def _held_by_children() -> int:
    """Bytes that child processes hold, shared ones in equal parts; 0 without any, or where no kernel tells.

    Without pages of files, such as a cache of views: the kernel takes those back when it needs room.
    """
    return sum(_proportional_bytes(child.pid) for child in multiprocessing.active_children())


def _proportional_bytes(pid: int | None) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:  # it has just ended, or this is no Linux
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith(("Pss_Anon:", "Pss_Shmem:")))
