"""Images and numbers of views that users have, and what a step may not do: wait for the device, miss a parameter."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from coopmap.models import MapAnything
from coopmap.models.counting import hollow
from coopmap.types import Observation

from .support import ALL_INPUTS, load_config, make_observation
from .test_mapanything import FIELDS, objective

KINDS = ("rays", "depth", "pose")
PANORAMA, SQUARE, PINHOLE = (252, 1008), (224, 224), (336, 448)


def with_priors(batch: int, views: int, height: int, width: int) -> Observation:
    """All geometric inputs; priors of every second sample are not in meters."""
    generator = torch.Generator().manual_seed(1)
    pose = torch.eye(4).repeat(batch, views, 1, 1)
    pose[..., :3, 3] = torch.randn(batch, views, 3, generator=generator)
    metric = (torch.arange(batch) % 2 == 0)[:, None].expand(batch, views)
    return dataclasses.replace(
        make_observation(batch, views, height, width),
        depth_prior=torch.rand(batch, views, height, width, generator=generator) + 1,
        pose_prior=pose,
        depth_is_metric=metric,
        pose_is_metric=metric,
    )


@pytest.fixture(scope="module")
def with_all_encoders() -> MapAnything:
    torch.manual_seed(0)
    return MapAnything(load_config("mapanything_tiny", ALL_INPUTS))


@pytest.mark.parametrize(
    ("batch", "views", "size"),
    [(1, 2, PANORAMA), (1, 1, SQUARE), (2, 2, SQUARE), (1, 1, PINHOLE), (2, 2, PINHOLE)]
    + [(1, views, (28, 56)) for views in range(1, 9)],
)
def test_training_step_for_any_shape(with_all_encoders, batch, views, size):
    prediction = with_all_encoders(with_priors(batch, views, *size))
    assert prediction.points_world.shape == (batch, views, *size, 3)
    assert prediction.pose_quat.shape == (batch, views, 4)
    with_all_encoders.zero_grad()
    objective(prediction).backward()
    assert all(parameter.grad.isfinite().all() for parameter in with_all_encoders.parameters())


@pytest.mark.parametrize("size", [SQUARE, PINHOLE])
@torch.no_grad()
def test_metric_and_other_samples_share_a_batch_of_any_shape(with_all_encoders, size):
    both = with_priors(2, 2, *size)
    together = with_all_encoders(both)
    for index in range(2):
        alone = with_all_encoders(both.map(lambda tensor, index=index: tensor[index : index + 1]))
        for name in FIELDS:
            value = getattr(together, name)[index : index + 1]
            torch.testing.assert_close(value, getattr(alone, name), rtol=1e-4, atol=1e-4, msg=name)


@pytest.mark.parametrize("given", [(), ("rays",), ("depth",), ("pose",), ("rays", "pose"), KINDS])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_every_parameter_gets_a_gradient_from_every_step(given, checkpointing):
    """A model has the encoders of its inputs; DDP would wait for a gradient that never comes."""
    parts = dict.fromkeys(("encoder", "info_sharing", "heads"), checkpointing)
    inputs = {kind: kind in given for kind in KINDS}
    model = MapAnything(load_config("mapanything_tiny", {"inputs": inputs, "checkpointing": parts})).train()
    for absent in (False, True):  # data with priors, and without
        observation = make_observation(1, 2, 28, 56) if absent else with_priors(1, 2, 28, 56)
        model.zero_grad()
        objective(model(observation)).backward()
        assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


def masked(observation: Observation, given: tuple[str, ...]) -> Observation:
    """Only ``given`` inputs, and of these only those of the first view."""
    first = torch.arange(observation.images.shape[1])[None] == 0
    return dataclasses.replace(
        observation, **{f"{kind}_given": first if kind in given else first & False for kind in KINDS}
    )


@pytest.mark.parametrize("given", [(), ("rays",), ("depth",), ("pose",), KINDS])
@pytest.mark.parametrize("training", [True, False])
def test_no_value_is_looked_at_on_the_way(given, training):
    """Looking at a value of a tensor makes the host wait for the GPU; a tensor without content refuses."""
    with torch.device("meta"):
        model = MapAnything(load_config("mapanything_tiny", ALL_INPUTS)).train(training)
    with FakeTensorMode():
        hollow(model, "cpu")
        prediction = model(masked(with_priors(2, 3, 28, 56), given))
        if training:
            objective(prediction).backward()


def test_looking_at_a_value_would_be_noticed():
    with FakeTensorMode(), pytest.raises(DataDependentOutputException):
        make_observation(1, 1).images.sum().item()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("given", [(), KINDS])
def test_no_synchronization_on_cuda(given):
    torch.manual_seed(0)
    model = MapAnything(load_config("mapanything_tiny", ALL_INPUTS)).cuda()
    observation = masked(with_priors(2, 3, 28, 56), given).to("cuda")
    objective(model(observation)).backward()  # libraries set themselves up in the first step
    torch.cuda.set_sync_debug_mode("error")
    try:
        objective(model(observation)).backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
