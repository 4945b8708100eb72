from __future__ import annotations

import math

import torch

from coopmap.models import MapAnything
from coopmap.models.initialization import sincos_embedding

from .support import load_config, make_observation


def test_sincos_embedding_by_hand():
    table = sincos_embedding(grid=3, dim=8)
    column, row = 2, 1
    expected = []
    for position in (column, row):
        expected += [math.sin(position), math.sin(position / 100), math.cos(position), math.cos(position / 100)]
    torch.testing.assert_close(table[row * 3 + column], torch.tensor(expected))


@torch.no_grad()
def test_untrained_poses_are_close_and_differ_by_what_the_images_show(tiny):
    prediction = tiny(make_observation(4, 2))
    assert prediction.pose_trans.norm(dim=-1).max() < 20
    assert prediction.pose_trans.std(dim=0).min() > 1e-4


def test_released_initialization_is_that_of_the_public_code():
    model = MapAnything(load_config("mapanything_tiny", {"initialization": "released"}))
    assert abs(model.encoder.model.blocks[0].attn.qkv.weight.std().item() - 0.02) < 1e-3
    assert abs(model.encoder.model.pos_embed.std().item() - 0.02) < 1e-3
