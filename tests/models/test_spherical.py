"""Directions of patches as features."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from coopmap.config.data import AugmentationConfig, DataConfig
from coopmap.config.fusion import FusionConfig
from coopmap.config.model import EncoderConfig, HeadsConfig, ModelConfig
from coopmap.config.schema import Config
from coopmap.geometry.cameras import PanoramaCamera, camera_rays
from coopmap.models import MapAnything, load_weights
from coopmap.models.addons.spherical import SphericalEncoding, direction_features, patch_directions
from coopmap.types import Observation

from .support import load_config, make_observation

PATCH = 14


def panorama_rays(rows: int = 3, columns: int = 12) -> torch.Tensor:
    camera = PanoramaCamera(PATCH * rows, PATCH * columns, np.deg2rad(90.0))
    return torch.from_numpy(camera_rays(camera)).float()


def panorama_observation(views: int = 2) -> Observation:
    rays = panorama_rays()
    observation = make_observation(1, views, *rays.shape[:2])
    return dataclasses.replace(observation, rays=rays.expand(1, views, *rays.shape))


def make_model(spherical: bool = True, **changes) -> MapAnything:
    torch.manual_seed(0)
    return MapAnything(load_config("mapanything_tiny", {"spherical_encoding": spherical, **changes}))


def test_patches_look_along_the_rays_of_their_centers():
    directions = patch_directions(panorama_rays()[None], PATCH)[0]
    expected = camera_rays(PanoramaCamera(3, 12, np.deg2rad(90.0))).reshape(-1, 3)
    angle = np.arccos(np.clip((directions.numpy() * expected).sum(-1), -1, 1))
    assert np.rad2deg(angle).max() < 1.0  # patches here are 30 degrees wide
    middle = directions.unflatten(0, (3, 12))[1]
    np.testing.assert_allclose(middle, expected.reshape(3, 12, 3)[1], atol=1e-5)  # on the horizon exactly


def test_features_of_a_direction_worked_out_by_hand():
    """To the right, 30 degrees up."""
    direction = torch.tensor([np.sqrt(3) / 2, -0.5, 0.0]).float()
    features = direction_features(direction)
    azimuth, elevation = np.pi / 2, np.pi / 6
    expected = [np.sqrt(3) / 2, -0.5, 0.0]
    for function in (np.sin, np.cos):
        expected += [function(multiple * angle) for angle in (azimuth, elevation) for multiple in (1, 2, 3, 4)]
    np.testing.assert_allclose(features, expected, atol=1e-6)


def test_features_have_no_seam():
    """The step from the last column to the first is a step like any other."""
    camera = PanoramaCamera(4, 144, np.deg2rad(90.0))
    features = direction_features(torch.from_numpy(camera_rays(camera)))
    step = (features.roll(-1, dims=1) - features).norm(dim=-1)
    torch.testing.assert_close(step, step[:, :1].expand_as(step))
    assert step.min() > 0


@torch.no_grad()
def test_nothing_changes_at_first_and_other_weights_start_alike():
    plain, encoded = make_model(spherical=False), make_model()
    assert all(torch.equal(value, encoded.state_dict()[name]) for name, value in plain.state_dict().items())
    observation = panorama_observation()
    first, second = plain(observation), encoded(observation)
    for field in dataclasses.fields(first):
        if field.name != "matches":
            assert torch.equal(getattr(first, field.name), getattr(second, field.name)), field.name


def step(model: MapAnything) -> None:
    prediction = model(panorama_observation())
    (prediction.points_world.square().mean() + prediction.pose_quat[..., 0].mean()).backward()


def test_the_last_layer_learns_first_and_then_all_do():
    model = make_model()
    optimizer = torch.optim.SGD(model.spherical_encoding.parameters(), lr=1e-2)
    step(model)
    gradients = {name: value.grad for name, value in model.spherical_encoding.named_parameters()}
    assert all(gradient is not None for gradient in gradients.values())  # DDP waits for every one
    assert gradients["output.weight"].any()
    assert gradients["output.bias"].any()
    optimizer.step()
    model.zero_grad()
    step(model)
    assert all(value.grad.any() for value in model.spherical_encoding.parameters())


@torch.no_grad()
def test_patches_are_told_apart_once_there_are_weights():
    encoding = SphericalEncoding(8, PATCH)
    torch.nn.init.normal_(encoding.output.weight)
    tokens = encoding(panorama_rays()[None, None])
    assert tokens.shape == (1, 1, 36, 8)
    distance = torch.cdist(tokens[0, 0], tokens[0, 0]) + 10 * torch.eye(36)
    assert distance.min() > 1e-3


def test_weights_of_public_models_load_and_leave_it_as_it_is():
    weights = {name: value.clone() for name, value in make_model(spherical=False).state_dict().items()}
    model = make_model()
    with torch.no_grad():
        model.spherical_encoding.output.weight.fill_(1.0)
    report = load_weights(model, weights)
    assert not report.mismatch
    assert (model.spherical_encoding.output.weight == 1).all()
    load_weights(make_model(), model.state_dict())  # and its own weights strictly


@pytest.mark.parametrize(("layout", "fusion"), [("panorama", "none"), ("warped", "concat"), ("grouped", "mean")])
def test_panorama_layouts_take_the_options(layout, fusion):
    check_layout(layout, spherical=True, circular=True, fusion=fusion)


def test_a_stem_that_joins_left_and_right_does_not_read_single_cameras():
    encoder = EncoderConfig(stem="conv", patch_size=2, circular=True)
    still = AugmentationConfig(yaw_roll=False)  # the cameras of a mosaic stand around the car
    Config(data=DataConfig(layout="mosaic", augmentation=still), model=ModelConfig(encoder=encoder))
    with pytest.raises(ValueError, match=r"encoder\.circular=true is for 360-degree panoramas"):
        Config(data=DataConfig(layout="cameras"), model=ModelConfig(encoder=encoder))


@pytest.mark.parametrize(
    ("spherical", "circular", "key"),
    [(True, False, "model.spherical_encoding=true"), (False, True, "model.heads.circular=true")],
)
def test_single_pinhole_images_are_refused(spherical, circular, key):
    check_layout("cameras", spherical=False, circular=False)
    with pytest.raises(ValueError, match=f"{key} is for 360-degree panoramas.*data.layout=cameras"):
        check_layout("cameras", spherical=spherical, circular=circular)


def check_layout(layout: str, spherical: bool, circular: bool, fusion: str = "none") -> None:
    heads, kind = HeadsConfig(circular=circular), FusionConfig(kind=fusion)
    model = ModelConfig(spherical_encoding=spherical, heads=heads, fusion=kind)
    Config(data=DataConfig(layout=layout), model=model)
