"""Lightning's strategy for a configuration (docs/strategies.md)."""

from __future__ import annotations

import os
from typing import Any

import torch
from lightning.pytorch.strategies import DDPStrategy, Strategy
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook

from coopmap.config import ConfigError
from coopmap.config.run_id import sweep_suffix
from coopmap.config.strategy import StrategyConfig


class ReplicatedStrategy(DDPStrategy):
    """DDP in which every parameter gets a gradient in every step.

    Parameters that a configuration does not use do not exist in the model, and inputs that are absent are encoded with
    weight 0: nothing has to look for unused parameters.

    Args:
        cfg: buckets and compression.
        accumulate: batches per optimizer step.

    Attributes:
        shards_optimizer: whether each rank keeps the optimizer's state of its share alone.
    """

    def __init__(self, cfg: StrategyConfig, accumulate: int) -> None:
        super().__init__(
            broadcast_buffers=False,  # buffers never change, and ranks may validate different numbers of batches
            gradient_as_bucket_view=True,  # gradients are the buckets, not copies of them
            bucket_cap_mb=cfg.bucket_mb,
            static_graph=cfg.static_graph and accumulate == 1,
            ddp_comm_hook=bf16_compress_hook if cfg.compress_gradients else None,
        )
        self.shards_optimizer = cfg.name == "ddp_zero1"


def build_strategy(cfg: StrategyConfig, trainer: dict[str, Any]) -> Strategy | str:
    """The strategy, or Lightning's name of one.

    Args:
        cfg: what is asked for.
        trainer: arguments of Lightning's trainer; a ``strategy`` other than ``auto`` is a name of Lightning's own.

    Raises:
        ConfigError: one process is asked for and there are several, a sweep needs a launcher, or the precision does not
            go with it.
    """
    if trainer["strategy"] != "auto":
        return trainer["strategy"]
    processes = num_processes(trainer)
    if processes <= 1:
        return "auto"
    if cfg.name == "single":
        raise ConfigError(
            f"strategy=single is one process, but trainer.devices={trainer['devices']} makes {processes}: "
            "trainer.devices=1, or strategy=ddp, ddp_zero1 or fsdp"
        )
    if sweep_suffix() and "WORLD_SIZE" not in os.environ:
        raise ConfigError("a sweep on several devices needs torchrun --nproc-per-node N -m coopmap.train -m ...")
    if cfg.compress_gradients and trainer.get("accelerator") == "cpu":
        raise ConfigError("strategy.compress_gradients=true needs GPUs, whose NCCL sums bfloat16: leave it at false")
    if cfg.name != "fsdp":
        return ReplicatedStrategy(cfg, trainer.get("accumulate_grad_batches", 1))
    if trainer.get("precision") == "16-mixed":
        raise ConfigError("strategy=fsdp does not scale losses: trainer.precision=bf16-mixed or 32-true, not 16-mixed")
    from coopmap.training.fully_sharded import FullyShardedStrategy

    return FullyShardedStrategy(processes)


def num_processes(trainer: dict[str, Any]) -> int:
    """Processes on all machines together.

    Args:
        trainer: arguments of Lightning's trainer.
    """
    devices = trainer["devices"]
    if "WORLD_SIZE" in os.environ:
        return int(os.environ["WORLD_SIZE"])
    nodes = int(trainer.get("num_nodes") or 1)
    if isinstance(devices, list):
        return nodes * len(devices)
    if str(devices) in ("auto", "-1"):
        visible = torch.cuda.device_count() if trainer.get("accelerator") != "cpu" else 1
        return nodes * max(1, visible)
    return nodes * int(devices)
