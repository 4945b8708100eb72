"""The GPUs that a plan is for: those of this machine, or what the configuration says of another."""

from __future__ import annotations

from dataclasses import dataclass, field

from coopmap.config import Config
from coopmap.config.machine import num_gpus
from coopmap.config.plan import PlanConfig
from coopmap.planning.memory import GIB

ASSUMED_GIB = 24.0


@dataclass(frozen=True)
class Gpus:
    """Number of GPUs, memory of the smallest, and what of it is assumed."""

    count: int
    gib: float
    assumed: list[str] = field(default_factory=list)


def gpus_for(config: Config, asked: PlanConfig) -> Gpus:
    """How many processes the configuration makes, and on what memory."""
    visible, assumed = num_gpus(), []
    devices, nodes = config.trainer.devices, int(config.trainer.num_nodes or 1)
    if isinstance(devices, list):
        count = len(devices)
    elif str(devices) in ("auto", "-1"):
        count = max(1, visible)
        if not visible:
            assumed.append("one GPU (trainer.devices=auto, and none is visible here)")
    else:
        count = int(devices)
    gib = asked.gpu_gib
    if gib is None and visible:
        import torch

        gib = min(torch.cuda.get_device_properties(index).total_memory for index in range(visible)) / GIB
    if gib is None:
        gib = ASSUMED_GIB
        assumed.append(f"GPUs of {gib:g} GiB (gpu_gib=)")
    return Gpus(nodes * count, gib, assumed)
