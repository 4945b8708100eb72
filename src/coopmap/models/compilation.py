"""Compilation of the transformer blocks (``model.compile``)."""

from __future__ import annotations

import logging

from torch import nn

from coopmap.models.layers import Block

log = logging.getLogger(__name__)

RECOMPILE_LIMIT = 64
"""Variants of a block: two parts of the model, per-view and global, training and evaluation, single samples, dtypes."""


def compile_blocks(model: nn.Module, backend: str = "inductor") -> None:
    """Compile every transformer block of ``model`` in place, at its first call.

    Blocks of the same shape share one compilation, so that this takes seconds rather than the minutes of the whole
    model; sizes may vary from call to call. Names in the state dict are unchanged.

    Without a C++ compiler that works, which PyTorch's default backend needs, one line says so and blocks run as they
    are.
    """
    import torch._dynamo

    if backend == "inductor" and (reason := _why_not()):
        log.warning("model.compile=true: %s; blocks run uncompiled (install g++, or set CXX to a compiler)", reason)
        return
    config = torch._dynamo.config
    # Several kinds of blocks share the compiled code, and each kind counts.
    limit = "recompile_limit" if hasattr(config, "recompile_limit") else "cache_size_limit"  # of PyTorch before 2.7
    setattr(config, limit, max(getattr(config, limit), RECOMPILE_LIMIT))
    # A block's gradients are one unit for DDP anyway; it need not be split further at bucket boundaries.
    config.optimize_ddp = False
    for module in model.modules():
        if isinstance(module, Block):
            module.compile(backend=backend, dynamic=True)


def _why_not() -> str | None:
    """Why nothing can be compiled here, from trying it on an addition."""
    import torch
    from torch._inductor import cpp_builder, exc

    try:
        cpp_builder.get_cpp_compiler()
        torch.compile(lambda x: x + 1, fullgraph=True)(torch.zeros(8))
    except exc.InvalidCxxCompiler:
        return "found no C++ compiler"
    except Exception as error:  # whatever a broken compiler, missing headers or a full cache folder lead to
        lines = [line for line in str(error).splitlines() if line.strip()]
        return f"compiling fails ({lines[0] if lines else type(error).__name__})"
    return None
