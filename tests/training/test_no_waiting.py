"""No training step makes the host wait for a GPU: shown on the CPU by what would. test_on_a_gpu.py shows it on one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from coopmap import load_config
from coopmap.training.assembly import build_module
from coopmap.training.optim import build_optimizer

from .one_step import MATCHING, data_and_batch, one_step

aten = torch.ops.aten
STEPS: dict[str, tuple[str, ...]] = {
    "all inputs, all terms": ("task=augmented", "loss=overall"),
    "matching": (*MATCHING, "data.augmentation.yaw_roll=true", "data.augmentation.hue_deg=10"),
    "mosaic with rough poses": (
        *("experiment=mosaic_posefix", *MATCHING),
        *("data.mosaic.height=28", "data.mosaic.width=28", "priors=matched", "model.matching.prior=true"),
        *("task=augmented", "model.pose_correction=true", "model.ground_range=true"),
    ),
    "four cameras": ("experiment=four_camera_rig", "data.cameras.height=28", "data.cameras.width=28", "loss=v11"),
    "fusion": ("experiment=fusion_cross_attention", "data.cameras.height=28", "data.cameras.width=28"),
}


class NoWaiting(TorchDispatchMode):
    """Refuses to read a value of a tensor, as checks of solvers do, and to make one of Python's numbers or of a list as
    an index: the host waits until the GPU has it.
    """

    waiting = (
        aten._local_scalar_dense.default,
        aten.nonzero.default,
        aten.lift_fresh.default,
        aten._linalg_check_errors.default,
    )

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func not in self.waiting, f"{func} in a training step"
        if func in (aten.index.Tensor, aten.index_put_.default):
            masks = [index for index in args[1] if index is not None and index.dtype == torch.bool]
            assert not masks, f"{func} with a mask in a training step"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("more", STEPS.values(), ids=STEPS)
def test_a_step_waits_for_nothing(more: tuple[str, ...], overrides: Callable[..., list[str]]) -> None:
    """Normalization, random inputs, forward, objective, backward, clipping and AdamW."""
    config = load_config(overrides(*more))
    data, batch = data_and_batch(config)
    module = build_module(config)
    optimizer = build_optimizer(module.model, module.optim)  # type: ignore[arg-type]
    data.on_after_batch_transfer(batch, 0)  # constants are sent once
    with NoWaiting():
        batch = data.on_after_batch_transfer(batch, 0)
        one_step(module, optimizer, batch)


@pytest.mark.parametrize(
    "waits",
    [
        lambda x: x.sum().item(),
        lambda x: x.new_tensor([0.0, 1.0]),
        lambda x: x[[0, 1]],
        lambda x: x[x > 0],
        lambda x: torch.linalg.solve(torch.diag(x), x),
    ],
    ids=["a value", "numbers", "a list as an index", "a mask as an index", "a checked solution"],
)
def test_waiting_would_be_noticed(waits: Callable[[torch.Tensor], Any]) -> None:
    with NoWaiting(), pytest.raises(AssertionError, match="in a training step"):
        waits(torch.ones(2))
