"""What matching and alignment add to the released model at full size, counted."""

from __future__ import annotations

import functools

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from coopmap.geometry.pose_averaging import average_relative_poses
from coopmap.models import MapAnything
from coopmap.models.counting import WorkCounter, count_sample, hollow
from coopmap.types import Observation

from .support import load_config

IMAGES, RAYS = (1, 4, 3, 252, 1008), (1, 4, 252, 1008, 3)
LARGEST_SHARE = {"tokens": 0.01, "dense": 0.03}
"""Of what the model takes without; ``dense`` keeps maps of the dense head, 1.4 % of the peak memory."""


def full_size(matching: str) -> MapAnything:
    """The released model on the meta device: ``without`` matching, by ``tokens``, or by ``dense`` features too."""
    enabled = {"enabled": matching != "without", "dense": matching == "dense"}
    changes = {"matching": enabled, "pose_from": "alignment" if enabled["enabled"] else "head"}
    with torch.device("meta"):
        return MapAnything(load_config("mapanything_v1", changes))


@functools.cache
def counted(matching: str) -> dict[str, int]:
    """Parameters, and matrix FLOPs and peak memory of an answer to four agents: with averaging and the bundle."""
    # RoMa keeps a constant of its first call, which must not be a fake tensor's.
    average_relative_poses(torch.eye(4).expand(1, 1, 2, 2, 4, 4), torch.ones(1, 1, 2, 2))
    model = full_size(matching)
    with FakeTensorMode(allow_non_fake_inputs=True):
        hollow(model, "cpu")
        with WorkCounter() as counter, torch.no_grad():
            model.eval()(Observation(images=torch.empty(IMAGES), rays=torch.empty(RAYS)))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return {"parameters": parameters, "flops": counter.work.flops, "bytes": counter.peak_bytes}


@pytest.mark.parametrize("matching", ["tokens", "dense"])
def test_next_to_the_model_it_is_small(matching: str):
    """No host sync either: fake tensors have no values to read."""
    amounts = counted(matching)
    for name, amount in counted("without").items():
        assert amount < amounts[name] < (1 + LARGEST_SHARE[matching]) * amount, name


@pytest.mark.slow
def test_next_to_a_training_step_it_is_small():
    """FLOPs of forward and backward pass; with dense features, which takes the most."""
    observation = Observation(images=torch.empty(IMAGES, device="meta"), rays=torch.empty(RAYS, device="meta"))
    without, dense = (count_sample(full_size(name).train(), observation) for name in ("without", "dense"))
    for name in ("forward_flops", "training_flops"):
        assert without[name] < dense[name] < (1 + LARGEST_SHARE["dense"]) * without[name], name
