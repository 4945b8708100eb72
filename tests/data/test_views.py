"""The layouts: the same frames, agents, augmentation and ground truth, cut into views in different ways."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from coopmap.config.data import AugmentationConfig, DepthConfig
from coopmap.data import SampleRequest, build_split
from coopmap.data.layouts import build_views
from coopmap.data.normalization import normalize
from coopmap.data.views import OUTSIDE, panorama_spec
from coopmap.geometry import invert, transform_points
from coopmap.geometry.panorama import look_up

LAYOUTS = ("panorama", "warped", "grouped", "cameras")
SMALL = {"height": 56, "width": 70}


@pytest.fixture
def sample_of(config_of):
    """One training sample of a layout, without photometric noise but (if asked) with the yaw roll."""

    def make(layout: str, yaw_roll: bool = False, seed: int = 5, **changes):
        still = {"brightness": 0, "contrast": 0, "saturation": 0, "hue_deg": 0, "exposure": 0}
        augmentation = AugmentationConfig(**still, grayscale_prob=0, blur_prob=0, yaw_roll=yaw_roll)
        config = config_of(layout=layout, augmentation=augmentation, panorama={"feather_deg": 0.0}, **changes)
        config.cameras.height, config.cameras.width = SMALL["height"], SMALL["width"]
        dataset = build_split(config, "train")
        return normalize(dataset[SampleRequest(int(dataset.frames[0]), 2, seed)])

    return make


def test_shapes(sample_of):
    grouped, warped, cameras = (sample_of(layout) for layout in ("grouped", "warped", "cameras"))
    assert grouped.observation.images.shape == (2, 4, 3, 56, 70)
    assert grouped.observation.rays.shape == (2, 84, 336, 3)
    assert grouped.observation.camera_angle.shape == (2, 4, 6, 24)
    assert grouped.observation.camera_grid.shape == (2, 4, 6, 24, 2)
    assert grouped.observation.camera_pose.shape == (2, 4, 4, 4)
    assert grouped.target.depth.shape == (2, 84, 336)
    assert warped.observation.images.shape == (2, 4, 3, 84, 336)
    assert warped.observation.camera_angle.shape == (2, 4, 84, 336)
    assert cameras.observation.images.shape == (8, 3, 56, 70)
    assert cameras.observation.rays.shape == cameras.target.rays.shape == (8, 56, 70, 3)
    assert cameras.observation.slot.tolist() == [0, 1, 2, 3] * 2
    assert cameras.observation.agent.tolist() == cameras.target.agent.tolist() == [0] * 4 + [1] * 4
    assert len(cameras.meta.agents) == 8
    assert cameras.meta.agents[::4] == sample_of("panorama").meta.agents


@pytest.mark.parametrize("yaw_roll", [False, True])
@pytest.mark.parametrize("layout", ["warped", "grouped"])
def test_agents_keep_the_target_of_their_panorama(sample_of, layout, yaw_roll):
    expected, sample = sample_of("panorama", yaw_roll), sample_of(layout, yaw_roll)
    assert sample.meta == expected.meta
    for name in ("rays", "depth", "valid", "non_ambiguous", "pose"):
        assert torch.equal(getattr(sample.target, name), getattr(expected.target, name)), name


@pytest.mark.parametrize("yaw_roll", [False, True])
def test_the_winners_of_the_warped_cameras_are_the_panorama(sample_of, yaw_roll):
    panorama, warped = sample_of("panorama", yaw_roll).observation, sample_of("warped", yaw_roll).observation
    seen = warped.camera_angle.isfinite()
    assert (warped.images.permute(0, 1, 3, 4, 2)[~seen] == 0).all()
    winner = warped.camera_angle.argmin(dim=1)
    index = winner[:, None, None].expand(-1, 1, 3, -1, -1)
    chosen = warped.images.gather(1, index)[:, 0]
    torch.testing.assert_close(chosen, panorama.images, rtol=0, atol=1.01 / 255 / 0.224)  # one gray level
    assert (seen.sum(dim=1) > 1).any()  # cameras overlap


def test_the_cells_of_grouped_images_lie_where_the_warped_ones_are(sample_of):
    """A camera sampled at the cells' places shows what the same camera warped onto the panorama shows there."""
    grouped, warped = (sample_of(layout, yaw_roll=True).observation for layout in ("grouped", "warped"))
    angle = around_patch_centers(warped.camera_angle)
    inner = angle.isfinite()
    assert inner.float().mean() > 0.15  # some 0.75 of the panorama, mostly in one of four cameras
    assert (grouped.camera_angle.isfinite() | ~inner).all()
    torch.testing.assert_close(grouped.camera_angle[inner], angle[inner], atol=0.01, rtol=0)
    places = grouped.camera_grid.flatten(0, 1)
    sampled = F.grid_sample(grouped.images.flatten(0, 1), places, align_corners=False).unflatten(0, (2, 4))
    expected = around_patch_centers(warped.images)
    difference = (sampled - expected).abs().mean(dim=2)[inner]
    elsewhere = (sampled.roll(3, dims=-1) - expected).abs().mean(dim=2)[inner]
    assert difference.median() < 0.4 * elsewhere.median()
    assert (grouped.camera_grid.abs().amax(dim=-1)[grouped.camera_angle.isfinite()] <= 1).all()


def around_patch_centers(maps: torch.Tensor) -> torch.Tensor:
    """Mean over the four pixels that meet in the center of each patch."""
    cells = maps.unflatten(-1, (-1, 14))[..., 6:8].unflatten(-3, (-1, 14))[..., 6:8, :, :]
    return cells.mean(dim=(-3, -1))


@pytest.mark.parametrize("layout", ["warped", "grouped"])
def test_camera_poses_follow_the_turn_of_the_agent(sample_of, layout):
    """``T_world_camera`` is a fact that no augmentation changes."""
    still, turned = sample_of(layout), sample_of(layout, yaw_roll=True)
    assert not torch.allclose(still.target.pose, turned.target.pose)
    for first, second in zip(still.target.pose, turned.target.pose, strict=True):
        assert first.shape == second.shape
    worlds = [sample.target.pose[:, None] @ sample.observation.camera_pose for sample in (still, turned)]
    torch.testing.assert_close(worlds[0], worlds[1], atol=1e-4, rtol=0)


def test_cameras_show_the_same_world_as_the_panorama(sample_of):
    """Points of the 4n views, moved into the agent and projected, agree with the panorama's ranges."""
    panorama, cameras = sample_of("panorama"), sample_of("cameras")
    pose_agent = cameras.target.pose @ invert(cameras.target.rig_pose)
    torch.testing.assert_close(pose_agent[::4], panorama.target.pose, atol=1e-3, rtol=0)
    torch.testing.assert_close(pose_agent[3::4], panorama.target.pose, atol=1e-3, rtol=0)
    points = transform_points(cameras.target.rig_pose, cameras.target.points_view.flatten(1, 2))
    points = points.unflatten(0, (2, 4)).flatten(1, 2)
    known = (cameras.target.depth > 0).unflatten(0, (2, 4)).flatten(1)
    for view in range(2):
        cloud = points[view][known[view]]
        shown = panorama.target.points_view[view][panorama.target.valid[view]]
        nearest = torch.cdist(shown[::200], cloud).amin(dim=1)
        assert (nearest < 0.05 * shown[::200].norm(dim=-1)).float().mean() > 0.85


def test_pinhole_targets_lie_on_the_rays_of_their_own_pixels(sample_of):
    cameras = sample_of("cameras")
    angle = torch.acos((cameras.target.rays * cameras.observation.rays).sum(-1).clamp(max=1))
    # the target shows the nearest pixel of the full image: nearer than the next pixel of the small one
    neighbors = torch.acos((cameras.observation.rays[:, :, 1:] * cameras.observation.rays[:, :, :-1]).sum(-1))
    assert angle.max() < neighbors.min()
    assert (cameras.target.non_ambiguous).all()


def test_layouts_draw_the_same_random_numbers(config_of):
    """Agents, photometric changes and turns are those of the panorama, whatever the layout."""
    states = []
    for layout in LAYOUTS:
        config = config_of(layout=layout)
        dataset = build_split(config, "train")
        record = next(iter(dataset.ready.read(0, dataset.index.frame(0), dataset.index.frame(0).agents[:1]).values()))
        rng = np.random.default_rng(3)
        build_views(config, True)("0", record, None, rng)
        states.append(rng.bit_generator.state["state"]["state"])
    assert len(set(states)) == 1


def test_cells_are_the_patches_of_the_model(sample_of):
    """Half as large, there are four where one was, around the same place."""
    coarse, fine = (sample_of("grouped", fused_patch_px=side).observation.camera_grid[0].numpy() for side in (14, 7))
    height, width = coarse.shape[1:3]
    assert fine.shape == (4, 2 * height, 2 * width, 2)
    four = fine.reshape(4, height, 2, width, 2, 2).transpose(0, 1, 3, 2, 4, 5).reshape(4, height, width, 4, 2)
    seen = (four > OUTSIDE).all(axis=(-2, -1)) & (coarse > OUTSIDE).all(axis=-1)
    assert seen.sum() > 10
    assert np.abs(four.mean(axis=3) - coarse)[seen].max() < 0.05  # of 2, over the image


def test_look_up_agrees_with_projection(config_of):
    config = config_of(layout="grouped")
    dataset = build_split(config, "val")
    rig = next(
        iter(dataset.ready.read(0, dataset.index.frame(0), dataset.index.frame(0).agents[:1]).values())
    ).metadata.rig
    ahead = np.array([[[0.0, 0.0, 1.0]]])
    pixel, angle = look_up(rig, ahead, panorama_spec(config.panorama))
    assert int(np.argmin(angle[:, 0, 0])) == 0  # the front camera
    assert abs(pixel[0, 0, 0, 0] - rig.image_size[1] / 2) < 0.05 * rig.image_size[1]
    assert not np.isfinite(angle[2, 0, 0])  # the rear camera does not see it


def test_densification_adds_nothing_beyond_the_limit_of_depth(config_of):
    """Ranges are limited from the cameras, which are some 3 m from the center of the panorama."""
    config = config_of(panorama={"densify_px": 4}, depth_root=None, depth=DepthConfig(max_m=12.0))
    assert 12 < build_split(config, "val")[0].target.depth.max() < 16
