"""An untrained tiny model and its checkpoint."""

from pathlib import Path

import pytest
import torch

from coopmap import build_model, load_config
from coopmap.config import Config
from coopmap.config.compose import to_yaml
from coopmap.config.synth import TownConfig
from coopmap.models import MapAnything


@pytest.fixture(scope="session")
def config(tiny_model: tuple[str, ...], town: TownConfig) -> Config:
    roots = (f"data.root={town.root}", f"data.depth_root={town.depth_root}")
    return load_config([*tiny_model, "data.max_agents=3", *roots])


@pytest.fixture(scope="session")
def model(config: Config) -> MapAnything:
    torch.manual_seed(0)
    model = build_model(config).eval()
    with torch.no_grad():
        model.dpt_regressor_head.conv2[2].bias[-1] = 3.0  # the mask keeps pixels, whatever the random weights are
    return model


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
