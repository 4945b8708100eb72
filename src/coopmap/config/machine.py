"""What hardware the program runs on; asked without importing torch."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path


def num_gpus() -> int:
    """Number of NVIDIA GPUs that this process may use."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and visible.strip() in ("", "-1"):
        return 0
    present = len(list(Path("/proc/driver/nvidia/gpus").glob("*"))) or _count_by_nvidia_smi()
    return min(present, len(visible.split(","))) if visible is not None else present


def _count_by_nvidia_smi() -> int:
    """Ask the driver's tool; needed where ``/proc`` does not list GPUs (WSL, some containers)."""
    if shutil.which("nvidia-smi") is None:
        return 0
    try:
        listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return 0
    return sum(line.startswith("GPU ") for line in listing.stdout.splitlines())


def detect_machine() -> str:
    """The choice that ``machine=auto`` stands for: ``gpu`` or ``laptop``."""
    return "gpu" if num_gpus() else "laptop"
