from collections.abc import Callable
from pathlib import Path

import pytest

from coopmap.config.synth import TownConfig
from coopmap.synthetic import render_town

from ..worlds import tiny_streets


@pytest.fixture(scope="session")
def yaml_paths(town: TownConfig) -> list[Path]:
    """One path per agent and frame."""
    return sorted(Path(town.root).glob("*/*/*/*.yaml"))


@pytest.fixture(scope="session")
def streets(make_once: Callable[[str, Callable[[Path], None]], Path]) -> TownConfig:
    """Three rendered streets; their configuration says where. Read only."""

    def config(folder: Path) -> TownConfig:
        return tiny_streets(str(folder / "streets"), str(folder / "depth"))

    return config(make_once("streets", lambda folder: render_town(config(folder))))


@pytest.fixture(scope="session")
def drawn_rigs(make_once: Callable[[str, Callable[[Path], None]], Path]) -> TownConfig:
    """The same on cars that carry their sensors each in its own way; two frames. Read only."""

    def config(folder: Path) -> TownConfig:
        return tiny_streets(str(folder / "streets"), str(folder / "depth"), rigs="drawn", frames=2)

    return config(make_once("drawn_rigs", lambda folder: render_town(config(folder))))
