"""Co-visibility against ray casting in the town."""

from pathlib import Path

import numpy as np
import torch

from coopmap.data import build_split
from coopmap.data.opv2v import read_agent
from coopmap.geometry import points_ue_from_cv
from coopmap.geometry.cameras import PinholeCamera
from coopmap.metrics.covisibility import covisibility
from coopmap.synthetic import read_config
from coopmap.synthetic.raycast import Caster

from ..worlds import build_scene

WITHIN_M = 0.2


def visible_share(town, sample, i, j):
    """Of i's points those that some camera of j has in its image with nothing in front of them."""
    meta, target = sample.meta, sample.target
    scene = build_scene(read_config(town.root), "validate", meta.scenario, meta.frame, without=meta.agents[j])
    caster = Caster(points_ue_from_cv(np.asarray(scene.triangles)))
    path = Path(town.root) / "validate" / meta.scenario / meta.agents[j] / f"{meta.frame}.yaml"
    rig = read_agent(path).rig
    points = target.points_world[i][target.valid[i]][::29].numpy().astype(np.float64)
    seen = np.zeros(len(points), dtype=bool)
    for intrinsics, agent_from_camera in zip(rig.intrinsics, rig.agent_from_camera, strict=True):
        pose = target.pose[j].numpy().astype(np.float64) @ agent_from_camera
        offset = points - pose[:3, 3]
        _, inside = PinholeCamera(intrinsics, *rig.image_size).project(offset @ pose[:3, :3])
        hits = caster.first_hits(points_ue_from_cv(pose[:3, 3]), points_ue_from_cv(offset))
        seen |= inside & (hits.distance > 1 - WITHIN_M / np.linalg.norm(offset, axis=1))
    return seen.mean()


def test_covisibility_agrees_with_ray_casting(town, config_of):
    dataset = build_split(config_of({"height": 252, "width": 1008}), "val")
    errors = []
    for i in range(len(dataset)):
        sample = dataset[i]
        measured = covisibility(sample.target.map(lambda tensor: tensor[None]))[0]
        pairs = torch.triu_indices(len(sample.meta.agents), len(sample.meta.agents), offset=1).T.tolist()
        for share, (a, b) in zip(measured.tolist(), pairs, strict=True):
            expected = (visible_share(town, sample, a, b) + visible_share(town, sample, b, a)) / 2
            errors.append(abs(share - expected))
    # the images here have 100 columns each: outlines are a degree wide
    assert np.mean(errors) < 0.1
    assert np.median(errors) < 0.08
