"""Options of the benchmarks; free of torch until one runs, so that help is quick."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coopmap.benchmarks.report import Report, check_output
from coopmap.config.checks import require, require_choice
from coopmap.config.groups import group_choices

if TYPE_CHECKING:
    import torch

DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = {"32-true": "float32", "bf16-mixed": "bfloat16"}
"""Names of PyTorch's types by Lightning's precisions."""

ARCHITECTURES = {"tiny": "mapanything_tiny", "v1": "mapanything_v1", "v11": "mapanything_v11"}
"""Choices of conf/model by short names."""

EVERY_TERM = "all"
"""The objective with every term switched on."""

FUSION_MODELS = {"tiny": ("machine=laptop", "preset=town"), "v1": ("machine=gpu", "model=mapanything_v1")}
"""Overrides that choose an architecture and the sizes of images that it is meant for."""


@dataclass
class BenchmarkOptions:
    """Options of every benchmark.

    Attributes:
        repeats: measurements, after one to warm up; the fastest counts.
        device: auto uses a GPU if there is one.
        threads: of the CPU; null leaves it to PyTorch.
        output: file for the results, ``.md`` or ``.json``.
    """

    repeats: int = 5
    device: str = "auto"
    threads: int | None = None
    output: str | None = None

    def __post_init__(self) -> None:
        require_choice("device", self.device, DEVICES)
        require(self.repeats > 0, "repeats", self.repeats, "at least 1")
        if self.output is not None:
            check_output(Path(self.output))

    def prepare(self) -> None:
        """Choose the device, and set the number of PyTorch's threads.

        Raises:
            ConfigError: a GPU is requested, and there is none.
        """
        import torch

        has_gpu = torch.cuda.is_available()
        require(self.device != "cuda" or has_gpu, "device", self.device, "a CUDA GPU, but none is visible")
        if self.device == "auto":
            self.device = "cuda" if has_gpu else "cpu"
        if self.threads is not None:
            torch.set_num_threads(self.threads)

    def show(self, report: Report) -> None:
        """Print a report, and write it if asked to."""
        report.print()
        if self.output is not None:
            report.write(Path(self.output).expanduser())
            print(f"written to {self.output}")


@dataclass
class PrecisionOptions(BenchmarkOptions):
    """Options of a benchmark that runs the model.

    Attributes:
        precision: of the computation, as Lightning names it.
    """

    precision: str = "32-true"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_choice("precision", self.precision, list(PRECISIONS))

    @property
    def dtype(self) -> torch.dtype:
        """The type that matrices are multiplied in."""
        import torch

        return getattr(torch, PRECISIONS[self.precision])

    def autocast(self) -> AbstractContextManager[Any]:
        """The context in which the model runs."""
        import torch

        return torch.autocast(self.device, self.dtype, enabled=self.precision != "32-true")


@dataclass
class ModelOptions(PrecisionOptions):
    """Options of ``coopmap bench model``.

    Attributes:
        model: which architectures; an empty list stands for tiny and v1, on a GPU v11 as well.
        views: panoramas per sample.
        height, width: pixels of a panorama; tiny is measured at 42 x 168 too.
        compile: with model.compile.
        whole: measure the whole model; false: single transformer blocks only, in seconds instead of minutes.
    """

    model: list[str] = field(default_factory=list)
    views: list[int] = field(default_factory=lambda: [2, 4])
    height: int = 252
    width: int = 1008
    repeats: int = 3
    compile: bool = False
    whole: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.model or ARCHITECTURES:
            require_choice("model", name, list(ARCHITECTURES))
        require(bool(self.views) and min(self.views, default=0) > 0, "views", self.views, "numbers above 0")

    def prepare(self) -> None:
        """Choose the device and what is measured on it."""
        super().prepare()
        self.model = self.model or (list(ARCHITECTURES) if self.device == "cuda" else ["tiny", "v1"])


@dataclass
class LossOptions(BenchmarkOptions):
    """Options of ``coopmap bench loss``.

    Attributes:
        loss: which objectives, choices of conf/loss; all has every term switched on.
        batch: samples.
        views: views per sample, measured in turn within each repetition; ratios are to the first.
        height, width: pixels of a view.
    """

    loss: list[str] = field(default_factory=lambda: ["overall", "pose_dense"])
    batch: int = 2
    views: list[int] = field(default_factory=lambda: [2, 4, 8])
    height: int = 252
    width: int = 1008

    def __post_init__(self) -> None:
        super().__post_init__()
        shipped = group_choices("loss")
        for name in self.loss:
            require_choice("loss", name, [*shipped, EVERY_TERM])
        require(bool(self.views) and min(self.views, default=0) > 0, "views", self.views, "numbers above 0")
        for name in ("batch", "height", "width"):
            require(getattr(self, name) > 0, name, getattr(self, name), "at least 1")


@dataclass
class TrainOptions(BenchmarkOptions):
    """Options of ``coopmap bench train``.

    Attributes:
        steps: measured, after three to warm up.
        trace: file for a trace of some of the steps (``.json``, for ``chrome://tracing`` or Perfetto).
    """

    steps: int = 20
    trace: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.steps > 0, "steps", self.steps, "at least 1")
        wanted = self.trace is None or self.trace.endswith(".json")
        require(wanted, "trace", self.trace, "a name that ends in .json")


@dataclass
class DataOptions(BenchmarkOptions):
    """Options of ``coopmap bench data``.

    Attributes:
        split: train, val or test.
        samples: for the rate of loader processes.
        step_s: seconds of a training step, for the number of loader processes that it takes.
        batch: samples per GPU and step.
        gpus: that are to be kept busy.
        memory_samples: samples over which the memory of a loader process is watched; 0 leaves it out.
        against: a git revision, whose costs are measured in turn with those of this one; null = the whole benchmark.
    """

    repeats: int = 10
    split: str = "train"
    samples: int = 40
    step_s: float = 1.0
    batch: int = 4
    gpus: int = 10
    memory_samples: int = 0
    against: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_choice("split", self.split, ("train", "val", "test"))
        require(self.samples > 1, "samples", self.samples, "at least 2")
        require(self.step_s > 0, "step_s", self.step_s, "a positive time")
        for name in ("batch", "gpus"):
            require(getattr(self, name) > 0, name, getattr(self, name), "at least 1")


@dataclass
class FusionOptions(PrecisionOptions):
    """Options of ``coopmap bench fusion``.

    Attributes:
        model: tiny at the sizes of the synthetic town, or v1 at full size.
        agents: agents per sample, 1 to 6.
    """

    model: str = "tiny"
    agents: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        require_choice("model", self.model, list(FUSION_MODELS))
        require(1 <= self.agents <= 6, "agents", self.agents, "1 to 6 cars")
