"""Train MapAnything on the panoramas of connected vehicles.

What notebooks and scripts use::

    from coopmap import load_config, build_dataset, build_model, build_loss
    cfg = load_config(["experiment=cyl_posefix", "data.root=/data/opv2v"])
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coopmap.config import Config, ConfigError, load_config
    from coopmap.data import build_dataset
    from coopmap.losses import build_loss
    from coopmap.models import build_model

__all__ = ["Config", "ConfigError", "build_dataset", "build_loss", "build_model", "load_config"]

# Read when torch loads, hence here. Otherwise its CPU threads spin for milliseconds while they wait for one another;
# next to a data loader or any other load on the same cores, a step then takes 4 times as long.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

_ROOMS = {
    "Config": "config",
    "ConfigError": "config",
    "load_config": "config",
    "build_dataset": "data",
    "build_loss": "losses",
    "build_model": "models",
}


def __getattr__(name: str) -> Any:
    """Import names lazily: the builders import torch, which help does not need."""
    if name in _ROOMS:
        return getattr(import_module(f"coopmap.{_ROOMS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
