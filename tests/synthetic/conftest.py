from pathlib import Path

import pytest

from coopmap.config.synth import TownConfig


@pytest.fixture(scope="session")
def yaml_paths(town: TownConfig) -> list[Path]:
    """One path per agent and frame."""
    return sorted(Path(town.root).glob("*/*/*/*.yaml"))
