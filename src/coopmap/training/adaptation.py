"""Which parameters of a model are trained: all, some parts, or low-rank updates."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from torch import nn

from coopmap.config.checks import require_choice
from coopmap.config.train import AdaptationConfig
from coopmap.models.lora import add_lora


def adapt(model: nn.Module, cfg: AdaptationConfig) -> None:
    """Freeze parameters of ``model`` and add low-rank updates, as configured; in place, after weights are loaded.

    A part is a child module or a direct parameter of the model. A parameter that has two names counts as trained with
    either.

    Raises:
        ConfigError: if a part does not exist.
    """
    if cfg.only:
        kept = {id(parameter) for parameter in _parameters(model, cfg.only, "only")}
        for parameter in model.parameters():
            parameter.requires_grad_(parameter.requires_grad and id(parameter) in kept)
    for parameter in _parameters(model, cfg.frozen, "frozen"):
        parameter.requires_grad_(False)
    for name in cfg.lora:
        require_choice("optim.train.lora", name, [child for child, _ in model.named_children()])
    if cfg.lora:
        add_lora([getattr(model, name) for name in cfg.lora], cfg.lora_rank, cfg.lora_alpha)


def _parameters(model: nn.Module, parts: Iterable[str], key: str) -> Iterator[nn.Parameter]:
    known = [name for name, _ in model.named_children()] + [name for name, _ in model.named_parameters(recurse=False)]
    for part in parts:
        require_choice(f"optim.train.{key}", part, known)
        value = getattr(model, part)
        yield from value.parameters() if isinstance(value, nn.Module) else [value]
