"""The network that a configuration describes."""

from __future__ import annotations

from typing import Any

from coopmap.config import Config, ConfigError
from coopmap.models.checkpoints import load_weights
from coopmap.models.mapanything import MapAnything


def build_model(cfg: Config) -> MapAnything:
    """The network, with ``cfg.model.weights`` loaded where they are given.

    Raises:
        ConfigError: the weights cannot be read or do not fit.
    """
    return build_model_and_record(cfg)[0]


def build_model_and_record(cfg: Config) -> tuple[MapAnything, dict[str, Any] | None]:
    """:func:`build_model`, and the provenance of its weights as plain values, if any were loaded."""
    model = MapAnything(cfg.model)
    if cfg.model.weights is None:
        return model, None
    try:
        loaded = load_weights(model, cfg.model.weights, submodules=cfg.model.weights_only_submodules)
    except (OSError, ValueError) as error:
        key = f"{'model.weights' if cfg.init_from is None else 'init_from'}={cfg.model.weights}"
        raise ConfigError(str(error) if key in str(error) else f"{key}: {error}") from error
    return model, loaded.record()
