"""Memory that training takes."""

from __future__ import annotations

import resource
import sys

import lightning as L
import torch

GB = 1e9
RSS_UNIT = 1 if sys.platform == "darwin" else 1024


class Memory(L.Callback):
    """Logs peaks since the last log: ``memory/device_gb`` (CUDA alone) and since the start: ``memory/host_gb``.

    The counters are the allocator's and the kernel's own: reading them waits for nothing.
    """

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: object) -> None:
        """Log the peaks, at steps that are logged."""
        if trainer.global_step % trainer.log_every_n_steps:  # type: ignore[attr-defined]
            return
        figures = {"memory/host_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT / GB}
        if pl_module.device.type == "cuda":
            figures["memory/device_gb"] = torch.cuda.max_memory_allocated(pl_module.device) / GB
            torch.cuda.reset_peak_memory_stats(pl_module.device)
        pl_module.log_dict(figures)
