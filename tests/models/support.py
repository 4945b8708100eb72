"""Golden numbers of the public implementation: weights are a function of name, shape and seed."""

from __future__ import annotations

import functools
import json
import zlib
from pathlib import Path

import numpy as np
import torch
from omegaconf import OmegaConf

from coopmap import load_config as compose
from coopmap.config import Config
from coopmap.config.model import ModelConfig
from coopmap.models import MapAnything
from coopmap.models.naming import canonical_names
from coopmap.types import Observation

REPOSITORY = Path(__file__).parents[2]
GOLDEN = REPOSITORY / "tests/data/models"
ALL_INPUTS = {"inputs": {"rays": True, "depth": True, "pose": True}}
SHRINK = {
    "info_sharing": {"depth": 4, "intermediate_layers": [1, 2], "dim": 192, "num_heads": 3},
    "heads": {"feature_dim": 64},
}
GOLDEN_CONFIGS = {
    "v1_tiny": ("mapanything_v1", {"encoder": {"dim": 384, "num_heads": 6, "depth": 2}, **SHRINK}),
    "v11_tiny": ("mapanything_v11", {"encoder": {"depth": 1}, **SHRINK}),
}

STAND_IN = (
    "model=mapanything_v1",
    "loss=pose",  # upstream regresses
    "model.encoder.dim=384",
    "model.encoder.num_heads=6",
    "model.encoder.depth=1",
    "model.info_sharing.dim=32",
    "model.info_sharing.num_heads=2",
    "model.info_sharing.depth=3",
    "model.info_sharing.intermediate_layers=[0,1]",
    "model.heads.layer_dims=[8,8,8,8]",
    "model.heads.feature_dim=8",
    "model.heads.scale_dim=16",
    "model.inputs.map_dims=[24,32,48]",
)


def load_config(choice: str, *overrides: dict) -> ModelConfig:
    """One of ``conf/model`` with changes."""
    layers = [OmegaConf.load(REPOSITORY / f"conf/model/{choice}.yaml"), *map(OmegaConf.create, overrides)]
    config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(ModelConfig), *layers))
    assert isinstance(config, ModelConfig)
    return config


def stand_in(*overrides: str) -> Config:
    """A model that upstream can build, small enough for a test."""
    return compose([*STAND_IN, *overrides])


def golden_json(name: str) -> dict:
    return json.loads((GOLDEN / name).read_text())


@functools.cache
def golden_weight(name: str, shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    noise = np.random.default_rng([seed, zlib.crc32(name.encode())]).standard_normal(shape)
    last = name.rsplit(".", 1)[-1]
    if last in ("pos_embed", "cls_token", "register_tokens", "scale_token"):
        weight = 0.02 * noise
    elif last == "gamma":
        weight = 0.5 + 0.1 * noise
    elif len(shape) >= 2:
        weight = 0.7 * noise / np.sqrt(np.prod(shape[1:]))
    elif last == "weight":
        weight = 1.0 + 0.1 * noise
    else:
        weight = 0.05 * noise
    return torch.from_numpy(weight.astype(np.float32))


def golden_model(name: str, inputs: dict[str, bool]) -> MapAnything:
    choice, changes = GOLDEN_CONFIGS[name]
    with torch.device("meta"):
        model = MapAnything(load_config(choice, changes, {"inputs": inputs}))
    state = model.state_dict()
    values = {
        canonical: golden_weight(canonical, tuple(state[canonical].shape))
        for canonical in set(canonical_names(model).values())
    }
    table = "info_sharing.view_pos_table"
    values[table] = torch.tensor([[0.0, 1.0]]).repeat(1, state[table].shape[1] // 2)
    model.to_empty(device="cpu")
    model.load_state_dict({alias: values[canonical] for alias, canonical in canonical_names(model).items()})
    return model.eval()


def make_observation(batch: int, views: int, height: int = 42, width: int = 70, seed: int = 0) -> Observation:
    generator = torch.Generator().manual_seed(seed)
    rays = torch.randn(batch, views, height, width, 3, generator=generator)
    return Observation(
        images=torch.randn(batch, views, 3, height, width, generator=generator),
        rays=rays / rays.norm(dim=-1, keepdim=True),
    )
