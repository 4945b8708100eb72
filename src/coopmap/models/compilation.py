"""Compilation of the transformer blocks (``model.compile``)."""

from __future__ import annotations

from torch import nn

from coopmap.config.checks import ConfigError
from coopmap.models.layers import Block

RECOMPILE_LIMIT = 64
"""Variants of a block: two parts of the model, per-view and global, training and evaluation, single samples, dtypes."""


def compile_blocks(model: nn.Module, backend: str = "inductor") -> None:
    """Compile every transformer block of ``model`` in place, at its first call.

    Blocks of the same shape share one compilation, so that this takes seconds rather than the minutes of the whole
    model; sizes may vary from call to call. Names in the state dict are unchanged.

    Raises:
        ConfigError: there is no C++ compiler, which PyTorch's default backend needs.
    """
    import torch._dynamo

    if backend == "inductor":
        _require_compiler()
    # Several kinds of blocks share the compiled code, and each kind counts.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, RECOMPILE_LIMIT)
    # A block's gradients are one unit for DDP anyway; it need not be split further at bucket boundaries.
    torch._dynamo.config.optimize_ddp = False
    for module in model.modules():
        if isinstance(module, Block):
            module.compile(backend=backend, dynamic=True)


def _require_compiler() -> None:
    from torch._inductor import cpp_builder, exc

    try:
        cpp_builder.get_cpp_compiler()
    except exc.InvalidCxxCompiler:
        raise ConfigError(
            "model.compile=true: found no C++ compiler; install g++ (or set CXX to one), or leave model.compile out"
        ) from None
