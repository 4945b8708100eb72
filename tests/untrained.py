"""Checkpoints of models that were never trained."""

from pathlib import Path

import torch

from coopmap.config import Config
from coopmap.training.assembly import build_module


def write_checkpoint(run: Path, config: Config) -> Path:
    """The best checkpoint of a run so configured, as it would have it; its model is the same for the same seed."""
    torch.manual_seed(config.seed)
    module = build_module(config)
    file = run / "checkpoints" / "best.ckpt"
    file.parent.mkdir(parents=True)
    content = {"state_dict": module.state_dict(), "global_step": 3}
    module.on_save_checkpoint(content)
    torch.save(content, file)
    return file
