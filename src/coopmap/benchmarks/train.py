"""Parts of a training step, beside its matrix products (``coopmap bench train``)."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from coopmap.benchmarks.floor import synchronize
from coopmap.benchmarks.options import TrainOptions
from coopmap.benchmarks.rendered import AGENTS, render_or_find
from coopmap.benchmarks.report import Report, table
from coopmap.config import Config
from coopmap.config.compose import load_config
from coopmap.models.compilation import compile_blocks
from coopmap.models.counting import flop_counter
from coopmap.training.assembly import build_datamodule, build_module
from coopmap.training.module import PoseLearner
from coopmap.training.optim import build_optimizer
from coopmap.types import Batch

PARTS = ("data", "to the device", "inputs", "forward", "objective", "backward", "clipping", "optimizer")
PRODUCTS = ("mm", "bmm", "addmm", "baddbmm", "convolution", "conv2d", "scaled_dot_product", "flash_attention")
COLUMNS = {"part": "part", "ms": "ms", "share": "% of step"}
WARM_UP, TRACED = 3, 4


def main(options: TrainOptions, overrides: Sequence[str] = ()) -> None:
    """Command line."""
    options.show(measure(options, overrides))


def measure(options: TrainOptions, overrides: Sequence[str] = ()) -> Report:
    """Times of the parts of a step, each the median of all steps, and of the matrix products in them.

    Without a GPU these are CPU times of this process, which other load on the machine disturbs little; those of loader
    processes are not among them. Products are timed in steps of their own, in turn with the others.
    """
    options.prepare()
    device = torch.device(options.device)
    named = [override for override in overrides if override.startswith("data.root=")]
    with render_or_find(named) as (data, source):
        places = [f"data.{key}={getattr(data, key)}" for key in ("root", "depth_root", "communication_range_m")]
        agents = [f"data.{key}={AGENTS}" for key in ("min_agents", "max_agents")]
        config = load_config(list(overrides) if named else [*agents, *overrides, *places])
        steps = _Steps(config, device)
        for _ in range(WARM_UP):
            steps.run()
        seconds, products = [], []
        for _ in range(options.steps):
            seconds.append(steps.run())
            products.append(_seconds_of_products(steps))
        if options.trace is not None:
            _trace(steps, options.trace)
    median = {part: statistics.median(each[part] for each in seconds) for part in PARTS}
    step, floor = sum(median.values()), statistics.median(products)
    rows = [{"part": part, "ms": 1e3 * value, "share": 100 * value / step} for part, value in median.items()]
    rows.append({"part": "step", "ms": 1e3 * step, "share": 100.0})
    rows.append({"part": "its matrix products", "ms": 1e3 * floor, "share": 100 * floor / step})
    rows.append({"part": "everything else", "ms": 1e3 * (step - floor), "share": 100 * (1 - floor / step)})
    on_gpu, threads = device.type == "cuda", torch.get_num_threads()
    name = torch.cuda.get_device_name(device) if on_gpu else f"CPU time of this process, {threads} threads"
    notes = {"device": name, "model": config.model.name, "data": source, "batch": steps.shape}
    return Report(notes, [table("Training step", COLUMNS, rows)])


class _Steps:
    """Training steps without Lightning, part by part."""

    def __init__(self, config: Config, device: torch.device) -> None:
        self.device, self.precision = device, str(config.trainer.precision or "32-true")
        self.data = build_datamodule(config)
        self.data.prepare_data()
        self.data.setup("fit")
        self.module: PoseLearner = build_module(config).to(device).train()
        assert isinstance(self.module.model, nn.Module)
        if config.model.compile:
            compile_blocks(self.module)
        self.optimizer = build_optimizer(self.module.model, config.optim)
        self.clip = config.trainer.gradient_clip_val or float("inf")
        self.shape, self._number = "", 0
        self.clock = time.perf_counter if device.type == "cuda" else time.process_time
        self._batches = self._endless()

    def _endless(self) -> Iterator[Batch]:
        while True:
            yield from self.data.train_dataloader()

    def run(self) -> dict[str, float]:
        """One step; seconds of its parts."""
        seconds: dict[str, float] = defaultdict(float)
        clock = _Laps(seconds, self.clock, self.device)
        module, self._number = self.module, self._number + 1
        batch = next(self._batches)
        clock.lap("data")
        moved: Any = self.data.on_after_batch_transfer(batch.to(self.device), 0)
        self.shape = " x ".join(map(str, moved.target.depth.shape))
        clock.lap("to the device")
        module.tie_random_numbers(self._number)
        observation, teaching = module.given(moved, self._number)
        clock.lap("inputs")
        reduced = self.precision.startswith("bf16")
        with torch.autocast(self.device.type, torch.bfloat16) if reduced else nullcontext():
            prediction = module(observation)
            clock.lap("forward")
            total, _ = module.criterion(prediction, moved.target, **teaching)
        clock.lap("objective")
        total.backward()
        clock.lap("backward")
        norm = nn.utils.clip_grad_norm_(module.model.parameters(), self.clip)  # type: ignore[union-attr]
        self.optimizer.found_inf = module.skipping.judge(norm).float()  # type: ignore[attr-defined]
        clock.lap("clipping")
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        clock.lap("optimizer")
        return seconds


class _Laps:
    def __init__(self, seconds: dict[str, float], clock: Callable[[], float], device: torch.device) -> None:
        self.seconds, self.clock, self.device, self.since = seconds, clock, device, clock()

    def lap(self, part: str) -> None:
        """Count the time since the last lap to a part."""
        synchronize(self.device)
        now = self.clock()
        self.seconds[part] += now - self.since
        self.since = now


class _Products(TorchDispatchMode):
    """Adds up the time of matrix products, convolutions and attention, forward and backward."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__()
        self.clock, self.seconds = clock, 0.0
        self._products = flop_counter().flop_registry

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        started = self.clock()
        result = func(*args, **(kwargs or {}))
        if func.overloadpacket in self._products:
            self.seconds += self.clock() - started
        return result


def _seconds_of_products(steps: _Steps) -> float:
    """Time of the matrix products of one more step: on a GPU that of their kernels, by PyTorch's profiler."""
    if steps.device.type != "cuda":
        with _Products(steps.clock) as products:
            steps.run()
        return products.seconds
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as recorded:
        steps.run()
    events = (event for event in recorded.key_averages() if any(word in event.key for word in PRODUCTS))
    return sum(event.self_device_time_total for event in events) / 1e6


def _trace(steps: _Steps, path: str) -> None:
    from torch.profiler import ProfilerActivity, profile

    on_gpu = steps.device.type == "cuda"
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]) as recorded:
        for _ in range(TRACED):
            steps.run()
    file = Path(path).expanduser()
    file.parent.mkdir(parents=True, exist_ok=True)
    recorded.export_chrome_trace(str(file))
