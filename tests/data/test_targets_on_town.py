"""Ground truth of the panoramas against the mesh that the town was rendered from."""

import numpy as np
import pytest
import torch
import trimesh

from coopmap.config.data import DepthConfig
from coopmap.data import build_split
from coopmap.data.opv2v.lidar import drop_own_body
from coopmap.data.opv2v.pcd import read_sweep
from coopmap.geometry import carla_from_pose, pose_ue_from_cv
from coopmap.synthetic import read_config

from ..worlds import build_scene

STAND_OFF_M = 0.2


def distance_to_mesh(scene: trimesh.Trimesh, points: np.ndarray) -> np.ndarray:
    """Upper bound, at most sqrt(3) times the distance: the nearest surface along the three axes."""
    best = np.full(len(points), np.inf)
    for direction in np.concatenate([np.eye(3), -np.eye(3)]):
        start = points - STAND_OFF_M * direction
        hits, rays, _ = scene.ray.intersects_location(start, np.tile(direction, (len(start), 1)), multiple_hits=True)
        np.minimum.at(best, rays, np.abs(np.linalg.norm(hits - start[rays], axis=-1) - STAND_OFF_M))
    return best


def world_points(sample, view: int, number: int = 400) -> np.ndarray:
    target = sample.target
    known = target.points_world[view][target.valid[view]].numpy().astype(np.float64)
    return np.random.default_rng(view).choice(known, number, replace=False)


def scene_of(town, sample):
    config = read_config(town.root)
    return build_scene(config, "validate", sample.meta.scenario, sample.meta.frame)


@pytest.mark.parametrize("geometry", ["content", "central"])
def test_targets_of_all_agents_lie_on_the_mesh(town, config_of, geometry):
    dataset = build_split(config_of({"geometry": geometry}), "val")
    tilts = []
    for i in range(len(dataset)):
        sample = dataset[i]
        scene = scene_of(town, sample)
        points = np.concatenate([world_points(sample, view) for view in range(len(sample.meta.agents))])
        distance = distance_to_mesh(scene, points)
        assert np.median(distance) < 0.01
        assert np.quantile(distance, 0.99) < 0.05
        cords = carla_from_pose(pose_ue_from_cv(sample.target.pose.numpy().astype(np.float64)))
        tilts.append(np.abs(cords[:, [3, 5]]).max())
    assert max(tilts) > 1.0  # on slopes


def test_lidar_targets_lie_on_the_mesh_and_nearly_all_points_count(town, config_of):
    dataset = build_split(config_of({"height": 252, "width": 1008}, depth=DepthConfig(source="lidar")), "val")
    sample = dataset[0]
    scene = scene_of(town, sample)
    points = np.concatenate([world_points(sample, view) for view in range(len(sample.meta.agents))])
    distance = distance_to_mesh(scene, points)
    assert np.median(distance) < 0.01
    assert np.quantile(distance, 0.99) < 0.05
    sweep = read_sweep(dataset.index.lidar_path(dataset.index.frame(0), sample.meta.agents[0]))
    covered = sample.target.non_ambiguous[0].float().mean().item()
    assert sample.target.valid[0].sum() > 0.8 * covered * len(drop_own_body(sweep))


def test_densified_targets_lie_on_the_mesh_too(town, config_of):
    """A third more pixels; what is measured stays, and nine in ten of the others are within 5 cm."""
    size, depth = {"height": 84, "width": 336}, DepthConfig(source="lidar")
    plain, dense = (build_split(config_of(size | {"densify_px": px}, depth=depth), "val") for px in (0, 2))
    added, distance = [], []
    for i in range(len(plain)):
        first, second = plain[i].target, dense[i]
        new = second.target.valid & ~first.valid
        assert not (new & ~second.target.non_ambiguous).any()
        assert torch.equal(second.target.depth[first.valid], first.depth[first.valid])
        added.append(new.sum() / first.valid.sum())
        points = second.target.points_world[new].numpy().astype(np.float64)
        distance.append(distance_to_mesh(scene_of(town, second), points))
    assert np.mean(added) > 0.3
    assert np.median(np.concatenate(distance)) < 0.01
    assert np.quantile(np.concatenate(distance), 0.9) < 0.05


def test_points_seen_by_two_agents_agree_in_the_world(config_of):
    """Pixels of two cars that show the same spot give the same 3D point, up to the size of a pixel."""
    sample = build_split(config_of({"height": 252, "width": 1008}), "val")[0]
    target = sample.target
    first = target.points_world[0][target.valid[0]]
    second = target.points_world[1][target.valid[1]]
    near_both = [
        points[torch.cdist(points, target.pose[:2, :3, 3]).max(dim=1).values < 25] for points in (first, second)
    ]
    some = near_both[0][:: len(near_both[0]) // 1000 + 1]
    nearest, index = torch.cdist(some, near_both[1]).min(dim=1)
    shared = nearest < 0.15
    assert shared.sum() > 50
    # gaps along a surface are the size of a pixel; most surfaces here are ground, so compare heights
    assert (some - near_both[1][index])[shared, 1].abs().median() < 0.02


def test_content_of_the_bowl_is_close_to_nominal_and_of_the_infinite_surface_is_not(config_of):
    angles = {}
    for surface in ("bowl", "infinite"):
        dataset = build_split(config_of({"surface": surface}), "val")
        errors = []
        for i in range(len(dataset)):
            sample = dataset[i]
            cosine = (sample.target.rays * sample.observation.rays).sum(-1)[sample.target.valid]
            errors.append(torch.rad2deg(torch.arccos(cosine.clamp(-1, 1))))
        angles[surface] = torch.cat(errors).mean().item()
    assert angles["bowl"] < 1.0
    assert angles["infinite"] > 3 * angles["bowl"]
