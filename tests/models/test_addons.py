"""What add-ons are given, and what they may change."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from coopmap.config.model import ModelConfig
from coopmap.models import MapAnything, mapanything
from coopmap.models.addons import AddOn, build_addons

from .support import load_config, make_observation
from .test_mapanything import FIELDS

EVERY_SWITCH = {
    "inputs": {"pose": True, "rig": True},
    "spherical_encoding": True,
    "view_embedding": True,
    "rig_constraint": True,
}
GRID = (3, 5)


class Observer(AddOn):
    """Keeps what it is given and doubles the predicted depth."""

    layers = (0,)

    def after_decoding(self, prediction, trunk, observation):
        self.trunk = trunk
        return dataclasses.replace(prediction, depth=2 * prediction.depth)


def with_addons(monkeypatch: pytest.MonkeyPatch, cfg: ModelConfig, *addons: AddOn) -> MapAnything:
    torch.manual_seed(0)
    named = {f"addon{number}": addon for number, addon in enumerate(addons)}
    with monkeypatch.context() as patch:
        patch.setattr(mapanything, "build_addons", lambda _: named)
        return MapAnything(cfg).eval()


@pytest.mark.parametrize(
    ("switches", "last"), [({"pose_correction": True}, "pose_correction"), ({"pose_update": True}, "pose_update")]
)
def test_all_add_ons_in_their_order(switches, last):
    cfg = load_config("mapanything_tiny", EVERY_SWITCH, switches)
    names = ["view_embedding", "spherical_encoding", "rig_encoder", last, "rig_constraint"]
    assert list(build_addons(cfg)) == names
    model = MapAnything(cfg)
    assert model.addons == [getattr(model, name) for name in names]


def test_the_published_network_has_none(tiny_config, tiny):
    assert build_addons(tiny_config) == {}
    assert tiny.addons == []


@torch.no_grad()
def test_an_add_on_that_overrides_nothing_changes_nothing(monkeypatch, tiny_config):
    observation = make_observation(1, 2)
    plain, idle = with_addons(monkeypatch, tiny_config), with_addons(monkeypatch, tiny_config, AddOn())
    expected, prediction = plain(observation), idle(observation)
    assert all(torch.equal(getattr(prediction, field), getattr(expected, field)) for field in FIELDS)


@torch.no_grad()
def test_an_add_on_sees_the_tokens_that_it_asks_for_and_changes_the_prediction(monkeypatch, tiny_config):
    observation, dim = make_observation(2, 3), tiny_config.encoder.dim
    plain = with_addons(monkeypatch, tiny_config)
    model = with_addons(monkeypatch, tiny_config, AddOn(), observer := Observer())
    assert torch.equal(model(observation).depth, 2 * plain(observation).depth)
    trunk = observer.trunk
    assert trunk.grid == GRID
    encoded = model.encoder(observation.images.flatten(0, 1)).patches.unflatten(0, (2, 3))
    torch.testing.assert_close(trunk.encoded, encoded)
    assert [tuple(level.shape) for level in trunk.levels] == [(6, dim, *GRID)] * 4
    assert list(trunk.layers) == [0]
    # the tiny model's first intermediate layer is block 0, too
    first = trunk.levels[1].flatten(2).transpose(1, 2).unflatten(0, (2, 3))
    assert torch.equal(trunk.layers[0], first)
    assert not torch.equal(trunk.layers[0], trunk.encoded)
