"""Co-visibility against ray casting, in the town and on streets."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from coopmap.config.data import DataConfig
from coopmap.config.synth import ScenarioCounts, TownConfig
from coopmap.data import build_split
from coopmap.data.opv2v import read_agent
from coopmap.geometry import points_ue_from_cv
from coopmap.geometry.cameras import PinholeCamera
from coopmap.metrics.covisibility import covisibility
from coopmap.synthetic import read_config, render_town
from coopmap.synthetic.raycast import Caster
from coopmap.types import Sample

from ..worlds import build_scene, tiny_streets

WITHIN_M = 0.2


@pytest.fixture(scope="module")
def sharp_streets(make_once: Callable[[str, Callable[[Path], None]], Path]) -> TownConfig:
    """Two streets of validation with images of 400 x 300 pixels: coarser ones skip parts of a road far off."""

    def config(folder: Path) -> TownConfig:
        counts = ScenarioCounts(train=0, validate=2, test=0)
        return tiny_streets(str(folder / "streets"), str(folder / "depth"), scenarios=counts, image_scale=0.5)

    return config(make_once("sharp_streets", lambda folder: render_town(config(folder))))


def visible_share(root: str, sample: Sample, i: int, j: int) -> float:
    """Of i's points those that some camera of j has in its image with nothing in front of them."""
    meta, target = sample.meta, sample.target
    scene = build_scene(read_config(root), "validate", meta.scenario, meta.frame, without=meta.agents[j])
    caster = Caster(points_ue_from_cv(np.asarray(scene.triangles)))
    path = Path(root) / "validate" / meta.scenario / meta.agents[j] / f"{meta.frame}.yaml"
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


def errors(data: DataConfig) -> np.ndarray:
    """Measured shares minus true ones, of all pairs of the validation split."""
    dataset = build_split(data, "val")
    found = []
    for i in range(len(dataset)):
        sample = dataset[i]
        measured = covisibility(sample.target.map(lambda tensor: tensor[None]))[0]
        pairs = torch.triu_indices(len(sample.meta.agents), len(sample.meta.agents), offset=1).T.tolist()
        for share, (a, b) in zip(measured.tolist(), pairs, strict=True):
            found.append(share - (visible_share(data.root, sample, a, b) + visible_share(data.root, sample, b, a)) / 2)
    return np.array(found)


def test_in_the_town(config_of: Callable[..., DataConfig]) -> None:
    """Images have 100 columns: outlines are a degree wide."""
    off = np.abs(errors(config_of({"height": 252, "width": 1008})))
    assert off.mean() < 0.09
    assert np.median(off) < 0.06


def test_on_streets(sharp_streets: TownConfig, config_of: Callable[..., DataConfig]) -> None:
    """One pair of four is 0.2 too low: of the road around the other car each knows two rows of points, 5 m apart."""
    paths = {"root": sharp_streets.root, "depth_root": sharp_streets.depth_root}
    off = np.abs(errors(config_of({"height": 252, "width": 1008}, **paths)))
    assert len(off) == 4
    assert np.sort(off)[-2] < 0.07
    assert off.max() < 0.22
