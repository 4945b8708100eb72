"""Options that benchmarks have in common, and how they are read from the command line."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from coopmap.benchmarks.report import Report, check_output
from coopmap.config.checks import ConfigError, require, require_choice

PRECISIONS = {"32-true": torch.float32, "bf16-mixed": torch.bfloat16}


@dataclass
class BenchmarkOptions:
    """Options of every benchmark.

    Attributes:
        repeats: measurements, of which the fastest counts.
        device: ``cpu`` or ``cuda``; ``auto`` becomes one of them.
        threads: of the CPU; ``None`` leaves it to PyTorch.
        output: file for the results, ``.md`` or ``.json``.
    """

    repeats: int = 5
    device: str = "auto"
    threads: int | None = None
    output: str | None = None

    def __post_init__(self) -> None:
        has_gpu = torch.cuda.is_available()
        require_choice("device", self.device, ("auto", "cpu", "cuda"))
        require(self.device != "cuda" or has_gpu, "device", self.device, "a CUDA GPU, and none is visible")
        if self.device == "auto":
            self.device = "cuda" if has_gpu else "cpu"
        require(self.repeats > 0, "repeats", self.repeats, "at least 1")
        if self.output is not None:
            check_output(Path(self.output))

    @classmethod
    def parse(cls, arguments: Sequence[str]) -> Self:
        """Read ``key=value`` arguments; a single value will do for a list.

        Raises:
            ConfigError: naming the argument.
        """
        schema = OmegaConf.structured(cls)
        given = OmegaConf.from_dotlist(list(arguments))
        for key in given:
            if key in schema and OmegaConf.is_list(schema[key]) and not OmegaConf.is_list(given[key]):
                given[key] = [given[key]]
        try:
            options = OmegaConf.to_object(OmegaConf.merge(schema, given))
        except OmegaConfBaseException as error:
            raise ConfigError(f"{str(error).splitlines()[0]} (--help lists the options)") from None
        assert isinstance(options, cls)
        return options

    def set_threads(self) -> None:
        """Have PyTorch use as many threads as asked for."""
        if self.threads is not None:
            torch.set_num_threads(self.threads)

    def show(self, report: Report) -> None:
        """Print a report, and write it if asked to."""
        report.print()
        if self.output is not None:
            report.write(Path(self.output))
            print(f"written to {self.output}")


@dataclass
class PrecisionOptions(BenchmarkOptions):
    """Options of a benchmark that runs the model.

    Attributes:
        precision: a key of :data:`PRECISIONS`.
    """

    precision: str = "32-true"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_choice("precision", self.precision, list(PRECISIONS))

    def autocast(self) -> AbstractContextManager[Any]:
        """The context in which the model runs."""
        return torch.autocast(self.device, PRECISIONS[self.precision], enabled=self.precision != "32-true")
