"""Upstream MapAnything's numbers on a small batch, and records to compute losses of."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from coopmap.config.loss import LossConfig
from coopmap.geometry import pose_from_quat_trans
from coopmap.types import Prediction, Target

DATA = Path(__file__).parents[1] / "data" / "losses"
CONF = Path(__file__).parents[2] / "conf"


def shipped_loss(choice):
    """Settings of a file in ``conf/loss``."""
    with initialize_config_dir(str(CONF), version_base=None):
        values = compose(overrides=[f"+loss={choice}"]).loss
    return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(LossConfig), values))


@pytest.fixture(scope="session")
def expected():
    files = "loss_expected.json", "loss_expected_v11.json"
    return {name: values for file in files for name, values in json.loads((DATA / file).read_text()).items()}


@pytest.fixture(scope="session")
def golden_arrays():
    with np.load(DATA / "loss_inputs.npz") as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


@pytest.fixture
def golden_target(golden_arrays):
    arrays = golden_arrays
    return Target(
        rays=arrays["gt/rays"],
        depth=arrays["gt/depth"][..., 0],
        valid=arrays["gt/valid"],
        non_ambiguous=arrays["gt/non_ambiguous"],
        pose=pose_from_quat_trans(arrays["gt/pose_quats"], arrays["gt/pose_trans"]),
        is_metric=arrays["is_metric_scale"],
        is_synthetic=arrays["is_synthetic"],
    )


@pytest.fixture
def golden_prediction(golden_arrays):
    arrays = {name: array.clone() for name, array in golden_arrays.items()}
    points_view = arrays["pred/rays"] * arrays["pred/depth"]
    pose = pose_from_quat_trans(arrays["pred/pose_quats"], arrays["pred/pose_trans"])
    points_world = torch.einsum("bvij,bvhwj->bvhwi", pose[..., :3, :3], points_view) + pose[..., None, None, :3, 3]
    return Prediction(
        rays=arrays["pred/rays"],
        depth=arrays["pred/depth"][..., 0],
        pose_trans=arrays["pred/pose_trans"],
        pose_quat=arrays["pred/pose_quats"],
        scale=arrays["pred/scale"][:, 0],
        confidence=arrays["pred/conf"],
        mask_logits=arrays["pred/mask_logits"],
        points_view=points_view,
        points_world=points_world,
    )


def random_scene(seed, batch=2, views=3, height=10, width=16):
    """A target with random poses and depths, half of its samples metric and synthetic, and a wrong prediction of it."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(low, high, *shape):
        return low + (high - low) * torch.rand(*shape, generator=generator)

    def unit(*shape):
        return torch.nn.functional.normalize(torch.randn(*shape, generator=generator), dim=-1)

    pixels = (batch, views, height, width)
    target = Target(
        rays=unit(*pixels, 3),
        depth=uniform(2, 40, *pixels),
        valid=uniform(0, 1, *pixels) < 0.7,
        non_ambiguous=uniform(0, 1, *pixels) < 0.8,
        pose=pose_from_quat_trans(unit(batch, views, 4), uniform(-30, 30, batch, views, 3)),
        is_metric=torch.arange(batch) % 2 == 0,
        is_synthetic=torch.arange(batch) % 2 == 0,
        ground_height_m=torch.full((batch, views), 1.9),
    )
    rays, depth = unit(*pixels, 3), uniform(2, 40, *pixels)
    prediction = Prediction(
        rays=rays,
        depth=depth,
        pose_trans=uniform(-30, 30, batch, views, 3),
        pose_quat=unit(batch, views, 4),
        scale=uniform(0.5, 20, batch),
        confidence=uniform(1, 5, *pixels),
        mask_logits=uniform(-3, 3, *pixels),
        points_view=rays * depth[..., None],
        points_world=uniform(-40, 40, *pixels, 3),
    )
    return prediction, target


def full_scene(seed, batch=2, views=4, height=10, width=16):
    """:func:`random_scene` in which views 0 and 1, and 2 and 3, share a car, and every optional map is there."""
    prediction, target = random_scene(seed, batch, views, height, width)
    generator = torch.Generator().manual_seed(seed + 1)
    quat = torch.nn.functional.normalize(torch.randn(batch, views, 4, generator=generator), dim=-1)
    trans = torch.tensor([3.0, 1.5, 3.0]) * torch.rand(batch, views, 3, generator=generator)  # above the ground
    maps = torch.rand(2, *target.depth.shape, generator=generator) < 0.2
    return prediction, replace(
        target,
        agent=torch.arange(views).div(2, rounding_mode="floor").expand(batch, views),
        rig_pose=pose_from_quat_trans(quat, trans),
        moving=maps[0],
        own_body=maps[1],
    )


def everything(**values):
    """Settings in which every term has a weight."""
    cfg = LossConfig(pose_terms="both", normals="dense", dense_share=0.01, mask_pos_weight="auto", **values)
    cfg.weights.scale_distillation = cfg.weights.rig = cfg.weights.height = 0.5
    cfg.weights_on.moving_vehicles, cfg.weights_on.own_body = 0.0, 0.3
    cfg.height.ceiling_m = 20.0
    return cfg


@pytest.fixture(scope="session")
def load():
    return shipped_loss


@pytest.fixture(scope="session")
def make_scene():
    return random_scene


@pytest.fixture(scope="session")
def make_full_scene():
    return full_scene


@pytest.fixture(scope="session")
def every_term():
    return everything
