"""A driver that is asked instead of NVIDIA's."""

import os
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from coopmap.preflights import devices

GIB = 2**30


@dataclass
class FakeDriver:
    """Ten RTX 3090; ``held`` maps a GPU to processes and the GiB that they hold."""

    held: dict[int, dict[int, float | None]] = field(default_factory=dict)
    count: int = 10
    NVMLError = type("NVMLError", (Exception,), {})

    def nvmlDeviceGetCount(self) -> int:
        return self.count

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetUUID(self, handle: int) -> bytes:
        return f"GPU-{handle:04d}-aaaa".encode()

    def nvmlDeviceGetName(self, handle: int) -> str:
        return "NVIDIA GeForce RTX 3090"

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> SimpleNamespace:
        used = sum(size or 0 for size in self.held.get(handle, {}).values())
        return SimpleNamespace(total=24 * GIB, free=int((24 - used) * GIB))

    def nvmlDeviceGetComputeRunningProcesses(self, handle: int) -> list[SimpleNamespace]:
        return [
            SimpleNamespace(pid=pid, usedGpuMemory=None if size is None else int(size * GIB))
            for pid, size in self.held.get(handle, {}).items()
        ]

    def nvmlDeviceGetGraphicsRunningProcesses(self, handle: int) -> list[SimpleNamespace]:
        raise self.NVMLError("not supported")

    def nvmlSystemGetProcessName(self, pid: int) -> str:
        if pid != os.getpid():
            raise self.NVMLError("no permission")
        return "/opt/conda/bin/python train.py"


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> FakeDriver:
    fake = FakeDriver()
    monkeypatch.setattr(devices, "load_nvml", lambda: fake)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return fake
