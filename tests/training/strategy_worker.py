"""Jobs that every rank of a group runs; see test_strategies.py. Call: strategy_worker.py FOLDER JOB..., each a JSON."""

import itertools
import json
import os
import sys
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from coopmap import load_config
from coopmap.config.strategy import StrategyConfig
from coopmap.models import build_model
from coopmap.train import train
from coopmap.training.callbacks import LastCheckpoint
from coopmap.training.skipping import Skipping
from coopmap.training.strategies import ReplicatedStrategy
from coopmap.types import Observation

KINDS = ("rays", "depth", "pose")


class Watcher(L.Callback):
    """Writes down places, samples and losses of micro-batches, norms of gradients, and bytes kept between steps.

    Args:
        loaded: file for the whole state at the start of training, in one process or another.
    """

    def __init__(self, loaded: Path | None = None) -> None:
        self.loaded = loaded
        self.losses: dict[int, float] = {}
        self.samples: dict[int, list[Any]] = {}
        self.norms: list[float] = []
        self.kept: dict[str, int] = {}

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if self.loaded is None:
            return
        model = trainer.strategy.lightning_module_state_dict()
        optimizer = trainer.strategy.optimizer_state(trainer.optimizers[0])
        if trainer.is_global_zero:
            torch.save({"model": model, "optimizer": optimizer["state"]}, self.loaded)

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, outputs: Any, batch: Any, index: int) -> None:
        place = trainer.datamodule.micro_batch(index)  # type: ignore[attr-defined]
        self.losses[place] = outputs["loss"].item() * trainer.accumulate_grad_batches
        self.samples[place] = [[meta.scenario, meta.frame, *meta.agents] for meta in batch.metas]

    def on_before_optimizer_step(self, trainer: L.Trainer, module: L.LightningModule, optimizer: Any) -> None:
        gradients = [parameter.grad for parameter in module.model.parameters() if parameter.grad is not None]
        self.kept["gradients"] = sum(map(local_bytes, gradients))
        norm = nn.utils.get_total_norm(gradients)
        self.norms.append((norm.full_tensor() if hasattr(norm, "full_tensor") else norm).item())

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        states = trainer.optimizers[0].state.values()
        self.kept["parameters"] = sum(map(local_bytes, module.model.parameters()))
        self.kept["optimizer"] = sum(local_bytes(value) for state in states for value in state.values())


def local_bytes(tensor: torch.Tensor) -> int:
    """Bytes of the part that this rank has."""
    return (tensor.to_local() if hasattr(tensor, "to_local") else tensor).nbytes


def train_job(folder: Path, name: str, overrides: list[str]) -> dict[str, Any]:
    """Train, and say what was watched."""
    watcher = Watcher(folder / f"{name}.loaded" if any(text.startswith("resume=") for text in overrides) else None)
    train(load_config(overrides), overrides, [watcher])
    return {"losses": watcher.losses, "samples": watcher.samples, "norms": watcher.norms, "kept": watcher.kept}


def skipped_job(folder: Path, name: str, overrides: list[str]) -> dict[str, Any]:
    """Train with the second step skipped."""
    judge, calls = Skipping.judge, []

    def judged(self: Skipping, norm: torch.Tensor) -> torch.Tensor:
        calls.append(norm)
        return judge(self, norm * torch.nan if len(calls) == 2 else norm)

    Skipping.judge = judged  # type: ignore[method-assign]
    try:
        return train_job(folder, name, overrides)
    finally:
        Skipping.judge = judge  # type: ignore[method-assign]


def timed_job(folder: Path, name: str, overrides: list[str]) -> dict[str, Any]:
    """Train with a clock that is late on rank 0 alone: when was saved, how often objects went from rank to rank."""
    found: dict[str, Any] = {"saved": [], "broadcasts": 0}
    broadcast = torch.distributed.broadcast_object_list
    if os.environ["RANK"] != "0":
        LastCheckpoint.is_late = property(lambda self: False)  # type: ignore[method-assign,assignment]

    def counted(*args: Any, **kwargs: Any) -> None:
        found["broadcasts"] += 1
        broadcast(*args, **kwargs)

    class Steps(L.Callback):
        def on_train_start(self, *_: Any) -> None:
            torch.distributed.broadcast_object_list = counted

        def on_save_checkpoint(self, trainer: L.Trainer, *_: Any) -> None:
            found["saved"].append(trainer.global_step)

        def on_train_end(self, *_: Any) -> None:
            torch.distributed.broadcast_object_list = broadcast

    train(load_config(overrides), overrides, [Steps()])
    return found


def observation_with(given: tuple[bool, ...], rank: int) -> Observation:
    """Two small panoramas with some of the inputs."""
    draw = torch.Generator().manual_seed(rank)
    rays = nn.functional.normalize(torch.randn(1, 2, 28, 112, 3, generator=draw), dim=-1)
    has_rays, has_depth, has_pose = given
    return Observation(
        images=torch.randn(1, 2, 3, 28, 112, generator=draw),
        rays=rays,
        rays_given=torch.full((1, 2), has_rays),
        depth_prior=1 + torch.rand(1, 2, 28, 112, generator=draw) if has_depth else None,
        pose_prior=torch.eye(4).expand(1, 2, 4, 4).contiguous() if has_pose else None,
    )


def inputs_job(folder: Path, name: str, overrides: list[str]) -> dict[str, Any]:
    """Backward passes with every combination of inputs, another one on each rank, with a static graph and without.

    Returns:
        Parameters that ever lacked a gradient.
    """
    config, rank = load_config(overrides), torch.distributed.get_rank()
    lacking: set[str] = set()
    for is_static in (True, False):
        strategy = ReplicatedStrategy(StrategyConfig("ddp", static_graph=is_static), accumulate=1)
        model = DistributedDataParallel(build_model(config).train(), **strategy._ddp_kwargs)
        combinations = list(itertools.product((True, False), repeat=len(KINDS)))
        for given in combinations if rank == 0 else reversed(combinations):
            model.zero_grad()
            prediction = model(observation_with(given, rank))
            outputs = (prediction.points_world, prediction.confidence, prediction.mask_logits, prediction.pose_quat)
            sum(output.mean() for output in outputs).backward()
            lacking |= {key for key, value in model.named_parameters() if value.grad is None}
    return {"lacking": sorted(lacking)}


JOBS = {"train": train_job, "inputs": inputs_job, "skipped": skipped_job, "timed": timed_job}

if __name__ == "__main__":
    torch.set_num_threads(1)
    for text in sys.argv[2:]:
        asked = json.loads(text)
        found = JOBS[asked["kind"]](Path(sys.argv[1]), asked["name"], asked["overrides"])
        rank = os.environ.get("RANK", "0")
        (Path(sys.argv[1]) / f"{asked['name']}.{rank}.json").write_text(json.dumps(found))
