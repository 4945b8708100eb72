"""Typed configuration; free of torch, so that ``--help`` is quick."""

from coopmap.config.checks import ConfigError
from coopmap.config.compose import conf_dir, load_config
from coopmap.config.schema import Config

__all__ = ["Config", "ConfigError", "conf_dir", "load_config"]
