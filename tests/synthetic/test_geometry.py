"""Depth, sweeps and cars agree with the mesh of the town."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
import yaml
from pypcd4 import PointCloud

from coopmap.config.synth import TownConfig
from coopmap.geometry import points_cv_from_ue, points_ue_from_cv, pose_cv_from_ue, pose_from_carla
from coopmap.synthetic import read_config, town_of
from coopmap.synthetic.scenario import scenario_index
from coopmap.synthetic.terrain import Terrain
from coopmap.synthetic.worlds import world_of

from ..worlds import build_scene


class Agent:
    """What is on disk of an agent at one frame, and what it sees of the town, OpenCV axes."""

    def __init__(self, cfg: TownConfig, path: Path) -> None:
        split, scenario, agent = path.relative_to(cfg.root).parts[:3]
        self.content: dict[str, Any] = yaml.safe_load(path.read_text())
        self.path, self.cfg = path, cfg
        self.scene = build_scene(cfg, split, scenario, path.stem, without=agent)
        self.others = [
            yaml.safe_load((folder / path.name).read_text())
            for folder in path.parents[1].iterdir()
            if folder.is_dir() and folder != path.parent
        ]

    def depth(self, camera: int) -> np.ndarray:
        folder = Path(self.cfg.depth_root, self.path.relative_to(self.cfg.root)).parent
        return np.load(folder / f"{self.path.stem}_camera{camera}_depth.npy")

    def world_from_camera(self, camera: int) -> np.ndarray:
        return pose_cv_from_ue(pose_from_carla(self.content[f"camera{camera}"]["cords"]))


@pytest.fixture(scope="module", params=["town", "streets", "drawn_rigs"])
def agents(request: pytest.FixtureRequest) -> list[Agent]:
    rendered: TownConfig = request.getfixturevalue(request.param)
    cfg = read_config(rendered.root)
    cfg.root, cfg.depth_root = rendered.root, rendered.depth_root
    paths = sorted(Path(cfg.root).glob("*/*/*/*.yaml"))
    return [Agent(cfg, path) for path in (paths[::2] if request.param == "town" else paths)]


def first_hit(scene: trimesh.Trimesh, origin: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """Distance along unit directions, NaN for a miss (trimesh's own intersector, not the renderer's)."""
    points, ray, _ = scene.ray.intersects_location(np.tile(origin, (len(direction), 1)), direction, multiple_hits=False)
    distance = np.full(len(direction), np.nan)
    distance[ray] = np.linalg.norm(points - origin, axis=1)
    return distance


def test_z_depth_matches_an_independent_ray_cast(agents: list[Agent]) -> None:
    rng = np.random.default_rng(0)
    gaps = []
    for agent in agents:
        for camera in range(4):
            depth = agent.depth(camera)
            assert depth.dtype == np.float32
            assert depth.shape == (75, 100)
            row, column = rng.integers(75, size=60), rng.integers(100, size=60)
            k = np.array(agent.content[f"camera{camera}"]["intrinsic"])
            rays = np.linalg.solve(k, np.stack([column + 0.5, row + 0.5, np.ones(60)])).T
            length = np.linalg.norm(rays, axis=1)
            pose = agent.world_from_camera(camera)
            hit = first_hit(agent.scene, pose[:3, 3], (rays / length[:, None]) @ pose[:3, :3].T) / length
            written = depth[row, column]
            seen = ~np.isnan(hit) | (written > 0)
            gaps.append(np.nan_to_num(np.abs(hit - written)[seen], nan=np.inf))
    # rays that graze an edge may fall on either side of it, those before the sky too
    assert np.quantile(np.concatenate(gaps), 0.995) < 1e-3


def test_sweep_lies_on_the_mesh(agents: list[Agent]) -> None:
    for agent in agents:
        points = points_cv_from_ue(PointCloud.from_path(agent.path.with_suffix(".pcd")).numpy(("x", "y", "z")))
        reach = np.linalg.norm(points, axis=1)
        pose = pose_cv_from_ue(pose_from_carla(agent.content["lidar_pose"]))
        hit = first_hit(agent.scene, pose[:3, 3], (points / reach[:, None]) @ pose[:3, :3].T)
        # files round to 0.1 mm, which a beam that grazes flat ground stretches
        assert np.nanquantile(np.abs(hit - reach), 0.99) < (4e-3 if agent.cfg.per_scenario else 2e-3)


def test_agents_see_one_another(agents: list[Agent]) -> None:
    """Some agent's depth image holds another agent's body where its metadata says it is."""
    seen = 0
    for agent in agents:
        for other in agent.others:
            center = points_cv_from_ue(np.add(other["true_ego_pos"][:3], [0.0, 0.0, 0.75]))
            for camera in range(4):
                local = np.linalg.inv(agent.world_from_camera(camera)) @ [*center, 1.0]
                if local[2] < 1.0:
                    continue
                u, v, _ = np.array(agent.content[f"camera{camera}"]["intrinsic"]) @ local[:3] / local[2]
                if 0 <= u < 100 and 0 <= v < 75:
                    seen += local[2] - 3.0 < agent.depth(camera)[int(v), int(u)] < local[2]
    assert seen >= 2


def test_own_body_blocks_no_view(agents: list[Agent]) -> None:
    """The side cameras hang above the roof; with their car's body they would see it half a meter away."""
    for agent in agents:
        for camera in range(4):
            depth = agent.depth(camera)
            assert depth[depth > 0].min() > 0.8
        with_body = build_scene(agent.cfg, *agent.path.relative_to(agent.cfg.root).parts[:2], agent.path.stem)
        assert len(with_body.faces) > len(agent.scene.faces)


def test_scene_faces_turn_outwards(agents: list[Agent]) -> None:
    """The ground's faces look up, that is towards -y in OpenCV axes."""
    scene = agents[0].scene
    split, scenario = agents[0].path.relative_to(agents[0].cfg.root).parts[:2]
    ground = len(world_of(agents[0].cfg, split, scenario_index(scenario)).terrain.surface().triangles)
    assert scene.face_normals[:ground, 1].max() < -0.5


def test_cars_pitch_and_roll(yaml_paths: list[Path]) -> None:
    angles = np.array([yaml.safe_load(path.read_text())["lidar_pose"][3:] for path in yaml_paths])
    roll, pitch = angles[:, 0], angles[:, 2]
    assert np.ptp(roll) > 3
    assert np.ptp(pitch) > 3
    assert np.abs(angles[:, [0, 2]]).max() < 12


def test_wheels_touch_the_ground() -> None:
    terrain = Terrain(np.random.default_rng(3), 150.0, 8.0)
    rng = np.random.default_rng(4)
    x, y, yaw = rng.uniform(-60, 60, 50), rng.uniform(-60, 60, 50), rng.uniform(-np.pi, np.pi, 50)
    pose = terrain.stand(x, y, yaw)
    np.testing.assert_allclose(
        pose[:, :3, :3] @ pose[:, :3, :3].transpose(0, 2, 1), np.eye(3) + 0 * pose[:, :3, :3], atol=1e-12
    )
    np.testing.assert_allclose(np.linalg.det(pose[:, :3, :3]), 1.0)
    wheels = np.array([[1.4, 0.8, 0], [1.4, -0.8, 0], [-1.4, 0.8, 0], [-1.4, -0.8, 0]])
    placed = np.einsum("nij,wj->nwi", pose[:, :3, :3], wheels) + pose[:, None, :3, 3]
    np.testing.assert_allclose(placed[..., 2], terrain.height(placed[..., 0], placed[..., 1]), atol=0.01)


def test_steepest_slope_is_as_configured() -> None:
    terrain = Terrain(np.random.default_rng(0), 150.0, 8.0)
    x, y = np.meshgrid(np.arange(-75, 75, 0.5), np.arange(-75, 75, 0.5))
    step = 1e-4
    slope = np.hypot(
        terrain.height(x + step, y) - terrain.height(x, y), terrain.height(x, y + step) - terrain.height(x, y)
    )
    assert np.rad2deg(np.arctan(slope.max() / step)) == pytest.approx(8.0, abs=0.1)


def test_axes_round_trip_of_scene(town: TownConfig, yaml_paths: list[Path]) -> None:
    """The scene holds the static triangles first, unchanged but for the axes."""
    split, scenario = yaml_paths[0].relative_to(town.root).parts[:2]
    scene = build_scene(town, split, scenario, yaml_paths[0].stem)
    static = town_of(town).surface.triangles
    np.testing.assert_allclose(points_ue_from_cv(scene.triangles[: len(static)][:, ::-1]), static, atol=1e-9)
