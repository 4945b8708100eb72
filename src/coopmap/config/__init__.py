"""Typed configuration; free of torch, and of Hydra until something is composed, so that help is quick."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from coopmap.config.checks import ConfigError
from coopmap.config.groups import conf_dir
from coopmap.config.schema import Config

if TYPE_CHECKING:
    from coopmap.config.compose import load_config

__all__ = ["Config", "ConfigError", "conf_dir", "load_config"]


def __getattr__(name: str) -> Any:
    """Import the composer, and with it Hydra, on first access."""
    if name == "load_config":
        from coopmap.config.compose import load_config

        return load_config
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
