"""Sums over pixels, computed block by block together with their gradients.

Maps of a batch do not fit into a CPU's caches: an operation on a whole map waits for memory, and an objective of a few
hundred operations waits for it a few hundred times. Here every operation of a term runs on a block of rows before the
next block is touched. Gradients are computed with the values, while everything is at hand, and kept for the backward
pass, which only scales them: nothing else of a term lives on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCK_PIXELS = {"cpu": 1 << 16, "cuda": 1 << 22}
"""Pixels of a block: of one CPU thread few enough for its cache, and enough that the calls do not count; on a GPU for
few kernel launches."""

_as_on: ContextVar[str | None] = ContextVar("_as_on", default=None)

RowFunction = Callable[..., Tensor | tuple[Tensor, ...]]
"""Takes the same rows of all tensors; returns the sum of each row. Further sums that it returns carry no gradient."""


@contextmanager
def blocks_as_on(device_type: str) -> Iterator[None]:
    """Within it, blocks are as large as on a device of another kind: for who counts its memory elsewhere."""
    token = _as_on.set(device_type)
    try:
        yield
    finally:
        _as_on.reset(token)


def sum_rows(
    function: RowFunction,
    maps: Sequence[Float[Tensor, "b v h w *c"]],
    of_views: Sequence[Float[Tensor, "b v"]] = (),
    where: Bool[Tensor, "b v h w"] | None = None,
    halo: int = 0,
    whole_views: bool = False,
) -> tuple[Float[Tensor, "b v"], ...]:
    """Sums over the pixels of each view of what ``function`` returns for their rows.

    Args:
        function: of a block, differentiable: of the rows ``(n, w, *c)`` of maps and ``(n,)`` of values of views.
        maps: its first arguments.
        of_views: its other arguments.
        where: blocks without such a pixel add nothing, and are left out where that is known without waiting.
        halo: rows after its own that a block of maps has as well; at the end of the batch there are none, and the
            function returns fewer sums.
        whole_views: blocks hold no part of a view.
    """
    return _Blockwise.apply(function, len(maps), where, halo, whole_views, *maps, *of_views)


def map_rows(
    function: Callable[..., Tensor],
    maps: Sequence[Float[Tensor, "b v h w *c"]],
    of_views: Sequence[Float[Tensor, "b v"]] = (),
) -> Float[Tensor, "b v h w"]:
    """Values of every pixel, without gradient."""
    shape = maps[0].shape[:4]
    rows = _rows(maps, of_views)
    values = rows[0].new_empty(shape).flatten(0, 2)
    with torch.no_grad():
        for block in _blocks(values, 1):
            values[block] = function(*(tensor[block] for tensor in rows))
    return values.view(shape)


class _Blockwise(torch.autograd.Function):
    """See :func:`sum_rows`."""

    @staticmethod
    def forward(
        ctx: Any,
        function: RowFunction,
        num_maps: int,
        where: Tensor | None,
        halo: int,
        whole_views: bool,
        *tensors: Tensor,
    ) -> tuple[Tensor, ...]:
        wanted = ctx.needs_input_grad[5:]
        ctx.num_maps, ctx.shape = num_maps, tensors[0].shape[:3]
        rows = _rows(tensors[:num_maps], tensors[num_maps:])
        active = None if where is None else where.flatten(0, 2)
        gradients = [torch.zeros_like(tensor) if want else None for tensor, want in zip(rows, wanted, strict=True)]
        sums: list[Tensor] = []
        for block in _blocks(rows[0], ctx.shape[2] if whole_views else 1):
            if active is not None and sums and _is_known_empty(active[block]):
                continue
            reach = slice(block.start, block.stop + halo)
            ranges = [reach if index < num_maps else block for index in range(len(rows))]
            found = _with_gradients(function, rows, ranges, gradients)
            sums = sums or [value.new_zeros(len(rows[0])) for value in found]
            for total, value in zip(sums, found, strict=True):
                total[block.start : block.start + len(value)] = value
        ctx.save_for_backward(*gradients)
        per_view = tuple(total.view(ctx.shape).sum(-1) for total in sums)
        ctx.mark_non_differentiable(*per_view[1:])
        return per_view

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, factor: Float[Tensor, "b v"], *_: Tensor) -> tuple[Tensor | None, ...]:
        per_row = factor[:, :, None].expand(ctx.shape).flatten()
        found: list[Tensor | None] = []
        for index, rows in enumerate(ctx.saved_tensors):
            if rows is None:
                found.append(None)
                continue
            scaled = (rows * per_row.view(-1, *[1] * (rows.ndim - 1))).unflatten(0, ctx.shape)
            found.append(scaled if index < ctx.num_maps else scaled.sum(dim=2))
        return None, None, None, None, None, *found


def _rows(maps: Sequence[Tensor], of_views: Sequence[Tensor]) -> list[Tensor]:
    """Rows of all views one after another; values of views are repeated for each of their rows."""
    shape = maps[0].shape[:3]
    repeated = [value.detach()[:, :, None].expand(shape).flatten() for value in of_views]
    return [*(each.detach().flatten(0, 2) for each in maps), *repeated]


def _with_gradients(
    function: RowFunction, rows: Sequence[Tensor], ranges: Sequence[slice], gradients: Sequence[Tensor | None]
) -> tuple[Tensor, ...]:
    """Call the function with a block, and add the gradients of its first result to those of all rows."""
    leaves = [
        tensor[part].detach().requires_grad_(total is not None)
        for tensor, part, total in zip(rows, ranges, gradients, strict=True)
    ]
    wanted = [leaf for leaf in leaves if leaf.requires_grad]
    with torch.set_grad_enabled(bool(wanted)):
        found = function(*leaves)
    found = found if isinstance(found, tuple) else (found,)
    if wanted and found[0].requires_grad:
        each = iter(torch.autograd.grad(found[0], wanted, torch.ones_like(found[0]), allow_unused=True))
        for total, part in zip(gradients, ranges, strict=True):
            if total is not None and (gradient := next(each)) is not None:
                total[part] += gradient
    return tuple(value.detach() for value in found)


def _blocks(rows: Tensor, multiple: int) -> Iterator[slice]:
    """Ranges of rows, each a multiple of so many."""
    device_type = _as_on.get() or rows.device.type
    pixels = BLOCK_PIXELS.get(device_type, 1 << 22)
    if device_type == "cpu":
        pixels *= torch.get_num_threads()
    step = max(1, pixels // (multiple * rows.shape[1])) * multiple
    for start in range(0, len(rows), step):
        yield slice(start, min(start + step, len(rows)))


def _is_known_empty(mask: Tensor) -> bool:
    """Whether nothing is in the mask, as far as that is known without waiting: in the memory of a CPU."""
    return type(mask) is Tensor and mask.device.type == "cpu" and not mask.numpy().any()


def planes(vectors: Float[Tensor, "n w c"], unit: Float[Tensor, " n"] | None = None) -> Float[Tensor, "c n w"]:
    """A copy with the coordinates first, divided by a unit of each row.

    Operations on whole planes are several times faster than on a last dimension of three.
    """
    copy = torch.empty(vectors.shape[-1:] + vectors.shape[:-1], dtype=vectors.dtype, device=vectors.device)
    copy.copy_(vectors.movedim(-1, 0))
    return copy if unit is None else copy.div_(unit[:, None])


def dot(a: Float[Tensor, "c *n"], b: Float[Tensor, "c *n"]) -> Float[Tensor, "*n"]:
    """Dot products over the first dimension."""
    total = a[0] * b[0]
    for x, y in zip(a[1:], b[1:], strict=True):
        total.addcmul_(x, y)
    return total


def length(vector: Float[Tensor, "c *n"]) -> Float[Tensor, "*n"]:
    """Norm over the first dimension, without gradient at zero; ten times as fast as PyTorch's."""
    squared = vector.square().sum(dim=0)
    return torch.where(squared > 0, squared, 1.0).sqrt() * (squared > 0)
