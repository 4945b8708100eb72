from __future__ import annotations

import numpy as np
import pytest
import torch

from coopmap.config.model import ModelConfig
from coopmap.models import MapAnything

from .support import GOLDEN, load_config


@pytest.fixture(scope="session")
def golden_inputs() -> dict[str, torch.Tensor]:
    with np.load(GOLDEN / "inputs_2x3x42x70.npz") as arrays:
        return {name.removeprefix("in/"): torch.from_numpy(arrays[name]) for name in arrays}


@pytest.fixture(scope="session")
def tiny_config() -> ModelConfig:
    return load_config("mapanything_tiny")


@pytest.fixture
def tiny(tiny_config: ModelConfig) -> MapAnything:
    torch.manual_seed(0)
    return MapAnything(tiny_config)
