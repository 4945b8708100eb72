"""Which parameters of a model are trained: all, some parts, biases alone, or low-rank updates."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fnmatch import filter as matching

from torch import nn

from coopmap.config.checks import ConfigError, require_choice
from coopmap.config.train import AdaptationConfig
from coopmap.models.lora import add_lora

NORMS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


def adapt(model: nn.Module, cfg: AdaptationConfig) -> None:
    """Freeze parameters of ``model`` and add low-rank updates, as configured; in place, after weights are loaded.

    A part is a child module or a direct parameter of the model. A parameter that has two names counts as trained with
    either.

    Raises:
        ConfigError: if a part does not exist.
    """
    if cfg.only:
        _train_only(model, _parameters(model, cfg.only, "only"))
    if cfg.tensors == "biases":
        _train_only(model, _biases_and_norms(model))
    for parameter in _parameters(model, cfg.frozen, "frozen"):
        parameter.requires_grad_(False)
    for name in cfg.lora:
        require_choice("optim.train.lora", name, [child for child, _ in model.named_children()])
    if cfg.lora:
        add_lora([getattr(model, name) for name in cfg.lora], cfg.lora_rank, cfg.lora_alpha)


def _train_only(model: nn.Module, parameters: Iterable[nn.Parameter]) -> None:
    """Freeze all others; what is frozen already stays so."""
    kept = {id(parameter) for parameter in parameters}
    for parameter in model.parameters():
        parameter.requires_grad_(parameter.requires_grad and id(parameter) in kept)


def _parameters(model: nn.Module, parts: Iterable[str], key: str) -> Iterator[nn.Parameter]:
    known = [name for name, _ in model.named_children()] + [name for name, _ in model.named_parameters(recurse=False)]
    for part in parts:
        for name in _named(part, known, f"optim.train.{key}"):
            value = getattr(model, name)
            yield from value.parameters() if isinstance(value, nn.Module) else [value]


def _named(part: str, known: list[str], key: str) -> list[str]:
    """Names that ``part`` stands for: itself, or those that match it as a pattern."""
    if "*" not in part:
        require_choice(key, part, known)
        return [part]
    names = matching(known, part)
    if not names:
        raise ConfigError(
            f"{key}={part}: this model has no such part, only {', '.join(known)}; turn on the add-on that is to be "
            f"trained (model.{part.rstrip('*')}), or choose another optim/train"
        )
    return names


def _biases_and_norms(model: nn.Module) -> Iterator[nn.Parameter]:
    """Biases, and gains of norms (BitFit, Ben Zaken et al., arXiv 2106.10199)."""
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if name == "bias" or isinstance(module, NORMS):
                yield parameter
