"""What matching and alignment add to the released model at full size, counted."""

from __future__ import annotations

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from coopmap.geometry.pose_averaging import average_relative_poses
from coopmap.models import MapAnything
from coopmap.models.counting import WorkCounter, hollow
from coopmap.types import Observation

from .support import load_config

VIEWS, HEIGHT, WIDTH = 4, 252, 1008
LARGEST_SHARE = 0.01


def counted(matching: bool) -> dict[str, int]:
    """Parameters, and matrix FLOPs and peak memory of an answer to four agents: with averaging and the bundle."""
    # RoMa keeps a constant of its first call, which must not be a fake tensor's.
    average_relative_poses(torch.eye(4).expand(1, 1, 2, 2, 4, 4), torch.ones(1, 1, 2, 2))
    changes = {"matching": {"enabled": matching}, "pose_from": "alignment" if matching else "head"}
    with torch.device("meta"):
        model = MapAnything(load_config("mapanything_v1", changes))
    with FakeTensorMode(allow_non_fake_inputs=True):
        hollow(model, "cpu")
        observation = Observation(
            images=torch.empty(1, VIEWS, 3, HEIGHT, WIDTH), rays=torch.empty(1, VIEWS, HEIGHT, WIDTH, 3)
        )
        with WorkCounter() as counter, torch.no_grad():
            model.eval()(observation)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return {"parameters": parameters, "flops": counter.work.flops, "bytes": counter.peak_bytes}


def test_next_to_the_model_it_is_small():
    """No host sync either: fake tensors have no values to read."""
    without, with_matching = counted(matching=False), counted(matching=True)
    for name, amount in without.items():
        assert amount < with_matching[name] < (1 + LARGEST_SHARE) * amount, name
