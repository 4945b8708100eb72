"""Memory of the GPUs of this machine, and who holds it, from the driver (NVML); CUDA is not touched."""

from __future__ import annotations

import os
import pwd
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coopmap.preflights.findings import gib


class NoDriverError(RuntimeError):
    """There is no NVIDIA driver to ask."""


@dataclass(frozen=True)
class Holder:
    """A process that holds memory of a device.

    Attributes:
        pid: as the driver knows it.
        name: of its program.
        user: whose it is; ``None`` if it cannot be told, as from within a container.
        size: bytes; ``None`` if the driver does not tell.
    """

    pid: int
    name: str
    user: str | None
    size: int | None

    def __str__(self) -> str:
        size = "an unknown amount" if self.size is None else f"{gib(self.size)} GiB"
        return f"{self.name} ({self.user or 'unknown user'}, pid {self.pid}) holds {size}"


@dataclass(frozen=True)
class Device:
    """A GPU.

    Attributes:
        index: as this process counts.
        physical: as the driver counts, and ``nvidia-smi``.
        name: of the product.
        total, free: bytes.
        holders: the largest first.
    """

    index: int
    physical: int
    name: str
    total: int
    free: int
    holders: tuple[Holder, ...] = ()

    @property
    def memory(self) -> str:
        """In words."""
        return f"{gib(self.free)} of {gib(self.total)} GiB free"

    @property
    def held(self) -> str:
        """Who holds how much, in words."""
        return "; ".join(map(str, self.holders))


def load_nvml() -> Any:
    """The driver's library, initialized.

    Raises:
        NoDriverError: there is none.
    """
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise NoDriverError(str(error)) from None
    return pynvml


def read_devices() -> list[Device]:
    """All devices that this process may use, in the order of ``CUDA_VISIBLE_DEVICES``.

    Raises:
        NoDriverError: there is no NVIDIA driver to ask.
    """
    nvml = load_nvml()
    handles = [nvml.nvmlDeviceGetHandleByIndex(number) for number in range(nvml.nvmlDeviceGetCount())]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    chosen = _visible(visible, [_text(nvml.nvmlDeviceGetUUID(handle)) for handle in handles])
    return [_device(nvml, handles[physical], index, physical) for index, physical in enumerate(chosen)]


def _visible(listed: str | None, uuids: Sequence[str]) -> list[int]:
    """Physical numbers that ``CUDA_VISIBLE_DEVICES`` names, up to the first that does not exist, as CUDA reads it."""
    if listed is None:
        return list(range(len(uuids)))
    found = []
    for word in map(str.strip, listed.split(",")):
        matching = [place for place, uuid in enumerate(uuids) if word and uuid.startswith(word)]
        if word.isdecimal() and int(word) < len(uuids):
            found.append(int(word))
        elif len(matching) == 1:
            found += matching
        else:
            break
    return found


def _device(nvml: Any, handle: Any, index: int, physical: int) -> Device:
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    processes: dict[int, Any] = {}
    for query in (nvml.nvmlDeviceGetComputeRunningProcesses, nvml.nvmlDeviceGetGraphicsRunningProcesses):
        with suppress(nvml.NVMLError):
            processes |= {process.pid: process for process in query(handle)}
    holders = [_holder(nvml, pid, process.usedGpuMemory) for pid, process in processes.items()]
    holders.sort(key=lambda holder: -(holder.size or 0))
    name = _text(nvml.nvmlDeviceGetName(handle))
    return Device(index, physical, name, memory.total, memory.free, tuple(holders))


def _holder(nvml: Any, pid: int, size: int | None) -> Holder:
    name, user = "a process", None
    with suppress(nvml.NVMLError):
        name = Path(_text(nvml.nvmlSystemGetProcessName(pid)).split(" ")[0]).name or name
    with suppress(OSError, KeyError):
        user = pwd.getpwuid(Path(f"/proc/{pid}").stat().st_uid).pw_name
    return Holder(pid, name, user, size)


def _text(value: str | bytes) -> str:
    """Older versions of the library give bytes."""
    return value.decode() if isinstance(value, bytes) else value
