"""A copy of a checkpoint in the host's memory, which training may go on without."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

MEMORY = Path("/proc/meminfo")
MAX_SHARE = 0.5
"""Of the memory that is free, for a copy."""


def snapshot(content: Mapping[str, Any]) -> Any:
    """A copy that shares nothing with the original; tensors are on the CPU, and those that shared memory still do."""
    storages: dict[tuple[str, int], torch.UntypedStorage] = {}
    copies: dict[int, Any] = {}
    for tensor in _tensors(content):
        storage = tensor.untyped_storage()
        key = str(tensor.device), storage.data_ptr()
        if key not in storages:
            storages[key] = storage.clone() if tensor.device.type == "cpu" else storage.cpu()
        empty = torch.empty(0, dtype=tensor.dtype)
        copies[id(tensor)] = empty.set_(storages[key], tensor.storage_offset(), tensor.shape, tensor.stride())
    return copy.deepcopy(content, copies)


def fits(content: Mapping[str, Any]) -> bool:
    """Whether a copy takes at most half of the free memory; also where that is not known."""
    size = sum(
        {
            tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in _tensors(content)
        }.values()
    )
    try:
        lines = dict(line.split(":", 1) for line in MEMORY.read_text().splitlines())
        free = 1024 * int(lines["MemAvailable"].split()[0])
    except (OSError, KeyError, ValueError, IndexError):
        return True
    return size <= MAX_SHARE * free


def _tensors(node: Any) -> Iterator[Tensor]:
    """Plain tensors in containers; others are copied like any other value."""
    if type(node) in (Tensor, nn.Parameter) and node.layout == torch.strided and node.numel():
        yield node
    elif isinstance(node, Mapping):
        for value in node.values():
            yield from _tensors(value)
    elif isinstance(node, list | tuple):
        for value in node:
            yield from _tensors(value)
