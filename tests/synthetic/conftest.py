from pathlib import Path

import pytest

from coopmap.config.synth import TownConfig, tiny_town
from coopmap.synthetic import render_town


@pytest.fixture(scope="session")
def town(tmp_path_factory: pytest.TempPathFactory) -> TownConfig:
    """A rendered tiny town; its configuration says where."""
    folder = tmp_path_factory.mktemp("town")
    cfg = tiny_town(str(folder / "town"), str(folder / "depth"))
    render_town(cfg)
    return cfg


@pytest.fixture(scope="session")
def yaml_paths(town: TownConfig) -> list[Path]:
    """One path per agent and frame."""
    return sorted(Path(town.root).glob("*/*/*/*.yaml"))
