"""Mosaics of the tiny town: what they show, and that nothing but the layout differs from panoramas."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from coopmap.config.data import AugmentationConfig, DataConfig, DepthConfig, MosaicConfig
from coopmap.data import SampleRequest, build_split
from coopmap.data.layouts import build_views
from coopmap.data.opv2v import read_agent
from coopmap.data.opv2v.lidar import cull_hidden, drop_own_body, sample_spacing, see
from coopmap.data.opv2v.pcd import read_sweep
from coopmap.data.views import Record
from coopmap.geometry.rig import SLOTS_BY_AZIMUTH
from coopmap.metrics.covisibility import covisibility
from coopmap.types import Sample

from .test_targets_on_town import distance_to_mesh, scene_of, world_points

HEIGHT, WIDTH = 84, 112
REAL_FRAME = Path(__file__).parents[3] / "shared" / "real" / "carla_five"


@pytest.fixture
def mosaic_config(config_of) -> Callable[..., DataConfig]:
    def make(**changes) -> DataConfig:
        return config_of(**{"layout": "mosaic", "mosaic": MosaicConfig(HEIGHT, WIDTH), "vehicle_masks": True} | changes)

    return make


@pytest.fixture
def training_sample(mosaic_config) -> Callable[..., Sample]:
    def make(layout: str = "mosaic", yaw_roll: bool = False, tilt_deg: float = 0.0, **changes) -> Sample:
        augmentation = AugmentationConfig(yaw_roll=yaw_roll, tilt_deg=tilt_deg)
        dataset = build_split(mosaic_config(layout=layout, augmentation=augmentation, **changes), "train")
        return dataset[SampleRequest(int(dataset.frames[0]), 2, 5)]

    return make


@pytest.mark.parametrize("source", ["auto", "lidar"])
def test_targets_of_all_agents_lie_on_the_mesh(town, mosaic_config, source):
    dataset = build_split(mosaic_config(depth=DepthConfig(source=source)), "val")
    for i in range(len(dataset)):
        sample = dataset[i]
        points = np.concatenate([world_points(sample, view) for view in range(len(sample.meta.agents))])
        distance = distance_to_mesh(scene_of(town, sample), points)
        assert np.median(distance) < 0.01
        assert np.quantile(distance, 0.99) < 0.05


def test_nearly_every_lidar_point_counts(mosaic_config):
    dataset = build_split(mosaic_config(mosaic=MosaicConfig(), depth=DepthConfig(source="lidar")), "val")
    sample = dataset[0]
    frame = int(dataset.frames[0])
    records = dataset.ready.read(frame, dataset.index.frame(frame), sample.meta.agents)
    for view, record in enumerate(records.values()):
        assert sample.target.valid[view].sum() > 0.95 * len(record.depth.points)


def test_views_are_agents_and_every_pixel_is_some_cameras(mosaic_config):
    sample = build_split(mosaic_config(), "val")[0]
    views = len(sample.meta.agents)
    assert sample.observation.images.shape == (views, 3, HEIGHT, 4 * WIDTH)
    assert sample.observation.rays.shape == sample.target.rays.shape == (views, HEIGHT, 4 * WIDTH, 3)
    assert sample.observation.camera_pose.shape == (views, 4, 4, 4)
    for name in ("agent", "slot", "rig_pose", "camera_angle", "camera_grid"):
        assert getattr(sample.observation, name) is None, name
    assert sample.target.non_ambiguous.all()
    assert sample.target.own_body is not None
    assert 0 < sample.target.moving.float().mean() < 0.1


def test_images_are_the_cameras_images(mosaic_config):
    """The tile of each slot shows that slot's file."""
    dataset = build_split(mosaic_config(), "val")
    sample, frame = dataset[0], int(dataset.frames[0])
    record = next(iter(dataset.ready.read(frame, dataset.index.frame(frame), sample.meta.agents).values()))
    tiles = sample.observation.images[0].movedim(0, -1).unflatten(1, (4, WIDTH))
    means = record.images[list(SLOTS_BY_AZIMUTH)].mean(axis=(1, 2)) / 255
    expected = (means - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    np.testing.assert_allclose(tiles.mean(dim=(0, 2)), expected, atol=0.02)
    assert np.abs(np.diff(expected, axis=0)).max() > 0.1  # they can be told apart


@pytest.mark.parametrize(("yaw_roll", "tilt_deg"), [(False, 0.0), (True, 0.0), (False, 6.0), (True, 6.0)])
def test_targets_lie_on_the_given_lines_of_sight(training_sample, yaw_roll, tilt_deg):
    """From the camera's center, what a pixel shows is in the direction of its calibrated ray, in any frame."""
    sample = training_sample(yaw_roll=yaw_roll, tilt_deg=tilt_deg)
    center = sample.observation.camera_pose[:, list(SLOTS_BY_AZIMUTH), :3, 3].repeat_interleave(WIDTH, dim=1)
    towards = sample.target.points_view - center[:, None]
    sine = torch.linalg.cross(towards, sample.observation.rays).norm(dim=-1) / towards.norm(dim=-1)
    angle = torch.rad2deg(torch.asin(sine.clamp(max=1)))[sample.target.valid]
    # nearest pixel of images of 100 columns over 100 degrees: up to half of one in either direction
    assert angle.max() < 1.15
    along = (towards * sample.observation.rays).sum(dim=-1)[sample.target.valid]
    assert (along > 0).all()


@pytest.mark.parametrize(("yaw_roll", "tilt_deg"), [(True, 0.0), (False, 6.0), (True, 6.0)])
def test_turning_the_frame_leaves_image_and_world_as_they_are(training_sample, yaw_roll, tilt_deg):
    still, turned = training_sample(), training_sample(yaw_roll=yaw_roll, tilt_deg=tilt_deg)
    assert torch.equal(still.observation.images[0], turned.observation.images[0])
    assert still.meta == turned.meta
    assert (still.target.pose[:, :3, :3] - turned.target.pose[:, :3, :3]).abs().max() > 0.05
    torch.testing.assert_close(still.target.pose[:, :3, 3], turned.target.pose[:, :3, 3])
    torch.testing.assert_close(still.target.points_world, turned.target.points_world, atol=2e-3, rtol=1e-4)
    for name in ("own_body", "moving"):
        differ = getattr(still.target, name) != getattr(turned.target, name)
        assert differ.float().mean() < 1e-4  # rounding, at the faces of boxes
    for which in (still, turned):
        world = which.target.pose[:, None] @ which.observation.camera_pose
        torch.testing.assert_close(world, still.target.pose[:, None] @ still.observation.camera_pose, atol=1e-3, rtol=0)


@pytest.mark.parametrize(("yaw_roll", "tilt_deg"), [(False, 0.0), (True, 4.0)])
def test_poses_and_world_are_those_of_the_panorama(training_sample, yaw_roll, tilt_deg):
    """The same random numbers: agents, frames and, where both see, the same surfaces; the mosaic sees more."""
    changes = {"panorama": {"height": 252, "width": 1008}}
    panorama, mosaic = (training_sample(layout, yaw_roll, tilt_deg, **changes) for layout in ("panorama", "mosaic"))
    assert panorama.meta == mosaic.meta
    assert torch.equal(panorama.target.pose, mosaic.target.pose)
    for view in range(2):
        first, second = (each.target.points_world[view][each.target.valid[view]] for each in (panorama, mosaic))
        near = first[(first - panorama.target.pose[view, :3, 3]).norm(dim=-1) < 15]
        gaps, _ = cKDTree(second.numpy()).query(near.numpy()[::50])
        assert np.median(gaps) < 0.02  # files have a pixel per degree: mostly the very same pixel is shown
        assert np.quantile(gaps, 0.99) < 0.3
    assert mosaic.target.valid.float().mean() > panorama.target.valid.float().mean()


def test_where_depth_is_unknown_targets_are_nominal_and_near_the_truth(mosaic_config):
    """The proxy surface tells the direction from the center better than the line of sight does."""
    sparse = build_split(mosaic_config(depth=DepthConfig(source="lidar")), "val")[0]
    dense = build_split(mosaic_config(), "val")[0]
    compared = dense.target.valid & ~sparse.target.valid
    errors = []
    for rays in (sparse.target.rays, sparse.observation.rays):
        sine = torch.linalg.cross(rays, dense.target.rays).norm(dim=-1)[compared]
        errors.append(torch.rad2deg(torch.asin(sine.clamp(max=1))).mean().item())
    nominal, line_of_sight = errors
    assert nominal < 1.2
    assert line_of_sight > 4 * nominal


def test_covisibility_is_that_of_panoramas(mosaic_config):
    shares = []
    for layout in ("panorama", "mosaic"):
        config = mosaic_config(layout=layout, panorama={"height": 252, "width": 1008}, mosaic=MosaicConfig())
        target = build_split(config, "val")[0].target
        shares.append(covisibility(target.map(lambda tensor: tensor[None])))
    assert shares[0].max() > 0.2
    torch.testing.assert_close(shares[0], shares[1], atol=0.1, rtol=0)


def test_noise_of_calibration_finds_the_same_rays(mosaic_config):
    dataset = build_split(mosaic_config(), "val")
    for i in range(len(dataset)):
        dataset[i]
    assert len(dataset.ready.views._mosaics) == 1


@pytest.mark.skipif(not REAL_FRAME.is_dir(), reason=f"no {REAL_FRAME}")
@pytest.mark.parametrize("agent", ["1", "2", "3", "4"])
def test_real_sweeps_fill_more_of_a_mosaic_than_of_a_panorama(agent):
    """Every camera counts, not the winner alone; where pixels are as dense as the points, nearly all remain."""
    metadata = read_agent(REAL_FRAME / f"{agent}.yaml")
    points = drop_own_body(read_sweep(REAL_FRAME / f"{agent}_lidar.pcd"))
    seen = cull_hidden(see(points, metadata.rig), metadata.rig.intrinsics[:, 0, 0], sample_spacing(points))
    record = Record(metadata, np.zeros((4, *seen.image_size, 3), np.uint8), seen)
    share, remaining = {}, {}
    for name, changes in (("panorama", {}), ("mosaic", {}), ("large", {"mosaic": MosaicConfig(294, 392)})):
        config = DataConfig(layout="panorama" if name == "panorama" else "mosaic", **changes)
        (view,) = build_views(config, depth_is_dense=False)(agent, record, None, None)
        share[name], remaining[name] = (view.depth > 0).mean(), (view.depth > 0).sum() / len(seen.points)
    assert share["mosaic"] > share["panorama"] > 0.14
    assert remaining["mosaic"] > 0.87
    assert remaining["large"] > 0.98
