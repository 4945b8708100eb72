from pathlib import Path

import pytest
import torch
from hypothesis import settings

from coopmap.config.synth import TownConfig, tiny_town

settings.register_profile("coopmap", deadline=None, max_examples=40, derandomize=True)
settings.load_profile("coopmap")
torch.set_num_threads(2)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Small files that tests compare with."""
    return Path(__file__).parent / "data"


@pytest.fixture(scope="session")
def town(tmp_path_factory: pytest.TempPathFactory) -> TownConfig:
    """A rendered tiny town; its configuration says where. Read only."""
    from coopmap.synthetic import render_town

    folder = tmp_path_factory.mktemp("town")
    config = tiny_town(str(folder / "town"), str(folder / "depth"))
    render_town(config)
    return config
