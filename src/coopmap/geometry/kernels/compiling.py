"""How kernels are compiled: for one thread, without holding the interpreter's lock, kept for the next process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit

FLAGS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": {"contract", "nsz"}}
"""Division by zero gives infinity, as in arrays; products and sums may be fused; infinity and NaN mean what they do."""

part = njit(**FLAGS)
"""Decorator of a function that kernels of the same module call."""


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator of a function that is called from Python, with contiguous arrays.

    Machine code is kept in ``__pycache__`` beside the module, else in the user's cache folder; where neither can be
    written, each process compiles anew. Numba notices when the module changes, but not the modules that it calls.
    """
    try:
        return njit(cache=True, **FLAGS)(function)
    except RuntimeError:  # "cannot cache function": no folder can be written
        return njit(**FLAGS)(function)
