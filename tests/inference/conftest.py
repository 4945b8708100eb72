"""An untrained tiny model and its checkpoint."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from coopmap import build_model, load_config
from coopmap.config import Config
from coopmap.config.compose import to_yaml
from coopmap.config.synth import TownConfig
from coopmap.models import MapAnything

TINY = (
    "machine=laptop",
    "data.panorama.height=28",
    "data.panorama.width=112",
    "data.max_agents=3",
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


@pytest.fixture(scope="session")
def config(town: TownConfig) -> Config:
    return load_config([*TINY, f"data.root={town.root}", f"data.depth_root={town.depth_root}"])


@pytest.fixture(scope="session")
def model(config: Config) -> MapAnything:
    torch.manual_seed(0)
    return build_model(config).eval()


@pytest.fixture(scope="session")
def checkpoint(config: Config, model: MapAnything, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a training run leaves behind, without the training."""
    file = tmp_path_factory.mktemp("run") / "checkpoints" / "best.ckpt"
    file.parent.mkdir()
    state = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    torch.save({"coopmap": {"config": to_yaml(config)}, "state_dict": state}, file)
    return file


@pytest.fixture(scope="session")
def frame(town: TownConfig) -> Path:
    """The validation frame with the most agents, of the first scenario."""
    scenario = next(path for path in sorted(Path(town.root, "validate").iterdir()) if path.is_dir())
    frames = sorted(path.stem for path in scenario.glob("*/*[0-9].yaml"))
    return scenario / max(frames, key=frames.count)


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
