"""Learning rates of parameters, and their schedule."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from coopmap.config.checks import require_choice
from coopmap.config.train import OptimConfig

UNDECAYED_NAMES = ("pos_embed", "token")


def build_optimizer(model: nn.Module, cfg: OptimConfig, shards: bool = False) -> torch.optim.Optimizer:
    """AdamW over :func:`parameter_groups`; fused, so that a non-finite step can be skipped without a GPU sync.

    Args:
        model: to train.
        cfg: learning rates and so on.
        shards: have each rank keep the averages of its share of the parameters alone.

    Raises:
        ConfigError: averages of 8 bits are asked for, and torchao is missing.
    """
    beta1, beta2 = cfg.betas
    groups = parameter_groups(model, cfg)
    settings: dict[str, Any] = {"lr": cfg.lr, "betas": (beta1, beta2), "weight_decay": cfg.weight_decay}
    if cfg.state_bits == 8:
        from coopmap.training.eight_bit import EightBitAdamW

        return EightBitAdamW(groups, **settings)
    if shards:
        from coopmap.training.sharded_adamw import ShardedAdamW

        return ShardedAdamW(groups, **settings)
    return torch.optim.AdamW(groups, **settings, fused=True)


def parameter_groups(model: nn.Module, cfg: OptimConfig) -> list[dict[str, Any]]:
    """Groups of equal learning rate and weight decay, each with the ``name`` of the part it belongs to.

    Parts are the model's child modules and direct parameters. Parts with a learning rate of 0 are frozen: their
    parameters no longer require a gradient and are in no group.

    Raises:
        ConfigError: if ``cfg.lr_of`` names an unknown part.
    """
    part_of = {id(parameter): name.partition(".")[0] for name, parameter in model.named_parameters()}
    known = [name for name, _ in model.named_children()] + [name for name, _ in model.named_parameters(recurse=False)]
    lr_of = {}
    for part, lr in cfg.lr_of.items():
        require_choice("optim.lr_of", part, known)
        child = getattr(model, part)
        for parameter in child.parameters() if isinstance(child, nn.Module) else [child]:
            lr_of[id(parameter)] = lr
            part_of[id(parameter)] = part  # a module may have two names; the configured one counts

    groups: dict[tuple[str, bool], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        lr = lr_of.get(id(parameter), cfg.lr)
        if lr == 0:
            parameter.requires_grad_(False)
        if not parameter.requires_grad:
            continue
        part, decays = part_of[id(parameter)], has_weight_decay(name, parameter)
        decay = {} if decays else {"weight_decay": 0.0}
        group = groups.setdefault((part, decays), {"name": part, "lr": lr, "params": [], **decay})
        group["params"].append(parameter)
    return list(groups.values())


def has_weight_decay(name: str, parameter: nn.Parameter) -> bool:
    """Weight matrices and kernels only: no norms, biases, scales, tokens, position embeddings."""
    leaf = name.rpartition(".")[2]
    return parameter.ndim > 1 and not any(word in leaf for word in UNDECAYED_NAMES)


def gradient_norms(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Norm of the gradient of each part of :func:`parameter_groups`, decayed or not."""
    gradients: dict[str, list[Tensor]] = {}
    for group in optimizer.param_groups:
        found = [parameter.grad for parameter in group["params"] if parameter.grad is not None]
        gradients.setdefault(group["name"], []).extend(found)
    return {part: whole(nn.utils.get_total_norm(each)) for part, each in gradients.items() if each}


def whole(tensor: Tensor) -> Tensor:
    """The tensor that ranks share out, or have together as it is."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def warmup_cosine(total_steps: int, cfg: OptimConfig) -> Callable[[int], float]:
    """Learning rate at an optimizer step (the first is 0) as a share of its peak.

    Linear from ``1 / warmup_steps`` to the peak, then cosine decay to ``final_lr_fraction`` at the last step.
    """
    warmup_steps = round(cfg.warmup_fraction * total_steps)
    decay_steps = max(1, total_steps - 1 - warmup_steps)

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        progress = min(1.0, (step - warmup_steps) / decay_steps)
        cosine = 0.5 * (1 + math.cos(math.pi * progress))
        return cfg.final_lr_fraction + (1 - cfg.final_lr_fraction) * cosine

    return factor
