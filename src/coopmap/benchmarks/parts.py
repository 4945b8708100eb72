"""One pass of the model, timed or counted at the boundaries of its parts: encoder, multi-view transformer, heads."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.graph import register_multi_grad_hook
from torch.utils._pytree import tree_leaves

from coopmap.models import MapAnything
from coopmap.types import Observation, Prediction

FORWARD = ("encoder", "multi-view", "heads")
"""Parts in the order in which they run; backward it is the other way round."""

Reading = TypeVar("Reading")


def objective(prediction: Prediction) -> Tensor:
    """A cheap scalar that depends on every output."""
    outputs = (prediction.points_world, prediction.confidence, prediction.mask_logits, prediction.pose_quat)
    return sum((output.mean() for output in outputs), start=torch.zeros((), device=prediction.scale.device))


def run_pass(
    model: MapAnything, observation: Observation, backward: bool, read: Callable[[], Reading]
) -> dict[str, tuple[Reading, Reading]]:
    """Run forward, and optionally ``backward``.

    Args:
        model: its parameters' gradients are added to.
        observation: a batch.
        backward: with gradients; otherwise without recording any.
        read: a clock or a counter.

    Returns:
        What ``read`` returned at the beginning and end of each part, ``{part}`` and ``{part}, backward``. The
        normalization before the multi-view transformer counts to it, the objective to the heads.
    """
    readings = [read()]

    def note(*_: Any) -> None:
        readings.append(read())

    def after(module: nn.Module, inputs: Any, outputs: Any) -> None:
        note()
        tensors = [leaf for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor) and leaf.requires_grad]
        if tensors:
            # Autograd runs in reverse order of recording: when it reaches one of these, everything above is done.
            register_multi_grad_hook(tensors, note, mode="any")

    hooks = [part.register_forward_hook(after) for part in (model.encoder, model.info_sharing)]
    try:
        with torch.set_grad_enabled(backward):
            prediction = model(observation)
        note()
        if backward:
            objective(prediction).backward()
            note()
    finally:
        for hook in hooks:
            hook.remove()
    names = [*FORWARD, *(f"{part}, backward" for part in reversed(FORWARD))]
    return dict(zip(names, pairwise(readings), strict=False))


def block_inputs(model: MapAnything, observation: Observation) -> dict[str, tuple[nn.Module, tuple[int, ...]]]:
    """One block of each kind and the shape of the tokens that it sees for ``observation``."""
    encoder, sharing = model.cfg.encoder, model.cfg.info_sharing
    batch, views, _, height, width = observation.images.shape
    num_patches = (height // encoder.patch_size) * (width // encoder.patch_size)
    num_extra = 1 + encoder.num_registers
    per_view = num_patches + (num_extra if sharing.encoder_tokens else 0)
    blocks = model.info_sharing.self_attention_blocks
    return {
        "encoder block": (model.encoder.model.blocks[0], (batch * views, num_patches + num_extra, encoder.dim)),
        "per-view block": (blocks[1], (batch * views, per_view, sharing.dim)),
        "global block": (blocks[0], (batch, views * per_view + 1, sharing.dim)),
    }
