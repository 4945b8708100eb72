"""What hardware the program runs on, detected without importing torch."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from coopmap.config.checks import ConfigError


def num_gpus() -> int:
    """Number of NVIDIA GPUs that this process may use."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and visible.strip() in ("", "-1"):
        return 0
    present = _present_gpus()
    return min(present, len(visible.split(","))) if visible is not None else present


def _present_gpus() -> int:
    """GPUs of this machine, whether or not this process may use them."""
    return len(list(Path("/proc/driver/nvidia/gpus").glob("*"))) or _count_by_nvidia_smi()


def _count_by_nvidia_smi() -> int:
    """Query ``nvidia-smi``; needed where ``/proc`` does not list GPUs (WSL, some containers)."""
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


def check_gpus(machine: str, accelerator: Any, devices: Any, visible: int | None = None) -> None:
    """Compare the GPUs that a trainer is to use with those that are visible; imports and initializes nothing.

    Args:
        machine: as chosen, for the message.
        accelerator: of the trainer; nothing is checked unless it is named as a GPU.
        devices: of the trainer.
        visible: GPUs, if they were counted already, as by PyTorch, which may find none where the driver has some.

    Raises:
        ConfigError: there are too few; the message says what to set.
    """
    if str(accelerator) not in ("gpu", "cuda"):
        return
    visible = num_gpus() if visible is None else visible
    hidden_by = os.environ.get("CUDA_VISIBLE_DEVICES")
    note = "" if hidden_by is None else f" (CUDA_VISIBLE_DEVICES={hidden_by})"
    if visible == 0:
        raise ConfigError(f"machine={machine}: no CUDA GPU is visible; machine=laptop runs on the CPU{note}")
    wanted = _gpus_wanted(devices)
    if wanted > visible:
        raise ConfigError(
            f"machine={machine}: trainer.devices={devices} needs {wanted} GPUs, but {visible} "
            f"{'is' if visible == 1 else 'are'} visible{note}: set trainer.devices={visible}, or machine=gpu, which "
            f"takes all that are visible{', or let CUDA_VISIBLE_DEVICES name more' if note else ''}"
        )


def _gpus_wanted(devices: Any) -> int:
    """Smallest number of GPUs with which Lightning's ``devices`` can be met; ``auto`` and -1 take all available."""
    if isinstance(devices, str) and "," in devices:
        devices = [part for part in devices.split(",") if part.strip()]
    if isinstance(devices, (list, tuple)):
        return 1 + max((int(device) for device in devices), default=0)
    try:
        return max(1, int(devices))
    except (TypeError, ValueError):
        return 1
