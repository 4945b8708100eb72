"""Gradients, checkpointing, mixed precision, and the rest of the model around a fusion block."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from coopmap import load_config as load_whole_config
from coopmap.config.checks import ConfigError
from coopmap.config.fusion import FUSION_LAYOUTS
from coopmap.models import MapAnything, load_weights
from coopmap.models.fusion import group_cameras
from coopmap.types import Prediction

from ..support import make_observation
from ..test_mapanything import FIELDS, objective
from .scenes import KINDS, make_config, make_model, random_observation, unsettled


def gradients(model: MapAnything, prediction: Prediction) -> dict[str, torch.Tensor | None]:
    model.zero_grad()
    objective(prediction).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def test_every_parameter_learns(variant):
    """All take part from the first step on; those behind a zero-initialized output once that has moved."""
    model = make_model(variant)
    observation = random_observation(variant["kind"])
    at_first = gradients(model, model(observation))
    assert [name for name, gradient in at_first.items() if gradient is None] == []
    assert any(gradient.any() for name, gradient in at_first.items() if name.startswith("fusion."))
    unsettled(model)
    later = gradients(model, model(observation))
    assert [name for name, gradient in later.items() if not gradient.any()] == []


def test_checkpointing_leaves_the_gradients_as_they_are(variant):
    observation = random_observation(variant["kind"], views=1)
    generous, frugal = (
        unsettled(make_model(variant, checkpointing={"encoder": checkpointing})) for checkpointing in (False, True)
    )
    expected = gradients(generous, generous(observation))
    for name, gradient in gradients(frugal, frugal(observation)).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-6, msg=name)


def test_mixed_precision(variant):
    observation = random_observation(variant["kind"], views=1)
    model = unsettled(make_model(variant))
    cameras = group_cameras(observation, model.fusion.layout)
    with torch.no_grad():
        expected = model.fusion(cameras, model.encoder.model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        tokens = model.fusion(cameras, model.encoder.model)
        prediction = model(observation)
    assert (tokens - expected).abs().mean() < 0.02 * expected.abs().mean()
    assert all(getattr(prediction, name).dtype == torch.float32 for name in FIELDS)
    assert all(gradient.isfinite().all() for gradient in gradients(model, prediction).values())


def test_nothing_waits_for_values(variant):
    """Tensors without content go through: no step asks the device for a number."""
    model, observation = make_model(variant), random_observation(variant["kind"])
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        cameras = group_cameras(observation.map(mode.from_tensor), model.fusion.layout)
        tokens = model.fusion(cameras, model.encoder.model)
        assert tokens.shape == (2, 1 + 3 * 12, 48)
        tokens.sum().backward()


@pytest.mark.parametrize("kind", ["mean", "concat"])
@torch.no_grad()
def test_class_token_and_geometric_inputs_still_work(kind):
    model = make_model(
        {"kind": kind},
        info_sharing={"encoder_tokens": True},
        inputs={"rays": True, "depth": True, "pose": True},
    )
    observation = random_observation(kind)
    plain = model(observation)
    priors = dataclasses.replace(
        observation,
        depth_prior=torch.full((1, 2, 42, 168), 5.0),
        pose_prior=torch.eye(4).expand(1, 2, 4, 4),
    )
    assert plain.depth.isfinite().all()
    assert (model(priors).depth - plain.depth).abs().max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_weights_without_fusion_load_and_the_rest_starts_alike(kind):
    plain, model = make_model({"kind": "none"}), make_model({"kind": kind})
    state = model.state_dict()
    assert {name for name in state if not name.startswith("fusion.")} == set(plain.state_dict())
    for name, value in plain.state_dict().items():
        assert torch.equal(state[name], value), name
    assert not load_weights(model, {name: value + 1 for name, value in plain.state_dict().items()}).mismatch


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        ("none", "mean", r"a model without fusion .*data.layout=panorama"),
        ("mean", "concat", r"data.layout=grouped.* camera_grid is missing"),
        ("concat", "mean", r"data.layout=warped.* camera_grid of shape \(1, 2, 4, 3, 12, 2\)"),
    ],
)
def test_images_of_another_layout_are_refused(kind, given, message):
    with pytest.raises(ValueError, match=message):
        make_model({"kind": kind})(random_observation(given))


def test_panoramas_are_refused_by_fusion():
    with pytest.raises(ValueError, match=r"data.layout=warped"):
        make_model({"kind": "conv3d"})(make_observation(1, 2))


@pytest.mark.parametrize(
    ("fusion", "message"),
    [
        ({"kind": "men"}, r"model.fusion.kind=men: .*did you mean mean"),
        ({"kind": "concat", "shared_blocks": 1}, r"model.fusion.shared_blocks=1: expected 0 with .*concat"),
        ({"kind": "mean", "shared_blocks": 3}, r"model.fusion.shared_blocks=3: expected at most .*depth=2"),
        ({"kind": "mean", "radius": 1}, r"model.fusion.radius=1: expected 0"),
        ({"kind": "cross_attention", "num_heads": 3}, r"model.fusion.num_heads=3: expected a divisor"),
    ],
)
def test_contradictory_options_name_the_key(fusion, message):
    with pytest.raises(Exception, match=message):
        make_config(fusion)


@pytest.mark.parametrize("kind", KINDS)
def test_every_choice_composes_with_its_layout_alone(kind):
    layout = FUSION_LAYOUTS[kind][0]
    composed = load_whole_config(["machine=laptop", f"model/fusion={kind}", f"data.layout={layout}"])
    assert composed.model.fusion.kind == kind
    with pytest.raises(ConfigError, match=rf"model.fusion.kind={kind} works on data.layout={layout}, not panorama"):
        load_whole_config(["machine=laptop", f"model/fusion={kind}"])


def test_options_of_single_cameras_need_them():
    with pytest.raises(ConfigError, match=r"model.rig_constraint=true .* data.layout=cameras"):
        load_whole_config(["machine=laptop", "model.rig_constraint=true"])
