"""AdamW whose averages have 8 bits per value (arXiv 2110.02861), from torchao (``optim.state_bits=8``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from coopmap.config import ConfigError

try:
    from torchao.optim import AdamW8bit
    from torchao.optim.subclass_8bit import OptimState8bit
except ImportError:
    raise ConfigError("optim.state_bits=8 needs torchao: pip install coopmap[eight-bit], or leave it at 32") from None
except AttributeError as error:  # a name of PyTorch that this release of torchao is ahead of
    raise ConfigError(
        f"optim.state_bits=8: the installed torchao does not fit PyTorch {torch.__version__} ({error}): install one of "
        "its time, a newer PyTorch, or leave it at 32"
    ) from None

PARTS = ("codes", "scale", "qmap")


class EightBitAdamW(AdamW8bit):
    """torchao's, but it skips steps that are not finite, and its state dict has plain tensors.

    Averages of tensors with fewer than 4,096 values stay in float32.
    """

    def step(self, closure: Any = None) -> Any:
        """Take a step, unless ``found_inf`` says not to; this looks at one number of the GPU."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()  # sets found_inf
        for group in self.param_groups:  # schedules may set a plain number, which torchao would compile anew for
            group["lr"] = torch.as_tensor(group["lr"], dtype=torch.float32)
        found_inf = getattr(self, "found_inf", None)
        if found_inf is None or not found_inf.item():
            super().step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """Quantized averages as dictionaries of :data:`PARTS` and whether they are signed."""
        whole = super().state_dict()
        state = {
            index: {name: _plain(value) for name, value in values.items()} for index, values in whole["state"].items()
        }
        groups = [{**group, "lr": float(group["lr"])} for group in whole["param_groups"]]
        return {**whole, "state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave."""
        state = {
            index: {name: _quantized(value) for name, value in values.items()}
            for index, values in state_dict["state"].items()
        }
        super().load_state_dict({**state_dict, "state": state})


def _plain(value: Any) -> Any:
    if not isinstance(value, OptimState8bit):
        return value
    return {**{name: getattr(value, name) for name in PARTS}, "signed": value.signed}


def _quantized(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    parts: list[Tensor] = [value[name] for name in PARTS]
    return OptimState8bit(*parts, value["signed"], dtype=torch.float32)
