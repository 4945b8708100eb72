"""AdamW whose averages are shared out over ranks (ZeRO stage 1, Rajbhandari et al., arXiv 1910.02054).

PyTorch's ``ZeroRedundancyOptimizer`` does the same around any optimizer, but a fused AdamW cannot continue from its
checkpoints (it restores step counts on the CPU) nor skip a step through it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch._utils import _flatten_dense_tensors, _unflatten_dense_tensors

from coopmap.training.shares import shares

AVERAGES = ("exp_avg", "exp_avg_sq")
BYTES_AT_ONCE = 32 * 2**20
"""Parameters are sent in pieces of about this size."""


class ShardedAdamW(torch.optim.AdamW):
    """Fused AdamW that updates this rank's share of the parameters and takes over the others' from the other ranks.

    All ranks must hold the same parameters and gradients, as under DDP. :meth:`state_dict` is that of an ordinary AdamW
    over all parameters; call :meth:`consolidate_state_dict` on all ranks first, as Lightning does.
    """

    def __init__(self, params: Any, **settings: Any) -> None:
        super().__init__(params, fused=True, **settings)
        self._parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        self._shares = shares([parameter.numel() for parameter in self._parameters], dist.get_world_size())
        self._rank = dist.get_rank()
        self._own = {id(self._parameters[index]) for index in self._shares[self._rank]}
        self._whole: dict[int, dict[str, Tensor]] | None = None

    def _init_group(self, group: dict[str, Any], *lists: Any) -> Any:
        """Have AdamW see the parameters of this rank alone."""
        own = [parameter for parameter in group["params"] if id(parameter) in self._own]
        return super()._init_group({**group, "params": own}, *lists)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Update this rank's share, then exchange."""
        loss = super().step(closure)
        for rank, indices in enumerate(self._shares):
            for piece in _pieces([self._parameters[index] for index in indices]):
                sent = _flatten_dense_tensors(piece)
                dist.broadcast(sent, src=rank)
                if rank != self._rank:
                    torch._foreach_copy_(piece, list(_unflatten_dense_tensors(sent, piece)))
        return loss

    @torch.no_grad()
    def consolidate_state_dict(self, to: int = 0) -> None:
        """Collect the state of all parameters on the CPU of one rank, parameter by parameter."""
        has_state = torch.tensor(float(bool(self.state)), device=self._parameters[0].device)
        dist.all_reduce(has_state, op=dist.ReduceOp.MAX)
        self._whole = {}
        if not has_state:
            return
        for rank, indices in enumerate(self._shares):
            for index in indices:
                state = self._sent(index, rank, to)
                if self._rank == to:
                    self._whole[index] = state

    def _sent(self, index: int, source: int, to: int) -> dict[str, Tensor]:
        """State of a parameter, on rank ``to`` (on the CPU) and its owner."""
        parameter = self._parameters[index]
        state = self.state[parameter] if self._rank == source else {}
        if source != to and self._rank == source:
            for value in state.values():
                dist.send(value, dst=to)
        elif source != to and self._rank == to:
            state = {"step": torch.zeros((), device=parameter.device)}
            state |= {name: torch.empty_like(parameter) for name in AVERAGES}
            for value in state.values():
                dist.recv(value, src=source)
        return {name: value.cpu() for name, value in state.items()} if self._rank == to else state

    def state_dict(self) -> dict[str, Any]:
        """That of an ordinary AdamW; once after :meth:`consolidate_state_dict`, on the rank that collected it."""
        if self._whole is None:
            raise RuntimeError("call consolidate_state_dict on all ranks first")
        whole, self._whole = dict(sorted(self._whole.items())), None
        return {**super().state_dict(), "state": whole}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep this rank's share of a whole state."""
        own = {index: state_dict["state"][index] for index in self._shares[self._rank] if index in state_dict["state"]}
        super().load_state_dict({**state_dict, "state": own})


def _pieces(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Tensors in lists of at least :data:`BYTES_AT_ONCE`, but for the last; each of one type."""
    by_type: dict[torch.dtype, list[Tensor]] = {}
    for tensor in tensors:
        by_type.setdefault(tensor.dtype, []).append(tensor)
    return chain.from_iterable(map(_cut, by_type.values()))


def _cut(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    piece: list[Tensor] = []
    for tensor in tensors:
        piece.append(tensor)
        if sum(each.nbytes for each in piece) >= BYTES_AT_ONCE:
            yield piece
            piece = []
    if piece:
        yield piece
