"""The model of a run, or of weights alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from coopmap.config import Config, ConfigError, load_config
from coopmap.models import MapAnything, build_model_and_record, load_weights
from coopmap.models.sources import architecture
from coopmap.runs.stored import open_checkpoint


def load_run(checkpoint: Path | str, overrides: Sequence[str] = ()) -> tuple[MapAnything, Config]:
    """Model and configuration of a training checkpoint.

    Args:
        checkpoint: file.
        overrides: changes to the stored configuration.

    Raises:
        ConfigError: no such checkpoint, a wrong override, or one after which the weights do not fit.
    """
    stored = open_checkpoint(checkpoint)
    config = stored.config_to_read(overrides)
    config.model.weights = None  # the checkpoint holds them all
    model = MapAnything(config.model)
    try:
        load_weights(model, stored.state_dict)
    except ValueError as error:
        raise ConfigError(f"{checkpoint}: {error}") from error
    return model, config


DEFAULT_MODEL = "mapanything_v1"
"""Of weights that do not tell their architecture."""


def load_released(weights: str, model: str | None = None, overrides: Sequence[str] = ()) -> tuple[MapAnything, Config]:
    """A model of weights alone, and the default configuration with it.

    Args:
        weights: hub id, file or folder.
        model: architecture, a choice of ``conf/model``; by default that of the weights.
        overrides: changes to the default configuration.
    """
    config = load_config([f"model={model or architecture(weights) or DEFAULT_MODEL}", "data=panorama", *overrides])
    config.model.weights = weights
    built, loaded = build_model_and_record(config)
    if loaded is not None:
        built.answer_with(loaded["lacking"])
    return built, config


def choose_device(device: str) -> torch.device:
    """``auto`` or the name of a device.

    Raises:
        ConfigError: there is no such device, or it cannot compute.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.ones(1, device=chosen).cpu()  # the meta device has shapes alone
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise ConfigError(f"device={device}: {reason}; give auto, cpu, cuda or cuda:1") from error
    return chosen
