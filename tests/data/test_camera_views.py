"""Single cameras as views: which points of a sweep their targets hold, and where."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from coopmap.config.data import CamerasConfig, DataConfig, DepthConfig
from coopmap.data import build_split
from coopmap.data.camera_views import CameraViews
from coopmap.data.opv2v import AgentMetadata, VehicleBoxes, read_agent
from coopmap.data.opv2v.lidar import see
from coopmap.data.views import Record
from coopmap.geometry.rig import Rig
from coopmap.geometry.se3_numpy import invert, transform_points

from .test_targets_on_town import distance_to_mesh, scene_of, world_points

SIZES = [(294, 392), (42, 56), (600, 800), (700, 840)]


@pytest.fixture
def metadata(data_dir: Path) -> AgentMetadata:
    """A recorded agent, whose images are 600 x 800."""
    return read_agent(data_dir / "real" / "4279_000069.yaml")


def in_images(points: np.ndarray, rig: Rig) -> np.ndarray:
    """Column and row of points in each camera's full image, and range from the camera; NaN behind it or beside it."""
    (height, width), result = rig.image_size, []
    for matrix, pose in zip(rig.intrinsics, rig.agent_from_camera, strict=True):
        place = transform_points(invert(pose), points.astype(np.float64))
        column, row, depth = (place @ matrix.T).T
        with np.errstate(divide="ignore", invalid="ignore"):
            column, row = column / depth, row / depth
        shown = (depth > 0.1) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
        found = np.stack([column, row, np.linalg.norm(place, axis=1)], axis=-1)
        result.append(np.where(shown[:, None], found, np.nan))
    return np.stack(result)


def sweep(rig: Rig) -> np.ndarray:
    """Points all around, none of them so near to the border of a camera pixel that rounding could move it across."""
    points = np.random.default_rng(0).uniform((-30, -6, -30), (30, 2, 30), (60_000, 3)).astype(np.float32)
    fraction = in_images(points, rig)[..., :2] % 1
    return points[~(np.abs(fraction - 0.5) > 0.49).any(axis=(0, 2))]


def expected_points(points: np.ndarray, rig: Rig, size: tuple[int, int]) -> np.ndarray:
    """The point that each pixel of the small images has to hold, the nearest of those within; -1 without any."""
    held = np.full((len(rig.intrinsics), *size), -1)
    for camera, found in enumerate(in_images(points, rig)):
        far_to_near = np.argsort(-found[:, 2])  # NaN last
        far_to_near = far_to_near[np.isfinite(found[far_to_near, 2])]
        centers = np.floor(found[far_to_near, :2]) + 0.5  # of a point, the pixel of the full image is known
        column, row = np.floor(centers * [size[1] / rig.image_size[1], size[0] / rig.image_size[0]]).astype(int).T
        for index, place in zip(far_to_near, zip(row, column, strict=True), strict=True):
            held[camera][place] = index
    return held


@pytest.mark.parametrize("size", SIZES)
def test_every_pixel_holds_the_nearest_point_of_a_sweep_where_it_was_measured(metadata, size):
    rig = metadata.rig
    points = sweep(rig)
    record = Record(metadata, np.zeros((4, 600, 800, 3), np.uint8), see(points, rig))
    views = CameraViews(DataConfig(layout="cameras", cameras=CamerasConfig(*size)))("641", record, None, None)
    held = expected_points(points, rig, size)
    assert (held >= 0).sum() > 5000
    for camera, view in enumerate(views):
        known = held[camera] >= 0
        np.testing.assert_array_equal(view.depth > 0, known)
        shown = transform_points(view.rig_pose, (view.rays * view.depth[..., None])[known].astype(np.float64))
        assert np.linalg.norm(shown - points[held[camera][known]], axis=1).max() < 1e-3
        np.testing.assert_allclose(np.linalg.norm(view.rays, axis=-1), 1, atol=1e-6)
        np.testing.assert_array_equal(view.rays[~known], view.nominal_rays[~known])


def test_of_points_in_one_pixel_the_nearest_to_the_camera_stays(metadata):
    """In different pixels of the full image, where all of them are known."""
    front = metadata.rig.agent_from_camera[0]
    in_camera = np.array([[20.0, 8.0, 12.0]]).T * [[0.0, 0.0, 1.0]] + [[0.02, 0.02, 0], [0.02, 0.1, 0], [0.1, 0.02, 0]]
    seen = see(transform_points(front, in_camera).astype(np.float32), metadata.rig)
    assert len(np.unique(seen.pixel[seen.camera == 0])) == 3
    record = Record(metadata, np.zeros((4, 600, 800, 3), np.uint8), seen)
    view, *_ = CameraViews(DataConfig(layout="cameras", cameras=CamerasConfig(42, 56)))("641", record, None, None)
    ((row, column),) = np.argwhere(view.depth)
    np.testing.assert_allclose(view.rays[row, column] * view.depth[row, column], in_camera[1], atol=1e-4)


def test_points_of_a_moving_vehicle_are_marked(metadata):
    """Pixels whose point is well inside its box, and none whose point is well outside."""
    rig, half_extents = metadata.rig, np.array([1.0, 0.8, 2.4])
    center = np.eye(4)
    center[:3, 3] = (2.0, 1.0, 14.0)
    vehicles = VehicleBoxes(np.array([7]), metadata.pose[None] @ center, half_extents[None], np.array([5.0]))
    points = sweep(rig)
    points = np.concatenate([points, np.random.default_rng(1).uniform(-1, 1, (500, 3)) * half_extents + center[:3, 3]])
    record = Record(metadata, np.zeros((4, 600, 800, 3), np.uint8), see(points.astype(np.float32), rig))
    views = CameraViews(DataConfig(layout="cameras"))("641", record, vehicles, None)
    marked = 0
    for view in views:
        shown = transform_points(view.rig_pose, view.rays * view.depth[..., None])
        beyond = (np.abs(shown - center[:3, 3]) - half_extents).max(axis=-1)
        assert view.moving[(beyond < -0.06) & (view.depth > 0)].all()
        assert not view.moving[(beyond > 0.11) | (view.depth == 0)].any()
        marked += view.moving.sum()
    assert marked > 300


@pytest.mark.parametrize("source", ["auto", "lidar"])
def test_targets_of_all_cameras_lie_on_the_mesh(town, config_of, source):
    config = config_of(layout="cameras", max_views_per_gpu=12, depth=DepthConfig(source=source))
    dataset = build_split(config, "val")
    sample = dataset[0]
    points = np.concatenate([world_points(sample, view, number=300) for view in range(len(sample.meta.agents))])
    distance = distance_to_mesh(scene_of(town, sample), points)
    assert np.median(distance) < 0.01
    assert np.quantile(distance, 0.99) < 0.05


def test_nearly_every_lidar_point_counts(config_of):
    dataset = build_split(config_of(layout="cameras", max_views_per_gpu=12, depth=DepthConfig(source="lidar")), "val")
    sample, frame = dataset[0], int(dataset.frames[0])
    records = dataset.ready.read(frame, dataset.index.frame(frame), tuple(dict.fromkeys(sample.meta.agents)))
    for agent, record in enumerate(records.values()):
        valid = sample.target.valid[4 * agent : 4 * agent + 4].sum()
        assert valid == len(record.depth.points)  # images of 75 x 100: pixels are finer than what is known of points
