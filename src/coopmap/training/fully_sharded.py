"""A model whose parameters, gradients and optimizer state are shared out over ranks (FSDP2, ``strategy=fsdp``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils._pytree import tree_map_only
from typing_extensions import override

from coopmap.models.heads import DPTFeature, DPTRegressor
from coopmap.models.layers import Block

UNITS = (Block, DPTFeature, DPTRegressor)
"""Modules whose parameters are gathered when they are called and let go after; all others stay gathered in a step."""


def shard(model: nn.Module, mesh: DeviceMesh) -> None:
    """Keep of each parameter this rank's rows alone; in place, once."""
    if is_sharded(model):
        return
    for module in model.modules():
        if isinstance(module, UNITS):
            fully_shard(module, mesh=mesh)
    fully_shard(model, mesh=mesh)


def is_sharded(model: nn.Module) -> bool:
    """Whether :func:`shard` was called."""
    return isinstance(model, FSDPModule)


def gathered(tree: Any, keep: bool) -> Any:
    """A tree with whole tensors in place of sharded ones, on the CPU; call it on all ranks.

    Args:
        tree: of tensors.
        keep: if false, take part but return an empty dictionary.
    """
    whole = tree_map_only(Tensor, _whole_if(keep), tree)
    return whole if keep else {}


def _whole_if(keep: bool) -> Callable[[Tensor], Tensor | None]:
    """One tensor at a time is whole on the device."""

    def whole(tensor: Tensor) -> Tensor | None:
        complete = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        return complete.detach().cpu() if keep else None

    return whole


def own_share(whole: Tensor, like: Tensor) -> Tensor:
    """What this rank keeps of a tensor that all ranks have."""
    if not isinstance(like, DTensor) or whole.shape != like.shape:
        return whole
    whole = whole.to(like.device, like.dtype)
    return distribute_tensor(whole, like.device_mesh, like.placements, src_data_rank=None)


class FullyShardedStrategy(ModelParallelStrategy):
    """FSDP2 whose checkpoints are those of every other strategy: one file of whole tensors, written by rank 0.

    So any number of ranks, one included, and any strategy can continue from it, and it is sealed and read like others.
    The whole model passes through the memory of rank 0's machine, a tensor at a time through that of its GPU.
    """

    def __init__(self, num_processes: int) -> None:
        super().__init__(data_parallel_size=num_processes, tensor_parallel_size=1, save_distributed_checkpoint=False)

    @property
    @override
    def restore_checkpoint_after_setup(self) -> bool:
        return False  # the optimizer's schedule asks for the loader, which must know its place by then

    @property
    @override
    def lightning_restore_optimizer(self) -> bool:
        return True

    @override
    def lightning_module_state_dict(self) -> dict[str, Any]:
        assert self.lightning_module is not None
        return gathered(self.lightning_module.state_dict(), keep=self.is_global_zero)

    @override
    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        if isinstance(optimizer, LightningOptimizer):
            optimizer = optimizer._optimizer
        return gathered(optimizer.state_dict(), keep=self.is_global_zero)

    @override
    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        return self.checkpoint_io.load_checkpoint(checkpoint_path)

    @override
    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        assert self.lightning_module is not None
        own = self.lightning_module.state_dict()
        state = {
            name: own_share(value, own[name]) if name in own else value
            for name, value in checkpoint["state_dict"].items()
        }
        self.lightning_module.load_state_dict(state, strict=strict)

    @override
    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        for optimizer, whole in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            state = {
                index: {name: own_share(value, parameters[index]) for name, value in values.items()}
                for index, values in whole["state"].items()
            }
            optimizer.load_state_dict({**whole, "state": state})
