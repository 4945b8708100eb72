import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from coopmap.config.synth import TownConfig, tiny_town

settings.register_profile("coopmap", deadline=None, max_examples=40, derandomize=True)
settings.load_profile("coopmap")
# Small tensors: on a busy machine, waiting for a second thread costs more than it gives.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"


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


@pytest.fixture(scope="session")
def tiny_model() -> tuple[str, ...]:
    """Overrides that make a model of milliseconds, on small panoramas."""
    return (
        "machine=laptop",
        "preset=demo",
        "data.panorama.height=28",
        "data.panorama.width=112",
        "model.encoder.dim=24",
        "model.encoder.depth=1",
        "model.encoder.num_heads=2",
        "model.info_sharing.dim=24",
        "model.info_sharing.depth=3",
        "model.info_sharing.num_heads=2",
        "model.heads.layer_dims=[8,8,8,8]",
        "model.heads.feature_dim=8",
        "model.heads.pose_dim=8",
        "model.heads.scale_dim=8",
    )
