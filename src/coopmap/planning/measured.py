"""Real training steps beside their plan: time, share of peak arithmetic, peak memory (docs/measure_memory.py)."""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch

from coopmap.config import Config, ConfigError, load_config
from coopmap.config.plan import PlanConfig
from coopmap.planning.memory import GIB, Counter
from coopmap.planning.samples import FAR_M, Examples, small_town
from coopmap.report.numbers import fixed, significant
from coopmap.report.tables import Column, Table, names
from coopmap.runs.folder import RunFolder
from coopmap.training.run import run_training
from coopmap.training.strategies import num_processes

WARM_UP = 3
"""Steps before those that are measured: libraries choose kernels, the allocator grows."""
PEAK_TFLOPS = {"3090": 71.0, "A100": 312.0, "H100": 989.0, "H200": 989.0}
"""Dense bfloat16 products per second that data sheets promise, 10^12, by a part of the GPU's name."""

SWITCHES: dict[str, tuple[str, ...]] = {
    "as planned": (),
    "no checkpointing": tuple(f"model.checkpointing.{part}=false" for part in ("encoder", "info_sharing", "heads")),
    "heads checkpointed alone": ("model.checkpointing.encoder=false", "model.checkpointing.info_sharing=false"),
    "compiled blocks": ("model.compile=true",),
    "float32": ("trainer.precision=32-true",),
    "lora": ("optim/train=lora",),
    "heads alone": ("optim/train=heads",),
    "biases alone": ("optim/train=biases",),
    "4 agents": ("data.min_agents=4", "data.max_agents=4", "data.max_views_per_gpu=4"),
}
"""Changes of the base, each measured by itself; strategies are chosen on the command line, under torchrun."""


class StepClock(L.Callback):
    """Times steps, and reads the allocator's peak of those after the warm-up."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.peak_bytes: int | None = None
        self._began = 0.0

    def on_train_batch_start(self, trainer: L.Trainer, module: L.LightningModule, *_: Any) -> None:
        if trainer.global_step == WARM_UP and module.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(module.device)
        self._began = self._now(module)

    def on_train_batch_end(self, trainer: L.Trainer, module: L.LightningModule, *_: Any) -> None:
        if trainer.global_step > WARM_UP:
            self.seconds.append(self._now(module) - self._began)
        if module.device.type == "cuda":
            self.peak_bytes = torch.cuda.max_memory_allocated(module.device)

    def _now(self, module: L.LightningModule) -> float:
        if module.device.type == "cuda":
            torch.cuda.synchronize(module.device)
        return time.perf_counter()


def measured_table(
    base: Mapping[str, Sequence[str]],
    switches: Mapping[str, Sequence[str]] = SWITCHES,
    steps: int = 10,
    say: Callable[[str], None] = print,
) -> Table:
    """One row for each model and switch; a case that fails, for lack of memory for instance, says so.

    Args:
        base: overrides by the name of a model.
        switches: further overrides by name.
        steps: to measure, after the warm-up.
        say: receives progress messages.
    """
    rows = []
    with small_town(4) as town:
        for model, overrides in base.items():
            for switch, more in switches.items():
                row = {"case": f"{model}, {switch}", **measured(town, [*overrides, *more], steps)}
                say(" ".join(f"{name}={value}" for name, value in row.items()))
                rows.append(row)
    return Table.of_records("Measured steps", _columns(), rows)


def measured(town: Path, overrides: Sequence[str], steps: int) -> dict[str, Any]:
    """Figures of some steps on one sample: ``step_s``, ``mfu``, ``peak_gib``, ``planned_gib``, or ``failed``."""
    keys: dict[str, str] = {}
    for text in overrides:  # later ones take the place of earlier ones
        keys[text.partition("=")[0]] = text
    with tempfile.TemporaryDirectory() as folder:
        config = load_config([*keys.values(), *_short(town, folder, steps)])
        clock = StepClock()
        gc.collect()  # an earlier case's model, which refers to itself
        try:
            run_training(config, RunFolder(Path(config.run_dir)), [], [clock], time.monotonic())
        except (RuntimeError, ConfigError) as error:  # out of memory is a RuntimeError
            return {"failed": str(error).splitlines()[0][:60]}
    ranks = num_processes({"devices": config.trainer.devices, "num_nodes": config.trainer.num_nodes})
    counter = Counter(Examples(town), PlanConfig(workspace_gib=0.0, nccl_gib=0.0, fragmentation=0.0), ranks)
    agents = config.data.max_agents
    step_s = sorted(clock.seconds)[len(clock.seconds) // 2]
    flops = counter.step(config, agents, max(1, config.data.max_views_per_gpu // agents)).flops
    return {
        "step_s": step_s,
        "mfu": _share_of_peak(flops / step_s, config),
        "peak_gib": None if clock.peak_bytes is None else clock.peak_bytes / GIB,
        "planned_gib": counter.memory(config, agents).total / GIB,
    }


def _short(town: Path, folder: str, steps: int) -> list[str]:
    """Overrides: a few steps on the frame of a town, and nothing else."""
    return [
        f"data.root={town / 'data'}",
        f"data.depth_root={town / 'depth'}",
        "data.splits={train: validate}",
        "data.cache_dir=null",
        "data.num_workers=0",
        f"data.communication_range_m={FAR_M:g}",
        f"data.steps_per_epoch={WARM_UP + steps}",
        "trainer.max_epochs=1",
        "trainer.limit_val_batches=0",
        "callbacks.validate_at_start=false",
        "callbacks.live_frames=0",
        "callbacks.progress=none",
        "checkpoint.every_n_minutes=null",
        "logger=csv",
        f"run_dir={folder}/run",
    ]


def _share_of_peak(flops_per_s: float, config: Config) -> float | None:
    """Model FLOPs utilization, where the device and its precision are known."""
    if not torch.cuda.is_available() or str(config.trainer.precision) != "bf16-mixed":
        return None
    name = torch.cuda.get_device_name()
    peak = next((value for part, value in PEAK_TFLOPS.items() if part in name), None)
    return None if peak is None else flops_per_s / (1e12 * peak)


def _columns() -> list[Column]:
    return [
        names("model, setting", "case"),
        Column("step (s)", form=significant(3), key="step_s"),
        Column("MFU", form=fixed(2), key="mfu"),
        Column("peak (GiB)", form=fixed(2), key="peak_gib"),
        Column("planned (GiB)", form=fixed(2), key="planned_gib"),
        Column("failed", key="failed", align="left"),
    ]
