"""Whether a device computes in bfloat16 itself."""

from __future__ import annotations

import platform

import torch


def computes_bf16(kind: str) -> bool:
    """Whether products in bfloat16 are instructions of a device, not emulated, which can take sixteen times as long.

    Args:
        kind: of the device, ``cpu`` or ``cuda``.
    """
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if platform.machine().lower() in ("x86_64", "amd64"):  # where oneDNN supports it without such instructions, too
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
