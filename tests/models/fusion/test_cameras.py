"""What order and absence of cameras change, and what they do not."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from coopmap.models import MapAnything
from coopmap.types import Observation

from ..test_mapanything import FIELDS, objective
from .scenes import make_model, permuted, random_observation, unsettled, without_camera

ORDER = [2, 0, 3, 1]


@torch.no_grad()
def permute_slots(model: MapAnything) -> None:
    """Slot embeddings move along with their cameras."""
    for name, parameter in model.fusion.named_parameters():
        if name.endswith("slot"):
            parameter.copy_(parameter[ORDER])


def largest_change(model: MapAnything, first: Observation, second: Observation) -> float:
    before, after = model(first), model(second)
    return max(float((getattr(before, name) - getattr(after, name)).abs().max()) for name in FIELDS)


@pytest.mark.parametrize(
    "fusion",
    [
        {"kind": kind, **options}
        for kind in ("mean", "cross_attention")
        for options in ({"directions": False}, {}, {"shared_blocks": 1})
    ]
    + [{"kind": "cross_attention", "radius": 1}],
    ids=str,
)
@torch.no_grad()
def test_order_of_the_cameras_does_not_matter_to_mean_and_attention(fusion):
    model = unsettled(make_model(fusion))
    observation = random_observation(fusion["kind"])
    before = model(observation)
    permute_slots(model)
    after = model(permuted(observation, ORDER))
    for name in FIELDS:
        torch.testing.assert_close(getattr(after, name), getattr(before, name), rtol=1e-4, atol=1e-4, msg=name)


@pytest.mark.parametrize("kind", ["concat", "conv3d", "conv_gru"])
@torch.no_grad()
def test_order_of_the_cameras_matters_to_channels_kernels_and_recurrence(kind):
    """By their structure, not by the slot embeddings: those move along."""
    model = unsettled(make_model({"kind": kind}))
    observation = random_observation(kind)
    before = model(observation)
    permute_slots(model)
    after = model(permuted(observation, ORDER))
    assert (after.depth - before.depth).abs().max() > 1e-2


@pytest.mark.parametrize("kind", ["mean", "conv_gru", "cross_attention", "concat", "conv3d"])
@torch.no_grad()
def test_directions_tell_left_from_right(kind):
    """A car turned by 180 degrees sees the same in every camera and cell, but elsewhere."""
    observation = random_observation(kind, views=1)
    about_y = torch.diag(torch.tensor([-1.0, 1, -1, 1]))
    turned = dataclasses.replace(
        observation,
        rays=observation.rays * torch.tensor([-1.0, 1, -1]),
        camera_pose=about_y @ observation.camera_pose,
    )
    assert largest_change(unsettled(make_model({"kind": kind})), observation, turned) > 1e-3
    assert largest_change(unsettled(make_model({"kind": kind, "directions": False})), observation, turned) == 0


def test_a_masked_out_camera_has_no_influence(variant):
    slot = 2
    model = unsettled(make_model(variant))
    observation = without_camera(random_observation(variant["kind"]), slot)
    leaves = {name: getattr(observation, name).clone().requires_grad_() for name in ("images", "camera_pose")}
    objective(model(dataclasses.replace(observation, **leaves))).backward()
    for name, leaf in leaves.items():
        assert torch.count_nonzero(leaf.grad[:, :, slot]) == 0, name
        for other in {0, 1, 3}:
            assert torch.count_nonzero(leaf.grad[:, :, other]) > 0, name
    with torch.no_grad():
        images, pose, grid = observation.images.clone(), observation.camera_pose.clone(), observation.camera_grid
        images[:, :, slot], pose[:, :, slot, :3, :3] = 50.0, torch.eye(3)
        if grid is not None:
            grid = grid.clone()
            grid[:, :, slot] = 0.5
        changed = dataclasses.replace(observation, images=images, camera_pose=pose, camera_grid=grid)
        assert largest_change(model, observation, changed) < 1e-5


@torch.no_grad()
def test_what_stands_in_the_grid_of_unseen_cells_does_not_matter():
    observation = random_observation("mean")
    assert observation.camera_grid.isnan().any()
    outside = dataclasses.replace(observation, camera_grid=observation.camera_grid.nan_to_num(-2.0))
    assert largest_change(unsettled(make_model({"kind": "cross_attention", "radius": 1})), observation, outside) == 0
