"""What ``coopmap plan`` is asked for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from coopmap.config.checks import require


@dataclass
class PlanConfig:
    """Keys of ``coopmap plan`` beside those of the configuration.

    Attributes:
        gpu_gib: memory of a GPU, GiB; null = of those that are here, else 24.
        held_gib: what others hold of it.
        workspace_gib: what a process takes besides tensors: CUDA's context, libraries, workspaces of their kernels.
        nccl_gib: buffers of NCCL, where there are several GPUs.
        fragmentation: share of the activations that the allocator cannot use.
        tflops: arithmetic that a GPU does per second in training, 10^12; null = 25 in bfloat16 and 12 in float32,
            about a third of what an RTX 3090 can.
        bus_gb_s: gradients that a GPU sends and receives per second, GB.
        step_s: measured seconds of an optimizer step, in place of both rates.
        val_frames: frames of the validation, where the data is not at hand; OPV2V has about 1,980.
        layouts: also count the other layouts of the data.
        switches: also count what other settings would save.
        output: file for the figures, ``.json``.
    """

    gpu_gib: float | None = None
    held_gib: float = 0.0
    workspace_gib: float = 1.0
    nccl_gib: float = 0.4
    fragmentation: float = 0.05
    tflops: float | None = None
    bus_gb_s: float = 6.0
    step_s: float | None = None
    val_frames: int = 1980
    layouts: bool = True
    switches: bool = True
    output: str | None = None

    def __post_init__(self) -> None:
        for name in ("gpu_gib", "tflops", "step_s"):
            value = getattr(self, name)
            require(value is None or 0 < value < math.inf, name, value, "a number above 0, or null")
        for name in ("held_gib", "workspace_gib", "nccl_gib", "fragmentation"):
            require(0 <= getattr(self, name) < math.inf, name, getattr(self, name), "a number of at least 0")
        require(0 < self.bus_gb_s < math.inf, "bus_gb_s", self.bus_gb_s, "a rate above 0")
        require(self.val_frames >= 1, "val_frames", self.val_frames, "at least 1")
        is_json = self.output is None or Path(self.output).suffix == ".json"
        require(is_json, "output", self.output, "a name that ends in .json")
