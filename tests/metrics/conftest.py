"""Records to measure: targets from a few points, and predictions that are right but for what a test changes."""

import math
from dataclasses import replace

import pytest
import torch

from coopmap.geometry import pose_from_quat_trans, quat_trans_from_pose, relative_pose, transform_points
from coopmap.metrics import Measures, measure
from coopmap.types import Prediction, Target


def yaw_pose(degrees, x, y, z):
    half = math.radians(degrees) / 2
    return pose_from_quat_trans(torch.tensor([0.0, math.sin(half), 0.0, math.cos(half)]), torch.tensor([x, y, z]))


def make_target(depth, pose=None, rays=None, valid=None, **fields):
    """From depths ``(b, v, h, w)``; looking ahead from the origin, all known, unless told otherwise."""
    depth = torch.as_tensor(depth)
    ahead = torch.tensor([0.0, 0.0, 1.0]).expand(*depth.shape, 3)
    values = {
        "rays": ahead if rays is None else rays,
        "depth": depth,
        "valid": depth > 0 if valid is None else torch.as_tensor(valid),
        "non_ambiguous": torch.ones_like(depth, dtype=torch.bool),
        "pose": torch.eye(4).expand(*depth.shape[:2], 4, 4) if pose is None else pose,
        "is_metric": torch.ones(len(depth), dtype=torch.bool),
        "is_synthetic": torch.ones(len(depth), dtype=torch.bool),
    }
    return Target(**(values | fields))


def make_prediction(target, pose=None, depth=None, mask_logits=None):
    """What a perfect model says of a target, but for the fields given (``pose`` in the world frame)."""
    pose = target.pose if pose is None else pose
    depth = target.depth if depth is None else torch.as_tensor(depth)
    pose = relative_pose(pose[:, :1].double(), pose.double()).float()
    quat, trans = quat_trans_from_pose(pose)
    points = target.rays * depth[..., None]
    return Prediction(
        rays=target.rays,
        depth=depth,
        pose_trans=trans,
        pose_quat=quat,
        scale=torch.ones(len(depth)),
        confidence=torch.ones_like(depth),
        mask_logits=target.non_ambiguous * 2.0 - 1 if mask_logits is None else torch.as_tensor(mask_logits),
        points_view=points,
        points_world=transform_points(pose, points.flatten(2, 3)).view_as(points),
    )


def make_scene(seed, batch=2, views=3, height=8, width=16):
    """A random target with moving vehicles and own bodies, and a prediction that is somewhat off."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(low, high, *shape):
        return low + (high - low) * torch.rand(*shape, generator=generator)

    pixels = (batch, views, height, width)
    yaw, place = uniform(-180, 180, batch, views), uniform(-20, 20, batch, views, 3)
    pose = torch.stack(
        [
            torch.stack([yaw_pose(a.item(), *p.tolist()) for a, p in zip(*of, strict=True)])
            for of in zip(yaw, place, strict=True)
        ]
    )
    target = make_target(
        uniform(2, 100, *pixels),
        pose=pose,
        rays=torch.nn.functional.normalize(torch.randn(*pixels, 3, generator=generator), dim=-1),
        valid=uniform(0, 1, *pixels) < 0.7,
        non_ambiguous=uniform(0, 1, *pixels) < 0.8,
        moving=uniform(0, 1, *pixels) < 0.2,
        own_body=uniform(0, 1, *pixels) < 0.1,
    )
    shift = torch.zeros_like(pose)
    shift[..., :3, 3] = uniform(-2, 2, batch, views, 3)
    prediction = make_prediction(
        target,
        pose=pose + shift,
        depth=target.depth * uniform(0.8, 1.2, *pixels),
        mask_logits=uniform(-2, 3, *pixels),
    )
    return prediction, target


def figures_of(*scenes):
    """What a split of these batches comes to."""
    measures = Measures()
    for prediction, target in scenes:
        measures.update(measure(prediction, target))
    return measures.compute()


@pytest.fixture(scope="session")
def records():
    """The functions above."""

    class Records:
        target, prediction, scene = map(staticmethod, (make_target, make_prediction, make_scene))
        figures = staticmethod(figures_of)
        yaw_pose = staticmethod(yaw_pose)
        replace = staticmethod(replace)

    return Records
