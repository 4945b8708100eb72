"""What single steps of the blocks compute, by hand."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from coopmap.models import MapAnything
from coopmap.models.fusion import Cameras, group_cameras
from coopmap.models.fusion.cameras import NUM_CAMERAS
from coopmap.models.fusion.directions import DirectionEmbedding, camera_encoding, encode_directions

from ..support import load_config
from .scenes import AZIMUTHS_DEG, PATCH, make_model, random_observation, unsettled


def test_encoding_of_directions():
    half = math.sqrt(0.5)
    rays = torch.tensor([[0.0, 0, 1], [1, 0, 0], [-half, -half, 0], [0, half, -half], [0, -1, 0]])
    cos_sin_azimuth_elevation = [[1.0, 0, 1, 0], [0, 1, 1, 0], [0, -1, half, half], [-1, 0, half, -half], [0, 0, 0, 1]]
    torch.testing.assert_close(encode_directions(rays), torch.tensor(cos_sin_azimuth_elevation))


def test_cameras_have_directions_of_their_own():
    """A patch lies where its middle pixels look; a camera that is turned sees it turned the other way."""
    cameras = group_cameras(random_observation("mean", views=1), "grouped")
    encoding = camera_encoding(cameras, (3, 12))[0]
    row, column = 1, 7
    azimuth = 2 * math.pi * ((column + 0.5) / 12 - 0.5)
    for slot, own in enumerate(AZIMUTHS_DEG):
        angles = azimuth, azimuth - math.radians(own)
        expected = [value for angle in angles for value in (math.cos(angle), math.sin(angle), 1.0, 0.0)]
        torch.testing.assert_close(encoding[slot, row, column], torch.tensor(expected), rtol=0, atol=1e-5)
    elevation = math.pi / 6  # of the first of three rows that span 90 degrees
    expected = torch.tensor([math.cos(elevation), math.sin(elevation)])
    torch.testing.assert_close(encoding[0, 0, 3, 2:4], expected, rtol=0, atol=0.01)  # the mean of rays 30 degrees apart


@pytest.mark.parametrize(("kind", "meet"), [("none", True), ("conv3d", True), ("mean", False)])
@torch.no_grad()
def test_edges_meet_in_panoramas_and_not_in_single_cameras(kind, meet):
    """The stem reads panoramas, also warped ones; where features are fused, it reads the cameras of one."""
    embed = MapAnything(load_config("mapanything_matching", {"fusion": {"kind": kind}})).encoder.model.patch_embed
    images = torch.randn(1, 3, 8, 128)
    # mirrored, not replaced: group normalization passes means and spreads of the whole image on to everywhere
    changed = torch.cat([images[..., :8].flip(-1), images[..., 8:]], dim=-1)
    first, middle, last = (embed(changed) - embed(images)).abs().mean(dim=-1)[0, [0, 8, -1]]
    assert first > 5 * middle
    assert (last > 5 * middle) == meet


@torch.no_grad()
def test_mean_of_direction_features_is_the_mean_of_the_features():
    cameras = group_cameras(random_observation("mean"), "grouped")
    embedding = DirectionEmbedding(5, std=1.0)
    expected = (embedding(cameras) * cameras.share.flatten(2)[..., None]).sum(dim=1)
    torch.testing.assert_close(embedding.mean(cameras, cameras.share), expected)


@torch.no_grad()
def test_concat_is_an_embedding_of_twelve_channels():
    model = unsettled(make_model({"kind": "concat", "directions": False}))
    embed, difference = model.encoder.model.patch_embed, model.fusion.difference.weight
    cameras = group_cameras(random_observation("concat"), "warped")
    seeing = cameras.angle.isfinite().sum(dim=1, keepdim=True)
    assert seeing.max() == 2
    scaled = torch.where(cameras.angle.isfinite(), 4 / seeing, 0)[:, :, None] * cameras.images
    weight = embed.proj.weight.repeat(1, NUM_CAMERAS, 1, 1) / NUM_CAMERAS + difference
    expected = F.conv2d(scaled.flatten(1, 2), weight, embed.proj.bias, stride=PATCH).flatten(2).transpose(1, 2)
    torch.testing.assert_close(model.fusion.embed(cameras, embed), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("kind", ["conv3d", "conv_gru"])
@torch.no_grad()
def test_convolutions_go_round_at_the_seam(kind):
    """What one column of cells shows reaches its neighbor across the edge of the panorama."""
    model = unsettled(make_model({"kind": kind, "directions": False}))
    cameras = group_cameras(random_observation(kind, views=1), model.fusion.layout)
    turned = cameras._replace(angle=cameras.angle.roll(1, -1), rays=cameras.rays.roll(PATCH, 2))
    if kind == "conv3d":
        turned = turned._replace(angle=cameras.angle.roll(PATCH, -1), images=cameras.images.roll(PATCH, -1))
    else:
        turned = turned._replace(grid=cameras.grid.roll(1, -2))
    model.encoder.model.pos_embed.zero_()
    tokens, expected = (
        model.fusion(these, model.encoder.model)[:, 1:].unflatten(1, (3, 12)) for these in (turned, cameras)
    )
    torch.testing.assert_close(tokens, expected.roll(1, 2), rtol=1e-4, atol=1e-5)


def test_attention_reaches_the_neighbors_of_what_a_cell_shows():
    """Cells that lie on the middles of a camera's patches depend on 3 x 3 of them, fewer at the border of the image."""
    height, width = 3, 5
    y, x = torch.meshgrid((torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width, indexing="ij")
    angle = torch.full((1, NUM_CAMERAS, height, width), torch.inf)
    angle[:, 2] = 0.1
    cameras = Cameras(
        images=torch.zeros(1, NUM_CAMERAS, 3, height * PATCH, width * PATCH),
        rays=F.normalize(torch.randn(1, height, width, 3), dim=-1),
        angle=angle,
        grid=torch.stack([x, y], dim=-1).expand(1, NUM_CAMERAS, -1, -1, -1) * 2 - 1,
        pose=torch.eye(4).expand(1, NUM_CAMERAS, 4, 4),
    )
    fusion = unsettled(make_model({"kind": "cross_attention", "radius": 1})).fusion
    maps = torch.randn(1, NUM_CAMERAS, 48, height, width, requires_grad=True)
    fused = fusion.fuse(maps, cameras).unflatten(1, (height, width))
    for row, column, rows, columns in ((1, 2, slice(0, 3), slice(1, 4)), (0, 4, slice(0, 2), slice(3, 5))):
        (gradient,) = torch.autograd.grad(fused[0, row, column].square().sum(), maps, retain_graph=True)
        reached = torch.zeros(NUM_CAMERAS, height, width, dtype=torch.bool)
        reached[2, rows, columns] = True
        assert torch.equal(gradient[0].abs().sum(dim=1) > 1e-4, reached)
    _, seen = fusion._keys_and_values(maps, cameras)
    assert seen.sum() == (2 + 3 + 2) * (2 + 3 + 3 + 3 + 2)  # what lies beyond the border is not its last patch again


@torch.no_grad()
def test_recurrence_passes_over_cameras_that_do_not_see():
    """One camera that works gives the same as the first and as the last of four."""
    fusion = unsettled(make_model({"kind": "conv_gru", "directions": False})).fusion
    cameras = group_cameras(random_observation("conv_gru"), "grouped")
    angle = torch.full_like(cameras.angle, torch.inf)
    angle[:, 0] = cameras.angle[:, 0]
    maps = torch.randn(2, NUM_CAMERAS, 48, 3, 4)
    first = fusion.fuse(maps, cameras._replace(angle=angle))
    last = fusion.fuse(maps.flip(1), cameras._replace(angle=angle.flip(1), grid=cameras.grid.flip(1)))
    torch.testing.assert_close(last, first)


@torch.no_grad()
def test_shared_blocks_run_on_cameras_and_the_rest_on_panoramas():
    model = make_model({"kind": "mean", "shared_blocks": 1})
    shapes = []
    for block in model.encoder.model.blocks:
        block.register_forward_hook(lambda block, inputs, output: shapes.append(tuple(output.shape)))
    model(random_observation("mean"))
    assert shapes == [(8, 1 + 3 * 4, 48), (2, 1 + 3 * 12, 48)]
