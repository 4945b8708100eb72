"""Roofline of a device: measured rates of large matrix multiplications and of copies."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

REPEATS = 3
"""Runs per probe; the fastest counts."""


def synchronize(device: torch.device) -> None:
    """Synchronize ``device``."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def best_seconds(run: Callable[[], object], device: torch.device) -> float:
    """Shortest of several runs, the one least disturbed by other load on the machine."""
    seconds = []
    for _ in range(REPEATS):
        synchronize(device)
        started = time.perf_counter()
        run()
        synchronize(device)
        seconds.append(time.perf_counter() - started)
    return min(seconds)


@dataclass
class Floor:
    """Rates of one device, best of the probes since :meth:`restart`.

    The load from other programs varies: restart before each measurement, and probe before and after each of its
    runs.

    Attributes:
        device: that is probed.
        dtype: of the matrices.
        flops_per_s: of a square matrix product; a multiply-add counts as two operations.
        bytes_per_s: bytes read plus bytes written by a copy larger than any cache.
        best_flops_per_s, best_bytes_per_s: over all probes.
    """

    device: torch.device
    dtype: torch.dtype = torch.float32
    flops_per_s: float = field(default=0.0, init=False)
    bytes_per_s: float = field(default=0.0, init=False)
    best_flops_per_s: float = field(default=0.0, init=False)
    best_bytes_per_s: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        size = 8192 if self.device.type == "cuda" else 2048
        self._left, self._right = (torch.randn(size, size, device=self.device, dtype=self.dtype) for _ in range(2))
        self._product = torch.empty_like(self._left)
        self._source = torch.zeros(1 << 28, dtype=torch.uint8, device=self.device)
        self._copy = torch.zeros_like(self._source)
        for _ in range(2):  # the first run warms up threads, kernels and clocks
            self.probe()

    def restart(self) -> None:
        """Discard measurements under an earlier load, and probe."""
        self.flops_per_s = self.bytes_per_s = 0.0
        self.probe()

    @torch.no_grad()
    def probe(self) -> None:
        """Measure both rates once more."""
        product_seconds = best_seconds(lambda: torch.mm(self._left, self._right, out=self._product), self.device)
        copy_seconds = best_seconds(lambda: self._copy.copy_(self._source), self.device)
        self.flops_per_s = max(self.flops_per_s, 2 * len(self._left) ** 3 / product_seconds)
        self.bytes_per_s = max(self.bytes_per_s, 2 * self._source.numel() / copy_seconds)
        self.best_flops_per_s = max(self.best_flops_per_s, self.flops_per_s)
        self.best_bytes_per_s = max(self.best_bytes_per_s, self.bytes_per_s)

    def seconds(self, flops: float, num_bytes: float) -> float:
        """Time for matrix products followed by everything else at the measured rates."""
        return flops / self.flops_per_s + num_bytes / self.bytes_per_s

    def describe(self) -> str:
        """The best rates in words."""
        dtype = str(self.dtype).removeprefix("torch.")
        return (
            f"{self.best_flops_per_s / 1e12:.3g} TFLOP/s ({dtype} {len(self._left)} x {len(self._left)} product), "
            f"{self.best_bytes_per_s / 1e9:.3g} GB/s (copy, read + written)"
        )
