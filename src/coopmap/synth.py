"""``coopmap synth``: render synthetic streets, or a town and drives through it: as files of OPV2V, or into a cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from coopmap.cli.main import run_entry_point
from coopmap.config.checks import ConfigError
from coopmap.config.data import DataConfig
from coopmap.config.synth import SynthConfig

_SAID_HERE = ("data.root", "data.depth_root", "data.cache_root")


def synth_command(asked: SynthConfig, overrides: Sequence[str]) -> None:
    """Render."""
    if asked.cache_root is not None:
        from coopmap.data.cache.command import fill_with_streets
        from coopmap.runs.logs import log_to

        log_to(None)
        print(
            fill_with_streets(
                Path(asked.cache_root).expanduser(), views_of(asked, overrides), num_workers=asked.workers
            )
        )
        return
    if overrides:
        raise ConfigError(f"{overrides[0]}: says what views are like; expected cache_root=FOLDER to write them to")
    from coopmap.synthetic import render_town

    render_town(asked.town)


def views_of(asked: SynthConfig, overrides: Sequence[str]) -> DataConfig:
    """Streets, and what their views are like: as a training with these overrides that has ``data.root`` finds them.

    Raises:
        ConfigError: an override is wrong, or says what keys of the command say.
    """
    from coopmap.config import load_config
    from coopmap.config.overrides import quoted

    for override in overrides:
        key = override.partition("=")[0].lstrip("+~")
        if key in _SAID_HERE or key.startswith("data.town"):
            raise ConfigError(f"{override}: coopmap synth has keys of its own for this; coopmap help synth lists them")
    data = load_config([*overrides, f"data.root={quoted(asked.root)}"]).data
    return replace(data, town=asked.town, root=asked.root, depth_root=asked.depth_root, cache_root=None)


def main() -> None:
    """Command line."""
    run_entry_point("synth")


if __name__ == "__main__":
    main()
