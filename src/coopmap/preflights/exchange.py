"""Whether the ranks hear one another: a timed all-reduce, and failures that all of them are told of."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed

from coopmap.config import ConfigError

MEGABYTES = {"cuda": 64, "cpu": 4}
LIMIT_S = 40.0
FAILED = "coopmap/preflight/failed"

SETTINGS = (
    (r"P2P|peer access|hipIpc|cudaIpc", "NCCL_P2P_DISABLE=1 (GPUs cannot reach each other's memory)"),
    (r"NET/IB|ibv_|[Ii]nfini[Bb]and|RoCE", "NCCL_IB_DISABLE=1 (its InfiniBand is not usable)"),
    (r"/dev/shm|shm_open|shared memory|No space left", "NCCL_SHM_DISABLE=1, or in a container --shm-size=16g"),
    (
        r"socket|Connection refused|timed? ?out|NET/Socket|[Ii]nterface|unreachable|resolve",
        "NCCL_SOCKET_IFNAME=<interface that reaches the other nodes, as `ip route` shows>",
    ),
)
"""What NCCL and gloo say, and the setting that helps."""


class ExchangeError(ConfigError):
    """Ranks cannot exchange gradients."""


@dataclass(frozen=True)
class Exchange:
    """A timed all-reduce.

    Attributes:
        size: bytes.
        seconds: that it took.
        ranks: that took part.
    """

    size: int
    seconds: float
    ranks: int

    @property
    def bandwidth(self) -> float:
        """Bytes per second over each rank's link: ``2 (n - 1) / n`` times the size goes through it, as nccl-tests count
        (https://github.com/NVIDIA/nccl-tests/blob/master/doc/PERFORMANCE.md).
        """
        return 2 * (self.ranks - 1) / self.ranks * self.size / self.seconds

    def __str__(self) -> str:
        return f"{self.size >> 20} MiB in {1000 * self.seconds:.1f} ms, {self.bandwidth / 1e9:.2f} GB/s"


def timed_all_reduce(
    device: torch.device, num_nodes: int, limit_s: float = LIMIT_S, reduce: Callable[[Tensor], Any] | None = None
) -> Exchange:
    """Sum a tensor over all ranks, twice: the first time sets up the links.

    Args:
        device: of this rank.
        num_nodes: of the run, for the advice.
        limit_s: how long it may take.
        reduce: in place of ``torch.distributed.all_reduce``.

    Raises:
        ExchangeError: it failed, did not end in time or gave another sum; names the setting that helps.
    """
    ranks = distributed.get_world_size()
    size = MEGABYTES.get(device.type, 4) << 20
    outcome: list[float | Exception] = []

    def attempt() -> None:
        try:
            outcome.append(_sum_twice(device, size, ranks, reduce or distributed.all_reduce))
        except RuntimeError as error:
            outcome.append(error)

    # in a thread: what hangs, hangs in the library, which hears no signal and knows no limit of this kind
    thread = threading.Thread(target=attempt, daemon=True, name="all-reduce")
    thread.start()
    thread.join(limit_s)
    found = outcome[0] if outcome else TimeoutError(f"not ended after {limit_s:g} s")
    if isinstance(found, Exception):
        with suppress(Exception):  # so that the end of this process does not wait for what hangs
            distributed.distributed_c10d._abort_process_group()
        raise ExchangeError(failure(str(found), ranks, num_nodes, device.type)) from found
    return Exchange(size, found, ranks)


def _sum_twice(device: torch.device, size: int, ranks: int, reduce: Callable[[Tensor], Any]) -> float:
    """Seconds of the second time."""
    if device.type == "cuda":
        torch.cuda.set_device(device)
    tensor = torch.empty(size // 4, device=device)
    seconds = 0.0
    for _ in range(2):
        tensor.fill_(1.0)
        _synchronize(device)
        began = time.perf_counter()
        reduce(tensor)
        _synchronize(device)
        seconds = time.perf_counter() - began
        if not bool((tensor == ranks).all()):
            raise RuntimeError("the sum over ranks is wrong, as between GPUs with broken P2P")
    return seconds


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def failure(error: str, ranks: int, num_nodes: int, device: str) -> str:
    """An error in one line, and what to try."""
    line = " ".join(error.split())[:300]
    text = f"all-reduce over {ranks} ranks failed: {line}"
    if device != "cuda":
        return f"{text}; GLOO_SOCKET_IFNAME=<interface that reaches the other ranks> chooses the network"
    settings = [setting for pattern, setting in SETTINGS if re.search(pattern, error)]
    if not settings or "not ended" in error:  # a hang names no cause: the usual ones, by where the ranks are
        settings = [SETTINGS[0][1]] if num_nodes == 1 else [SETTINGS[3][1], SETTINGS[1][1], SETTINGS[0][1]]
    return f"{text}; try, in this order: {'; '.join(settings)}. NCCL_DEBUG=INFO tells more"


def tell_others(message: str) -> None:
    """Leave word for ranks that wait for this one."""
    if distributed.is_initialized():
        with suppress(Exception):
            distributed.distributed_c10d._get_default_store().set(FAILED, message)


def heard(patience_s: float = 0.0) -> str | None:
    """What another rank has failed of, if any has."""
    if not distributed.is_initialized():
        return None
    with suppress(Exception):  # the rank that keeps the store has ended
        store = distributed.distributed_c10d._get_default_store()
        if patience_s:
            store.wait([FAILED], timedelta(seconds=patience_s))
        if store.check([FAILED]):
            return store.get(FAILED).decode()
    return None


def finish(device: torch.device) -> None:
    """Wait until the device has done everything, as long as no other rank has failed.

    Raises:
        ConfigError: one has; without it the device would wait for ever.
    """
    if device.type != "cuda":
        return
    event = torch.cuda.Event()
    event.record(torch.cuda.current_stream(device))
    while not event.query():
        if message := heard():
            raise ConfigError(message)
        time.sleep(0.002)
