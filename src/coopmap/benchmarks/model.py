"""Time, FLOPs and memory of the model against the device's roofline (``coopmap bench model``)."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch._subclasses.fake_tensor import FakeTensorMode

from coopmap.benchmarks.floor import Floor, best_seconds, synchronize
from coopmap.benchmarks.options import ARCHITECTURES, ModelOptions
from coopmap.benchmarks.parts import FORWARD, block_inputs, run_pass
from coopmap.benchmarks.report import Report, table
from coopmap.config import conf_dir
from coopmap.config.model import CheckpointingConfig, ModelConfig
from coopmap.models import MapAnything
from coopmap.models.compilation import compile_blocks
from coopmap.models.counting import Work, WorkCounter, hollow
from coopmap.types import Observation

SHORTEST_SECONDS = 0.1
"""Blocks that are quicker than this are run several times per measurement."""


@dataclass(frozen=True)
class Case:
    """One thing to measure: an architecture, an input, a kind of pass."""

    model: str
    views: int
    height: int
    width: int
    backward: bool
    checkpointing: bool

    def config(self) -> ModelConfig:
        """Configuration of the model."""
        merged = OmegaConf.merge(
            OmegaConf.structured(ModelConfig),
            OmegaConf.load(conf_dir() / "model" / f"{ARCHITECTURES[self.model]}.yaml"),
        )
        config = OmegaConf.to_object(merged)
        assert isinstance(config, ModelConfig)
        parts = CheckpointingConfig(*[self.checkpointing] * 3)
        return replace(config, checkpointing=parts)

    def observation(self, device: str) -> Observation:
        """Random images."""
        images = torch.randn(1, self.views, 3, self.height, self.width, device=device)
        return Observation(images=images, rays=torch.zeros(1, self.views, self.height, self.width, 3, device=device))

    def describe(self) -> dict[str, Any]:
        """Values of the columns that identify it."""
        passes = "forward" if not self.backward else "+ backward, ckpt" if self.checkpointing else "+ backward"
        return {"case": f"{self.model}, {self.views} x {self.height} x {self.width}", "pass": passes}


def cases(options: ModelOptions) -> list[Case]:
    """What is measured: inference, and training with and without checkpointing."""
    kinds = [(False, False), (True, False), (True, True)]
    found = []
    for model in options.model:
        sizes = [(options.height, options.width)]
        if model == "tiny" and (42, 168) not in sizes:
            sizes.insert(0, (42, 168))
        found += [Case(model, views, *size, *kind) for size in sizes for views in options.views for kind in kinds]
    return found


@dataclass(frozen=True)
class Count:
    """Work per part, and peak memory of tensors in bytes: weights, gradients, activations."""

    parts: dict[str, Work]
    peak_bytes: int


def count(case: Case, options: ModelOptions) -> Count:
    """Count without computing, on fake tensors."""
    with torch.device("meta"):
        model = MapAnything(case.config())
    with FakeTensorMode(), WorkCounter() as counter:
        hollow(model, options.device)
        observation = case.observation(options.device)
        counter.forget_all()
        counter.watch(*model.parameters(), *model.buffers(), observation.images, observation.rays)
        with options.autocast():
            readings = run_pass(model, observation, case.backward, lambda: counter.work)
        return Count({part: end - begin for part, (begin, end) in readings.items()}, counter.peak_bytes)


def available_bytes(device: str) -> int | None:
    """Memory that a new tensor could have; ``None`` where the system does not say."""
    if device == "cuda":
        return torch.cuda.mem_get_info()[0]
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")), None)


def measure_passes(
    model: MapAnything, case: Case, options: ModelOptions, floor: Floor
) -> tuple[dict[str, float], float | None]:
    """Seconds per part in the fastest pass, and the allocator's peak in bytes (CUDA only)."""
    device = torch.device(options.device)
    observation = case.observation(options.device)

    def clock() -> float:
        synchronize(device)
        return time.perf_counter()

    passes = []
    floor.restart()
    for _ in range(options.repeats + (options.repeats > 1)):
        model.zero_grad()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        with options.autocast():
            readings = run_pass(model, observation, case.backward, clock)
        passes.append({part: end - begin for part, (begin, end) in readings.items()})
        floor.probe()
    model.zero_grad()
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else None
    return min(passes[options.repeats > 1 :], key=lambda parts: sum(parts.values())), peak


def case_rows(case: Case, counted: Count, seconds: dict[str, float], peak: float | None, floor: Floor) -> list[dict]:
    """One row for the whole pass and one for each part.

    With checkpointing, a part is recomputed when the gradient reaches it, and recomputation overlaps the boundary to
    the next part: single parts then have no time of their own.
    """
    config = case.config()
    num_tokens = case.views * (case.height // config.encoder.patch_size) * (case.width // config.encoder.patch_size)
    total = sum(counted.parts.values(), start=Work())
    rows = [
        {
            **case.describe(),
            "part": "all",
            **beside_floor(total, sum(seconds.values()), floor),
            "tokens_per_s": num_tokens / sum(seconds.values()),
            "peak_gb": counted.peak_bytes / 1e9,
            "allocator_gb": None if peak is None else peak / 1e9,
        }
    ]
    for part in FORWARD if not case.checkpointing else ():
        both = [name for name in (part, f"{part}, backward") if name in seconds]
        work = sum((counted.parts[name] for name in both), start=Work())
        row = beside_floor(work, sum(seconds[name] for name in both), floor)
        rows.append({**case.describe(), "part": part, **row})
    return rows


def beside_floor(work: Work, seconds: float, floor: Floor) -> dict[str, float]:
    """Columns that compare a measured time with the roofline."""
    matmul = floor.seconds(work.flops, 0)
    return {
        "gflop": work.flops / 1e9,
        "mb": work.num_bytes / 1e6,
        "matmul_ms": 1e3 * matmul,
        "copy_ms": 1e3 * floor.seconds(0, work.num_bytes),
        "ms": 1e3 * seconds,
        "matmul_percent": 100 * matmul / seconds,
    }


BLOCK_COLUMNS = {
    "case": "model, views",
    "pass": "pass",
    "part": "part",
    "gflop": "GFLOP",
    "mb": "MB",
    "matmul_ms": "matmul (ms)",
    "copy_ms": "copy (ms)",
    "ms": "measured (ms)",
    "matmul_percent": "% of matmul",
}
PASS_COLUMNS = {
    **BLOCK_COLUMNS,
    "tokens_per_s": "tokens/s",
    "peak_gb": "tensors (GB)",
    "allocator_gb": "allocator (GB)",
}


def block_rows(model: MapAnything, case: Case, options: ModelOptions, floor: Floor) -> list[dict]:
    """Times of single transformer blocks, one of each kind."""
    device = torch.device(options.device)
    rows = []
    for name, (block, shape) in block_inputs(model, case.observation("meta")).items():
        tokens = torch.randn(shape, device=device, requires_grad=case.backward)

        def run(block: Any = block, tokens: Any = tokens) -> None:
            with options.autocast(), torch.set_grad_enabled(case.backward):
                output = block(tokens)
            if case.backward:
                output.sum().backward()

        with WorkCounter() as counter:
            run()  # to warm up, too
        calls = max(1, int(SHORTEST_SECONDS / best_seconds(run, device)))
        seconds = []
        floor.restart()
        for _ in range(options.repeats):
            seconds.append(best_seconds(_times(calls, run), device) / calls)
            floor.probe()
        rows.append({**case.describe(), "part": name, **beside_floor(counter.work, min(seconds), floor)})
    model.zero_grad()
    return rows


def _times(calls: int, run: Callable[[], None]) -> Callable[[], None]:
    def repeated() -> None:
        for _ in range(calls):
            run()

    return repeated


def attention_kernels(model: MapAnything, case: Case, options: ModelOptions) -> list[str]:
    """Names of the attention operations that PyTorch chooses for a block, and on CUDA of the kernels that run."""
    block, shape = block_inputs(model, case.observation("meta"))["encoder block"]
    tokens = torch.randn(shape, device=options.device)
    with options.autocast(), torch.no_grad(), WorkCounter() as counter:
        block(tokens)
    names = sorted(counter.attention)
    if options.device == "cuda":
        from torch.profiler import ProfilerActivity, profile

        with options.autocast(), torch.no_grad(), profile(activities=[ProfilerActivity.CUDA]) as profiled:
            block(tokens)
            torch.cuda.synchronize()
        kernels = {event.key for event in profiled.key_averages()}
        names += sorted(key for key in kernels if any(word in key.lower() for word in ("flash", "fmha", "attention")))
    return names


def benchmark(options: ModelOptions, say: Callable[[str], None] = print) -> Report:
    """Measure all :func:`cases`; ``say`` receives progress messages."""
    options.prepare()
    floor = Floor(torch.device(options.device), options.dtype)
    report = Report()
    blocks: list[dict[str, Any]] = []
    passes: list[dict[str, Any]] = []
    built: tuple[ModelConfig, MapAnything] | None = None
    for case in cases(options):
        label = ", ".join(case.describe().values())
        config = case.config()
        if built is None or built[0] != config:
            built = None  # makes room first
            built = config, MapAnything(config).to(options.device)
            if options.compile:
                compile_blocks(built[1])
            report.notes.setdefault(f"attention of {case.model}", ", ".join(attention_kernels(built[1], case, options)))
        model = built[1]
        if not case.checkpointing:
            say(f"{label}: blocks")
            blocks += block_rows(model, case, options, floor)
        if not options.whole:
            continue
        counted = count(case, options)
        available, weights = available_bytes(options.device), sum(p.nbytes for p in model.parameters())
        if available is not None and counted.peak_bytes - weights > 0.9 * available:
            say(f"{label}: left out, needs {counted.peak_bytes / 1e9:.1f} GB, {available / 1e9:.1f} GB are free")
            passes.append({**case.describe(), "part": "left out", "peak_gb": counted.peak_bytes / 1e9})
            continue
        say(f"{label}: whole model")
        rows = case_rows(case, counted, *measure_passes(model, case, options, floor), floor)
        say(f"    {rows[0]['ms'] / 1e3:.3g} s, {rows[0]['matmul_percent']:.0f} % of the matmul rate")
        passes += rows
    report.tables.append(table("Transformer blocks", BLOCK_COLUMNS, blocks))
    if options.whole:
        report.tables.append(table("Whole model", PASS_COLUMNS, passes))
    report.notes |= {"device": describe_device(options), "precision": options.precision, "rates": floor.describe()}
    return report


def describe_device(options: ModelOptions) -> str:
    """The device and the version of PyTorch."""
    name = torch.cuda.get_device_name() if options.device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    return f"{name}, PyTorch {torch.__version__}" + (", compiled blocks" if options.compile else "")


def main(options: ModelOptions) -> None:
    """Command line."""
    options.show(benchmark(options))
