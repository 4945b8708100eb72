import numpy as np
import pytest
import torch

from coopmap import load_config
from coopmap.config.data import AugmentationConfig, DepthConfig
from coopmap.config.task import TaskConfig
from coopmap.data import SampleRequest, build_split
from coopmap.geometry import relative_pose
from coopmap.losses.inputs import dense_pixels


def test_a_sample_has_the_documented_shapes_and_types(config_of):
    sample = build_split(config_of(), "val")[0]
    views = len(sample.meta.agents)
    assert 2 <= views <= 3
    assert sample.observation.images.shape == (views, 3, 84, 336)
    assert sample.observation.rays.shape == (views, 84, 336, 3)
    assert sample.target.rays.shape == (views, 84, 336, 3)
    for name in ("depth", "valid", "non_ambiguous"):
        assert getattr(sample.target, name).shape == (views, 84, 336)
    assert sample.target.pose.shape == (views, 4, 4)
    assert sample.target.depth.dtype == torch.float32
    assert (sample.target.valid == (sample.target.depth > 0)).all()
    assert not (sample.target.valid & ~sample.target.non_ambiguous).any()
    torch.testing.assert_close(sample.target.rays.norm(dim=-1), torch.ones(views, 84, 336))
    torch.testing.assert_close(sample.target.ground_height_m, torch.full((views,), 1.9), rtol=0, atol=1e-3)
    assert sample.target.is_metric
    assert sample.skipped == ()


@pytest.mark.parametrize("loss", ["overall", "v11", "pose", "pose_matching", "pose_dense"])
def test_normals_and_gradients_are_taught_from_dense_depth_and_not_from_sweeps(config_of, loss):
    objective = load_config(["machine=laptop", f"loss={loss}"]).loss
    dense, sweeps = (
        build_split(config, "val")[0].target.map(lambda tensor: tensor[None])
        for config in (config_of(), config_of(depth_root=None, depth=DepthConfig(source="lidar")))
    )
    assert torch.equal(dense_pixels(dense, objective), dense.valid)
    assert dense.valid.flatten(2).any(dim=2).all()
    assert sweeps.valid.flatten(2).any(dim=2).all()
    assert not dense_pixels(sweeps, objective).any()


@pytest.mark.parametrize("layout", ["panorama", "mosaic", "cameras"])
def test_gravity_is_down_in_the_world_however_views_are_turned(config_of, layout):
    augmented = AugmentationConfig(yaw_roll=True, tilt_deg=0.0 if layout == "cameras" else 5.0)
    dataset = build_split(config_of(layout=layout, augmentation=augmented), "train")
    sample = dataset[SampleRequest(int(dataset.frames[0]), 2, 1)]
    gravity = sample.observation.gravity
    assert gravity.dtype == torch.float32
    assert not torch.allclose(gravity[0], gravity[-1], atol=1e-4)
    down = torch.einsum("vij,vj->vi", sample.target.pose[:, :3, :3], gravity)
    torch.testing.assert_close(down, torch.tensor([0.0, 1.0, 0.0]).expand(len(gravity), 3), rtol=0, atol=1e-6)


def test_an_observation_holds_only_the_priors_that_the_task_may_give(config_of):
    sample = build_split(config_of(), "val")[0]
    assert sample.observation.pose_prior is None
    assert sample.observation.depth_prior is None
    posed = build_split(config_of(), "val", task=TaskConfig(geometric=1, pose=0.5))[0]
    # the same pose by another product, rounded to float32
    rounding = 2 * torch.finfo(torch.float32).eps
    torch.testing.assert_close(posed.observation.pose_prior, sample.target.pose, rtol=rounding, atol=rounding)
    assert posed.observation.depth_prior is None
    with_depth = build_split(config_of(), "val", task=TaskConfig(geometric=1, depth=1))[0]
    assert torch.equal(with_depth.observation.depth_prior, sample.target.depth)
    assert with_depth.observation.pose_prior is None


def test_pixels_that_no_camera_sees_are_neutral(config_of):
    sample = build_split(config_of(), "val")[0]
    unseen = ~sample.target.non_ambiguous
    assert (sample.observation.images.permute(0, 2, 3, 1)[unseen] == 0).all()
    assert (sample.target.rays[unseen] == sample.observation.rays[unseen]).all()


def test_validation_samples_do_not_vary_and_training_samples_follow_their_seed(config_of):
    val = build_split(config_of(), "val")
    torch.testing.assert_close(val[0].observation.images, val[0].observation.images, rtol=0, atol=0)
    train = build_split(config_of(), "train")
    frame = int(train.frames[0])
    first, again, other = (train[SampleRequest(frame, 2, seed)] for seed in (1, 1, 2))
    torch.testing.assert_close(first.observation.images, again.observation.images, rtol=0, atol=0)
    assert first.meta == again.meta
    assert not torch.equal(first.observation.images, other.observation.images)


def test_yaw_roll_keeps_points_in_the_world(config_of):
    """The same frame with and without the roll: poses differ, the set of world points does not."""
    still = AugmentationConfig(yaw_roll=False, brightness=0, contrast=0, saturation=0, hue_deg=0, exposure=0)
    rolled = AugmentationConfig(yaw_roll=True, brightness=0, contrast=0, saturation=0, hue_deg=0, exposure=0)
    samples = []
    for augmentation in (still, rolled):
        dataset = build_split(config_of(augmentation=augmentation), "train")
        dataset.config.augmentation.grayscale_prob = dataset.config.augmentation.blur_prob = 0.0
        samples.append(dataset[SampleRequest(int(dataset.frames[0]), 2, seed=5)])
    plain, turned = samples
    assert plain.meta == turned.meta
    turn = relative_pose(plain.target.pose[0], turned.target.pose[0])
    shift = int(torch.atan2(turn[0, 2], turn[0, 0]).div(2 * np.pi / 336).round()) % 336
    assert shift != 0
    expected = torch.roll(plain.target.points_world[0], -shift, dims=1)
    valid = turned.target.valid[0]
    torch.testing.assert_close(turned.target.points_world[0][valid], expected[valid], atol=1e-3, rtol=0)
    torch.testing.assert_close(
        turned.observation.images[0], torch.roll(plain.observation.images[0], -shift, dims=2), atol=1e-6, rtol=0
    )
    torch.testing.assert_close(turned.observation.rays, plain.observation.rays)


def test_the_reference_agent_comes_first_and_hears_the_others(config_of):
    dataset = build_split(config_of(communication_range_m=70.0), "train")
    for i in range(len(dataset)):
        position = dataset[i].target.pose[:, :3, 3]
        assert (position - position[0]).norm(dim=-1).max() < 71  # horizontal range, some height


def test_agents_out_of_range_are_not_heard(config_of):
    with pytest.raises(ValueError, match="communication_range_m=1"):
        build_split(config_of(communication_range_m=1.0), "val")


def test_lidar_supervises_when_there_is_no_depth_root(config_of):
    dense = build_split(config_of(), "val")[0].target
    dataset = build_split(config_of(depth_root=None), "val")
    assert "LiDAR" in dataset.depth_source.describe()
    sparse = dataset[0].target
    both = sparse.valid & dense.valid
    assert 0.005 < sparse.valid.float().mean() < dense.valid.float().mean()
    error = (sparse.depth - dense.depth).abs()[both] / dense.depth[both]
    assert error.median() < 0.02


def test_a_missing_image_is_skipped_and_reported_in_training(config_of, copied_town):
    dataset = build_split(config_of(root=str(copied_town)), "train")
    frame = int(dataset.frames[0])
    ref = dataset.index.frame(frame)
    for agent in ref.agents:
        dataset.index.image_path(ref, agent, 3).unlink()
    sample = dataset[SampleRequest(frame, 2, seed=0)]
    assert sample.meta.frame != ref.frame
    assert len(sample.skipped) >= 1
    assert f"{ref.frame}_camera3.png" in sample.skipped[0]


def test_keeping_files_in_memory_changes_nothing(config_of, copied_town):
    config = config_of(root=str(copied_town), keep_in_memory=True)
    kept, fresh = build_split(config, "val"), build_split(config_of(), "val")
    first, again, expected = kept[0], kept[0], fresh[0]
    for sample in (first, again):
        assert torch.equal(sample.observation.images, expected.observation.images)
        assert torch.equal(sample.target.depth, expected.target.depth)
    ref = kept.index.frame(int(kept.frames[0]))
    for agent in ref.agents:
        kept.index.image_path(ref, agent, 0).unlink()
    assert torch.equal(kept[0].observation.images, expected.observation.images)
