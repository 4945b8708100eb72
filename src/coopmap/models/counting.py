"""Counts the work of a program without doing it: matrix FLOPs, bytes of all other operations, peak tensor memory.

FLOPs are those of ``torch.utils.flop_counter``, which misses the fused attention of CPUs (its formulas are added here)
and does not count bytes and memory: hence :class:`WorkCounter`.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from coopmap.models.layers import Block
from coopmap.types import Observation

aten = torch.ops.aten


def flop_counter() -> FlopCounterMode:
    """PyTorch's counter, with the formulas that it lacks."""
    missing = {
        aten._scaled_dot_product_flash_attention_for_cpu: _attention,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    }
    return FlopCounterMode(display=False, custom_mapping=missing)


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query, key, value)


def _attention_backward(grad: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return sdpa_backward_flop_count(grad, query, key, value)


@dataclass(frozen=True)
class Work:
    """Amounts of work.

    Attributes:
        flops: of matrix products, convolutions and attention; a multiply-add counts as two. The
            backward pass of fused attention recomputes its scores, which counts.
        num_bytes: what all other operations read and write if each runs unfused.
    """

    flops: int = 0
    num_bytes: int = 0

    def __sub__(self, other: Work) -> Work:
        return Work(self.flops - other.flops, self.num_bytes - other.num_bytes)

    def __add__(self, other: Work) -> Work:
        return Work(self.flops + other.flops, self.num_bytes + other.num_bytes)


class WorkCounter(TorchDispatchMode):
    """Adds up :class:`Work` and tracks the memory of live tensors while active.

    Entered inside ``FakeTensorMode`` it counts models of any size in seconds: nothing is computed or allocated.
    Memory inside a kernel (workspaces) and overhead of the allocator are not included.

    Attributes:
        work: so far.
        live_bytes, peak_bytes: storages alive now, and at the peak. Earlier ones count after :meth:`watch`.
        attention: names of the attention operations that ran.
    """

    def __init__(self) -> None:
        super().__init__()
        self.work = Work()
        self.live_bytes = self.peak_bytes = 0
        self.attention: set[str] = set()
        self._formulas = flop_counter().flop_registry
        self._storages: dict[int, weakref.finalize] = {}

    def forget_all(self) -> None:
        """Restart memory tracking."""
        for finalizer in self._storages.values():
            finalizer.detach()
        self._storages.clear()
        self.live_bytes = self.peak_bytes = 0

    def watch(self, *tensors: Tensor) -> None:
        """Count the storages of ``tensors`` as long as they live."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            key = storage._cdata
            if key in self._storages:
                continue
            size = storage.nbytes()
            self._storages[key] = weakref.finalize(storage, self._forget, key, size)
            self.live_bytes += size
            self.peak_bytes = max(self.peak_bytes, self.live_bytes)

    def _forget(self, key: int, size: int) -> None:
        del self._storages[key]
        self.live_bytes -= size

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        results = list(_tensors(result))
        packet = func.overloadpacket
        if "attention" in str(packet):
            self.attention.add(str(packet))
        if packet in self._formulas:
            self.work += Work(flops=self._formulas[packet](*args, **kwargs, out_val=result))
        elif not _is_free(func, results, args):
            tensors = [*results, *_tensors((args, kwargs))]
            self.work += Work(num_bytes=sum(tensor.numel() * tensor.element_size() for tensor in tensors))
        self.watch(*results)
        return result


def count_parameters(model: nn.Module) -> dict[str, int]:
    """Parameters of a model: all, and those that are trained."""
    parameters = list(model.parameters())
    return {
        "parameters": sum(parameter.numel() for parameter in parameters),
        "trained_parameters": sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
    }


def count_sample(model: nn.Module, observation: Observation) -> dict[str, int]:
    """Tokens and FLOPs of one pass over a batch of one, in the model's present mode; nothing is computed.

    Where the model is: before a run moves it to a GPU, autocast for that GPU does not concern it.

    Returns:
        ``views``; ``encoder_tokens`` that pass the image encoder (class and register tokens included) and
        ``multi_view_tokens`` (patches that the views exchange); ``forward_flops``, and ``training_flops`` of forward
        and backward pass, recomputation under gradient checkpointing included. A multiply-add counts as two
        FLOPs.
    """
    tokens = {"encoder_tokens": 0, "multi_view_tokens": 0}

    def count(name: str, tensor: Tensor) -> None:
        tokens[name] += tensor[..., 0].numel()

    mode = FakeTensorMode()
    is_outline = any(parameter.is_meta for parameter in model.parameters())
    with FakeCopyMode(mode):
        model = copy.deepcopy(model)  # without what torch.compile attached
    observation = observation.map(mode.from_tensor)
    with mode, torch.random.fork_rng(devices=[]):
        if is_outline:
            hollow(model, "cpu")
        observation = observation.to(next(model.parameters()).device)
        first_block = next(module for module in model.get_submodule("encoder").modules() if isinstance(module, Block))
        exchange = model.get_submodule("info_sharing")
        hooks = [
            first_block.register_forward_pre_hook(lambda _, inputs: count("encoder_tokens", inputs[0])),
            exchange.register_forward_pre_hook(lambda _, inputs: count("multi_view_tokens", inputs[0])),
        ]
        with flop_counter() as counter, torch.enable_grad():
            prediction = model(observation)
            forward = counter.get_total_flops()
            for hook in hooks:  # checkpointing calls blocks again
                hook.remove()
            matches = {} if prediction.matches is None else vars(prediction.matches)
            outputs = [*vars(prediction).values(), *matches.values()]
            taught = [value.float().sum() for value in outputs if isinstance(value, Tensor) and value.requires_grad]
            if taught:
                torch.stack(taught).sum().backward()
    flops = {"forward_flops": forward, "training_flops": counter.get_total_flops()}
    return {"views": observation.images.shape[1], **tokens, **flops}


def outline(model: nn.Module) -> nn.Module:
    """A copy on the meta device, which knows the shapes of all tensors and what is trained: enough to count with."""
    empty = {id(each): torch.empty_like(each, device="meta") for each in model.buffers()}
    for parameter in model.parameters():
        shape = torch.empty_like(parameter, device="meta")
        empty[id(parameter)] = nn.Parameter(shape, requires_grad=parameter.requires_grad)
    return copy.deepcopy(model, empty)


def hollow(model: nn.Module, device: torch.device | str) -> None:
    """Give a model that was built on the meta device fake parameters and buffers on ``device``. Call it in

    ``FakeTensorMode``, in which initialization would fail because it reads random numbers.
    """
    for module in model.modules():
        for name, value in list(module.named_parameters(recurse=False)):
            empty = torch.empty(value.shape, dtype=value.dtype, device=device)
            setattr(module, name, nn.Parameter(empty, requires_grad=value.requires_grad))
        for name, buffer in list(module.named_buffers(recurse=False)):
            setattr(module, name, torch.empty(buffer.shape, dtype=buffer.dtype, device=device))


ALLOCATIONS = (aten.empty, aten.empty_like, aten.empty_strided, aten.new_empty, aten.new_empty_strided)


def _tensors(tree: Any) -> Iterator[Tensor]:
    return (leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))


def _is_free(func: Any, results: list[Tensor], args: Any) -> bool:
    """Whether an operation moves no data: it returns a view of its argument, or only allocates."""
    if func.overloadpacket in ALLOCATIONS:
        return True
    writes = any(
        argument.alias_info is not None and argument.alias_info.is_write for argument in func._schema.arguments
    )
    sources = {tensor.untyped_storage()._cdata for tensor in _tensors(args)}
    return not writes and all(tensor.untyped_storage()._cdata in sources for tensor in results)
