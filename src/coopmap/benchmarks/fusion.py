"""A training step of every kind of camera fusion, compared with 4n camera views (``coopmap bench fusion``)."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode

from coopmap.benchmarks.floor import synchronize
from coopmap.benchmarks.model import available_bytes
from coopmap.benchmarks.options import FUSION_MODELS, FusionOptions
from coopmap.benchmarks.report import Report, table
from coopmap.config import Config, load_config
from coopmap.losses import build_loss
from coopmap.models import build_model
from coopmap.models.counting import WorkCounter, count_parameters, count_sample
from coopmap.planning.samples import first_example, small_town
from coopmap.training.adaptation import adapt
from coopmap.training.optim import build_optimizer
from coopmap.types import Observation, Target, TensorRecord

BASELINE = "four_camera"
VARIANTS = (
    BASELINE,
    "four_camera_rig",
    "cyl_posefix",
    "mosaic_posefix",
    "fusion_mean",
    "fusion_concat",
    "fusion_conv3d",
    "fusion_conv_gru",
    "fusion_cross_attention",
)
"""Experiments to measure."""

TIMED_STEPS = 3
"""Steps per round and variant, after one warm-up step."""

FIGURES = {
    "variant": "variant",
    "views": "views",
    "encoder_tokens": "encoder tokens",
    "multi_view_tokens": "multi-view tokens",
    "m_parameters": "params (M)",
    "gflop": "GFLOP",
    "forward_ms": "forward (ms)",
    "backward_ms": "backward (ms)",
    "optimizer_ms": "AdamW (ms)",
    "step_ms": "step (ms)",
    "peak_mb": "peak (MB)",
}
RATIOS = {
    key: FIGURES[key].partition(" (")[0]
    for key in ("variant", "encoder_tokens", "multi_view_tokens", "m_parameters", "gflop", "step_ms", "peak_mb")
}


def clock(device: str) -> float:
    """Seconds, after synchronizing the device."""
    synchronize(torch.device(device))
    return time.perf_counter() if device == "cuda" else time.process_time()


def variant_config(options: FusionOptions, overrides: Sequence[str], variant: str, town: Path) -> Config:
    """Configuration of an experiment on a town of these options."""
    return load_config(
        [
            *FUSION_MODELS[options.model],
            f"experiment={variant}",
            f"data.root={town / 'data'}",
            f"data.depth_root={town / 'depth'}",
            "data.cache_dir=null",
            "data.communication_range_m=1000",
            f"data.min_agents={options.agents}",
            f"data.max_agents={options.agents}",
            f"data.max_views_per_gpu={options.agents}",
            *overrides,
        ]
    )


@dataclass(frozen=True)
class Variant:
    """An experiment, and the single-sample batch that its steps use."""

    name: str
    config: Config
    observation: Observation
    target: Target

    @classmethod
    def load(cls, name: str, config: Config) -> Variant:
        """Read the first validation sample."""
        example = first_example(config)
        return cls(name, config, example.observation, example.target)

    def build_model(self, device: str) -> nn.Module:
        """The network, ready to be trained."""
        with torch.device(device):
            model = build_model(self.config)
        adapt(model, self.config.optim.train)
        return model.to(device)


class Step:
    """A training step of a variant."""

    def __init__(
        self, model: nn.Module, config: Config, observation: Observation, target: Target, options: FusionOptions
    ) -> None:
        self.model, self.observation, self.target, self.options = model, observation, target, options
        self.criterion = build_loss(config)
        self.optimizer = build_optimizer(model, config.optim)

    def __call__(self) -> tuple[float, float, float]:
        """Take it; seconds of forward pass and objective, of backward pass, and of the optimizer's update."""
        device = self.options.device
        self.optimizer.zero_grad()
        started = clock(device)
        with self.options.autocast():
            total, _ = self.criterion(self.model(self.observation), self.target)
        forward = clock(device)
        total.backward()
        backward = clock(device)
        self.optimizer.step()
        return forward - started, backward - forward, clock(device) - backward


def count(variant: Variant, options: FusionOptions) -> dict[str, Any]:
    """What does not vary from run to run, without computing anything."""
    model = variant.build_model(options.device)
    with options.autocast():
        facts = count_sample(model, variant.observation)
    return {
        "variant": variant.name,
        "views": facts["views"],
        "encoder_tokens": facts["encoder_tokens"],
        "multi_view_tokens": facts["multi_view_tokens"],
        "m_parameters": count_parameters(model)["parameters"] / 1e6,
        "gflop": facts["training_flops"] / 1e9,
        "peak_mb": count_peak_bytes(model, variant, options) / 1e6,
    }


def count_peak_bytes(model: nn.Module, variant: Variant, options: FusionOptions) -> int:
    """Peak memory of tensors in a step, optimizer state included."""
    mode = FakeTensorMode()
    with FakeCopyMode(mode):
        model = copy.deepcopy(model)
    records = [record.map(mode.from_tensor) for record in (variant.observation, variant.target)]
    with mode, WorkCounter() as counter:
        observation, target = (record.to(options.device) for record in records)
        assert isinstance(observation, Observation)
        assert isinstance(target, Target)
        step = Step(model, variant.config, observation, target, options)
        counter.forget_all()
        counter.watch(*model.parameters(), *model.buffers(), *_tensors(observation), *_tensors(target))
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
        step.optimizer.step()
        step()
        return counter.peak_bytes


def _tensors(record: TensorRecord) -> list[Tensor]:
    return [value for value in vars(record).values() if isinstance(value, Tensor)]


@dataclass
class Timing:
    """The fastest step so far, in seconds, and the allocator's peak in bytes (CUDA only)."""

    seconds: tuple[float, float, float] = (float("inf"),) * 3
    peak_bytes: int = 0

    def add_round(self, variant: Variant, options: FusionOptions) -> None:
        """Take some steps with a fresh model, the only one in memory."""
        observation, target = variant.observation.to(options.device), variant.target.to(options.device)
        step = Step(variant.build_model(options.device), variant.config, observation, target, options)
        step()
        if options.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        self.seconds = min(self.seconds, *(step() for _ in range(TIMED_STEPS)), key=sum)
        if options.device == "cuda":
            self.peak_bytes = max(self.peak_bytes, torch.cuda.max_memory_allocated())

    def columns(self) -> dict[str, float]:
        """Values of the columns that were measured."""
        names = ("forward_ms", "backward_ms", "optimizer_ms")
        milliseconds = dict(zip(names, (1e3 * seconds for seconds in self.seconds), strict=True))
        peak = {"peak_mb": self.peak_bytes / 1e6} if self.peak_bytes else {}
        return {**milliseconds, "step_ms": sum(milliseconds.values()), **peak}


def benchmark(options: FusionOptions, overrides: Sequence[str] = (), say: Callable[[str], None] = print) -> Report:
    """Measure all :data:`VARIANTS`, with overrides of their configurations; ``say`` receives progress messages."""
    options.prepare()
    with small_town(options.agents) as town:
        variants = [Variant.load(name, variant_config(options, overrides, name, town)) for name in VARIANTS]
    rows = {}
    for variant in variants:
        rows[variant.name] = count(variant, options)
        say(f"{variant.name}: {rows[variant.name]['gflop']:.3g} GFLOP, {rows[variant.name]['peak_mb']:.0f} MB")
    available = available_bytes(options.device)
    fitting = [each for each in variants if available is None or 1e6 * rows[each.name]["peak_mb"] < 0.9 * available]
    timings = {variant.name: Timing() for variant in fitting}
    for number in range(options.repeats):
        say(f"round {number + 1} of {options.repeats}")
        for variant in fitting:
            timings[variant.name].add_round(variant, options)
    for name, timing in timings.items():
        rows[name] |= timing.columns()
    figures = table("Training step", FIGURES, rows.values())
    ratios = table(f"Ratios to {BASELINE}", RATIOS, [ratios_to(rows[BASELINE], row) for row in rows.values()])
    notes = {"sample": describe_sample(variants, options), **describe(options, overrides)}
    if left_out := [variant.name for variant in variants if variant not in fitting]:
        notes["not timed: too large for the free memory"] = ", ".join(left_out)
    return Report(notes, [figures, ratios])


def ratios_to(baseline: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
    """A row of ratios."""
    numbers = [key for key in RATIOS if key != "variant" and key in row and key in baseline]
    return {"variant": row["variant"], **{key: row[key] / baseline[key] for key in numbers}}


def describe_sample(variants: Sequence[Variant], options: FusionOptions) -> str:
    """Sizes of the inputs."""
    data = variants[0].config.data
    return (
        f"{options.agents} cars; panoramas of {data.panorama.height} x {data.panorama.width}, "
        f"cameras of {data.cameras.height} x {data.cameras.width}, "
        f"in mosaics {data.mosaic.height} x {data.mosaic.width} pixels"
    )


def describe(options: FusionOptions, overrides: Sequence[str]) -> dict[str, str]:
    """Where and how it was measured."""
    name = torch.cuda.get_device_name() if options.device == "cuda" else f"CPU, {torch.get_num_threads()} thread(s)"
    settings = " ".join([f"model={options.model}", f"precision={options.precision}", *overrides])
    return {"device": f"{name}, PyTorch {torch.__version__}", "settings": settings}


def main(options: FusionOptions, overrides: Sequence[str]) -> None:
    """Command line."""
    options.show(benchmark(options, overrides))
