"""Bytes that a rank keeps from step to step: exact, since they follow from shapes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import nn

from coopmap.config import Config
from coopmap.config.train import OptimConfig
from coopmap.models import build_model
from coopmap.models.heads import DPTFeature, DPTRegressor
from coopmap.models.layers import Block
from coopmap.training.adaptation import adapt
from coopmap.training.optim import parameter_groups
from coopmap.training.shares import shares

AVERAGES = 2
"""AdamW keeps two values per parameter, and counts the steps of each tensor in four bytes."""
STEP_BYTES = 4
QUANTIZED_FROM, BLOCK, CODES = 4096, 256, 256
"""torchao quantizes averages of so many values and more, in blocks of one scale, with a table of codes per tensor."""
GATHERED_UNITS = 3
"""Blocks that are whole at once with FSDP: the present one, the next one, and the buffer that it arrives in."""
REDUCED_UNITS = 2
"""Blocks whose gradients are whole at once: as computed, and as sent."""


@dataclass(frozen=True)
class StateBytes:
    """What one rank keeps.

    Attributes:
        parameters, gradients, optimizer: between steps.
        whole, trained: all parameters, and those that are trained, of all ranks together.
        passing: whole blocks that come and go in a step (``fsdp``), estimated.
    """

    parameters: int
    gradients: int
    optimizer: int
    whole: int
    trained: int
    passing: int = 0

    @property
    def kept(self) -> int:
        """Between steps."""
        return self.parameters + self.gradients + self.optimizer


def hollow_model(config: Config) -> nn.Module:
    """The model of a configuration with what it trains, on the meta device: shapes without content."""
    with torch.device("meta"):
        model = build_model(replace(config, model=replace(config.model, weights=None)))
        adapt(model, config.optim.train)
    parameter_groups(model, config.optim)  # freezes parts with a learning rate of 0
    return model


def state_bytes(model: nn.Module, optim: OptimConfig, strategy: str, ranks: int, rank: int = 0) -> StateBytes:
    """Bytes on a rank.

    Args:
        model: as :func:`hollow_model` gives it.
        optim: its parameter groups.
        strategy: ``single``, ``ddp``, ``ddp_zero1`` or ``fsdp``.
        ranks: how many share.
        rank: which one; with ``fsdp`` the first has the most.
    """
    everything = list(model.parameters())
    trained = [parameter for group in parameter_groups(model, optim) for parameter in group["params"]]
    sizes = {"whole": _sum(each.nbytes for each in everything), "trained": _sum(each.nbytes for each in trained)}
    if strategy == "fsdp" and ranks > 1:
        own = _sum(_rows_bytes(parameter, ranks, rank) for parameter in trained)
        return StateBytes(
            parameters=_sum(_rows_bytes(parameter, ranks, rank) for parameter in everything),
            gradients=own,
            optimizer=AVERAGES * own + STEP_BYTES * len(trained),
            passing=_passing_bytes(model),
            **sizes,
        )
    if strategy == "ddp_zero1" and ranks > 1:
        of_rank = shares([parameter.numel() for parameter in trained], ranks)[rank]
        kept = [trained[index] for index in of_rank]
    else:
        kept = trained
    return StateBytes(
        parameters=sizes["whole"],
        gradients=sizes["trained"],
        optimizer=_sum(AVERAGES * _average_bytes(parameter, optim.state_bits) + STEP_BYTES for parameter in kept),
        **sizes,
    )


def _average_bytes(parameter: nn.Parameter, bits: int) -> int:
    """Of one average of a tensor."""
    values = parameter.numel()
    if bits == 8 and values >= QUANTIZED_FROM and values % BLOCK == 0:
        return values + 4 * (values // BLOCK + CODES)
    return parameter.nbytes


def _rows_bytes(parameter: nn.Parameter, ranks: int, rank: int) -> int:
    """FSDP cuts the first axis into equal parts, rounded up, so that the last ranks may have less or nothing."""
    rows, *rest = parameter.shape
    part = -(-rows // ranks)
    return max(0, min(part, rows - rank * part)) * torch.Size(rest).numel() * parameter.element_size()


def _passing_bytes(model: nn.Module) -> int:
    units = [module for module in model.modules() if isinstance(module, (Block, DPTFeature, DPTRegressor))]
    inside = {id(parameter) for unit in units for parameter in unit.parameters()}
    outside = [parameter for parameter in model.parameters() if id(parameter) not in inside]
    largest = max((_sum(parameter.nbytes for parameter in unit.parameters()) for unit in units), default=0)
    trained = max((_trained_bytes(unit.parameters()) for unit in units), default=0)
    gathered = _sum(parameter.nbytes for parameter in outside) + GATHERED_UNITS * largest
    return gathered + _trained_bytes(outside) + REDUCED_UNITS * trained


def _trained_bytes(parameters: Iterable[nn.Parameter]) -> int:
    return _sum(parameter.nbytes for parameter in parameters if parameter.requires_grad)


def _sum(values: Iterable[int]) -> int:
    return sum(values)
