"""An untrained block gives what it is defined by: the mean over the cameras that see a cell, or the winner."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from coopmap.models import MapAnything, load_weights
from coopmap.models.fusion import group_cameras
from coopmap.types import Observation

from ..test_mapanything import FIELDS
from .scenes import KINDS, make_config, make_model, random_observation, without_camera

REFERENCE = {"mean": "mean", "concat": "mean", "conv3d": "winner", "conv_gru": "winner", "cross_attention": "winner"}


def weights_by_hand(angle: Tensor, kind: str) -> Tensor:
    """Weight of each camera in each cell, one cell after the other."""
    weights = torch.zeros_like(angle)
    for car, row, column in torch.cartesian_prod(*(torch.arange(size) for size in (len(angle), *angle.shape[2:]))):
        angles = angle[car, :, row, column].tolist()
        seeing = [slot for slot, value in enumerate(angles) if math.isfinite(value)]
        if REFERENCE[kind] == "winner":
            seeing = sorted(seeing, key=angles.__getitem__)[:1]
        for slot in seeing:
            weights[car, slot, row, column] = 1 / len(seeing)
    return weights


def bilinear_by_hand(patches: Tensor, x: float, y: float) -> Tensor:
    """Value of patches (c h w) at pixel coordinates in units of patches, whose centers lie at + 0.5."""
    _, height, width = patches.shape
    x, y = min(max(x - 0.5, 0), width - 1), min(max(y - 0.5, 0), height - 1)
    left, top = min(int(x), width - 2), min(int(y), height - 2)
    right_share, bottom_share = x - left, y - top
    above = (1 - right_share) * patches[:, top, left] + right_share * patches[:, top, left + 1]
    below = (1 - right_share) * patches[:, top + 1, left] + right_share * patches[:, top + 1, left + 1]
    return (1 - bottom_share) * above + bottom_share * below


def embedded_by_hand(model: MapAnything, observation: Observation, kind: str) -> Tensor:
    """Patch embeddings of the panorama without positions, ``b n c``."""
    embed = model.encoder.model.patch_embed.proj
    images, angle = observation.images.flatten(0, 1), observation.camera_angle.flatten(0, 1)
    weights = weights_by_hand(angle, kind)
    if observation.camera_grid is None:
        return embed((images * weights[:, :, None]).sum(dim=1)).flatten(2).transpose(1, 2)
    grid = observation.camera_grid.flatten(0, 1)
    empty = embed(torch.zeros(1, 3, 14, 14)).flatten()
    cars = []
    for car in range(len(images)):
        patches = embed(images[car])
        height, width = patches.shape[-2:]
        cells = []
        for row in range(angle.shape[-2]):
            for column in range(angle.shape[-1]):
                share = weights[car, :, row, column]
                places = ((grid[car, :, row, column] + 1) / 2 * torch.tensor([width, height])).tolist()
                seen = [share[slot] * bilinear_by_hand(patches[slot], *places[slot]) for slot in share.nonzero()[:, 0]]
                cells.append(sum(seen) if seen else empty)
        cars.append(torch.stack(cells))
    return torch.stack(cars)


@pytest.mark.parametrize("directions", [True, False])
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_untrained_block_equals_its_reference(kind, directions):
    observation = without_camera(random_observation(kind), slot=3)  # so that some cells are seen by none
    model = make_model({"kind": kind, "directions": directions})
    torch.nn.init.normal_(model.encoder.model.patch_embed.proj.bias)  # what cells without a camera show
    tokens = model.fusion(group_cameras(observation, model.fusion.layout), model.encoder.model)
    expected = model.encoder.model.place(embedded_by_hand(model, observation, kind), (3, 12))
    torch.testing.assert_close(tokens, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["concat", "conv3d"])
@torch.no_grad()
def test_pretrained_model_sees_the_stitched_panorama(kind):
    """The new parts are absent in the weights, and what they add is nothing until they are trained."""
    pretrained = MapAnything(make_config({"kind": "none"}))
    model = make_model({"kind": kind})
    load_weights(model, pretrained.state_dict())
    observation = random_observation(kind)
    weights = weights_by_hand(observation.camera_angle.flatten(0, 1), kind).unflatten(0, (1, 2))
    stitched = (observation.images * weights[:, :, :, None]).sum(dim=2)
    expected = pretrained(dataclasses.replace(observation, images=stitched, camera_angle=None, camera_pose=None))
    prediction = model(observation)
    for name in FIELDS:
        torch.testing.assert_close(getattr(prediction, name), getattr(expected, name), rtol=1e-6, atol=1e-6, msg=name)


@torch.no_grad()
def test_shared_blocks_without_any_effect_change_nothing():
    """Blocks that add nothing leave the features as the patch embedding made them, positions exchanged."""
    model, plain = make_model({"kind": "mean", "shared_blocks": 2}), make_model({"kind": "mean"})
    for transformer in (model.encoder.model, plain.encoder.model):
        for block in transformer.blocks:
            for layer in (block.attn.proj, block.mlp.fc2):
                torch.nn.init.zeros_(layer.weight)
                torch.nn.init.zeros_(layer.bias)
    observation = random_observation("mean")
    torch.testing.assert_close(model(observation).depth, plain(observation).depth, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_class_token_of_shared_blocks_is_the_mean_over_the_cameras():
    model = make_model({"kind": "mean", "shared_blocks": 1})
    encoder = model.encoder.model
    observation = without_camera(random_observation("mean", views=1), slot=1)
    tokens = model.fusion(group_cameras(observation, "grouped"), encoder)
    after_one = encoder.blocks[0](encoder.embed(observation.images[0, 0]))[:, 0]
    torch.testing.assert_close(tokens[0, 0], after_one[[0, 2, 3]].mean(dim=0), rtol=0, atol=1e-6)


@torch.no_grad()
def test_a_car_without_any_camera_is_an_empty_panorama(variant):
    observation = random_observation(variant["kind"], views=1)
    blind = dataclasses.replace(observation, camera_angle=torch.full_like(observation.camera_angle, torch.inf))
    model = make_model(variant)
    tokens = model.fusion(group_cameras(blind, model.fusion.layout), model.encoder.model)
    torch.testing.assert_close(tokens, model.encoder.model.embed(torch.zeros(1, 3, 42, 168)), rtol=0, atol=1e-6)
