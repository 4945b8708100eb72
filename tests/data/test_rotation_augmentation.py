"""Tilted panoramas: another look at the same world."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from coopmap.config.data import AugmentationConfig, DataConfig
from coopmap.data import FrameDataset, SampleRequest, build_split
from coopmap.data.augmentation import draw_tilt, tilt_rotation
from coopmap.data.normalization import normalize
from coopmap.data.vehicles import vehicle_masks, vehicles_around
from coopmap.data.views import panorama_spec
from coopmap.geometry.cameras import PinholeCamera, camera_rays
from coopmap.types import Sample

PANORAMAS = ("panorama", "warped", "grouped")
TILT_DEG = 8.0
ANGLES = st.floats(-0.5, 0.5)


@pytest.fixture
def dataset_of(config_of) -> Callable[..., FrameDataset]:
    """Training data without photometric noise."""

    def make(
        layout: str = "panorama", tilt_deg: float = TILT_DEG, yaw_roll: bool = False, geometry: str = "content"
    ) -> FrameDataset:
        still = dict.fromkeys(("brightness", "contrast", "saturation", "hue_deg", "exposure"), 0.0)
        augmentation = AugmentationConfig(**still, grayscale_prob=0, blur_prob=0, yaw_roll=yaw_roll, tilt_deg=tilt_deg)
        config: DataConfig = config_of(
            layout=layout,
            augmentation=augmentation,
            panorama={"feather_deg": 0.0, "geometry": geometry},
            vehicle_masks=True,
        )
        return build_split(config, "train")

    return make


@pytest.fixture
def sample_of(dataset_of) -> Callable[..., Sample]:
    def make(*args, seed: int = 5, **changes) -> Sample:
        dataset = dataset_of(*args, **changes)
        return normalize(dataset[SampleRequest(int(dataset.frames[0]), 2, seed)])

    return make


@given(pitch=ANGLES, roll=ANGLES)
def test_the_rotation_has_the_given_angles(pitch, roll):
    rotation = tilt_rotation(pitch, roll)[:3, :3]
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    forward, right = rotation[:, 2], rotation[:, 0]
    assert np.arcsin(-forward[1]) == pytest.approx(pitch, abs=1e-9)  # nose up is towards -y
    assert forward[0] == pytest.approx(0, abs=1e-12)  # no turn to the side
    assert np.arcsin(right[1] / np.cos(pitch)) == pytest.approx(roll, abs=1e-9)  # right side down is towards +y
    half_angle = np.arccos(np.clip(np.sqrt(1 + np.trace(rotation)) / 2, -1, 1))
    assert np.cos(half_angle) == pytest.approx(np.cos(pitch / 2) * np.cos(roll / 2), abs=1e-9)


@given(seed=st.integers(0, 2**32 - 1), tilt_deg=st.floats(0.1, 45))
def test_draws_are_bounded_and_leave_the_generator_alone(seed, tilt_deg):
    rng = np.random.default_rng(seed)
    tilt = draw_tilt(AugmentationConfig(tilt_deg=tilt_deg), rng)
    angle = np.arccos(np.clip((np.trace(tilt[:3, :3]) - 1) / 2, -1, 1))
    assert 0 < angle <= np.deg2rad(tilt_deg) * np.sqrt(2) + 1e-9
    assert rng.random() == np.random.default_rng(seed).random()
    assert not np.array_equal(tilt, draw_tilt(AugmentationConfig(tilt_deg=tilt_deg), rng))


def angles_deg(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    return torch.rad2deg(2 * torch.asin(((first - second).norm(dim=-1) / 2).clamp(max=1)))


@pytest.mark.parametrize("layout", PANORAMAS)
def test_poses_turn_by_what_was_drawn_and_do_not_move(sample_of, layout):
    level, tilted = sample_of(layout, tilt_deg=0.0), sample_of(layout)
    assert level.meta == tilted.meta
    torch.testing.assert_close(level.target.pose[:, :3, 3], tilted.target.pose[:, :3, 3])
    turn = level.target.pose[:, :3, :3].transpose(1, 2) @ tilted.target.pose[:, :3, :3]
    pitch = torch.rad2deg(torch.asin(-turn[:, 1, 2]))
    assert (pitch.abs() <= TILT_DEG).all()
    assert turn[:, 0, 2].abs().max() < 1e-5  # forward does not turn to the side
    roll = torch.rad2deg(torch.atan2(-turn[:, 0, 1], turn[:, 0, 0]))
    assert (roll.abs() <= TILT_DEG).all()
    assert (pitch.abs() > 0.1).any()
    assert (roll.abs() > 0.1).any()
    assert (pitch[0] - pitch[1]).abs() > 0.1  # each car on its own
    for view in range(2):
        expected = tilt_rotation(*np.deg2rad([pitch[view].item(), roll[view].item()]))[:3, :3]
        torch.testing.assert_close(turn[view], torch.from_numpy(expected).float(), atol=1e-5, rtol=0)


def records_of(dataset: FrameDataset, sample: Sample) -> dict:
    frame = int(dataset.frames[0])
    return dataset.ready.read(frame, dataset.index.frame(frame), sample.meta.agents)


def camera_points(record, pose: np.ndarray) -> torch.Tensor:
    """What all pixels of an agent's cameras show, in the world."""
    points = []
    for intrinsics, agent_from_camera, depth in zip(
        record.metadata.rig.intrinsics, record.metadata.rig.agent_from_camera, record.depth, strict=True
    ):
        shown = camera_rays(PinholeCamera(intrinsics, *depth.shape))[depth > 0] * depth[depth > 0][:, None]
        world_from_camera = pose @ agent_from_camera
        points.append(shown @ world_from_camera[:3, :3].T + world_from_camera[:3, 3])
    return torch.from_numpy(np.concatenate(points))


@pytest.mark.parametrize("yaw_roll", [False, True])
def test_targets_are_points_that_the_cameras_see(dataset_of, sample_of, yaw_roll):
    """Every target point, moved into the world, is that of some pixel of the car's own cameras."""
    sample = sample_of(yaw_roll=yaw_roll)
    for view, record in enumerate(records_of(dataset_of(), sample).values()):
        cloud = camera_points(record, record.metadata.pose)
        points = sample.target.points_world[view][sample.target.valid[view]].double()
        some = points[:: len(points) // 200]
        assert torch.cdist(some, cloud, compute_mode="donot_use_mm_for_euclid_dist").amin(dim=1).max() < 1e-3


@pytest.mark.parametrize("layout", PANORAMAS)
def test_what_pixels_show_lies_where_they_look(sample_of, layout):
    """Nominal rays against target rays: as good as in the level panorama."""
    errors = {}
    for tilt_deg in (0.0, TILT_DEG):
        sample = sample_of(layout, tilt_deg=tilt_deg)
        known = sample.target.valid
        errors[tilt_deg] = angles_deg(sample.observation.rays[known], sample.target.rays[known]).mean()
    assert errors[TILT_DEG] < 1.0
    assert errors[TILT_DEG] < 1.25 * errors[0.0]


def test_the_tilted_image_is_the_level_one_looked_at_from_elsewhere(sample_of, config_of):
    """Colors and coverage agree with the level panorama in the directions that the tilt gives."""
    level, tilted = sample_of(tilt_deg=0.0), sample_of()
    turn = (level.target.pose[:, :3, :3].transpose(1, 2) @ tilted.target.pose[:, :3, :3]).numpy()
    camera = panorama_spec(config_of().panorama).camera
    for view in range(2):
        rays = tilted.observation.rays[view].numpy() @ turn[view].T
        pixels, inside = camera.project(rays)
        column, row = np.floor(np.where(inside[..., None], pixels, 0)).astype(int).transpose(2, 0, 1)
        covered = level.target.non_ambiguous[view].numpy()[row, column]
        agree = covered == tilted.target.non_ambiguous[view].numpy()
        assert agree[inside].mean() > 0.98
        both = inside & covered & agree
        expected = level.observation.images[view].numpy()[:, row, column]
        found, unturned = (one.observation.images[view].numpy() for one in (tilted, level))
        error, without = (np.abs(image - expected).mean(axis=0)[both].mean() for image in (found, unturned))
        assert error < 0.35 * without


@pytest.mark.parametrize("layout", ["warped", "grouped"])
def test_camera_poses_follow(sample_of, layout):
    """``T_world_camera`` is a fact that no augmentation changes."""
    level, tilted = sample_of(layout, tilt_deg=0.0), sample_of(layout, yaw_roll=True)
    worlds = [sample.target.pose[:, None] @ sample.observation.camera_pose for sample in (level, tilted)]
    torch.testing.assert_close(worlds[0], worlds[1], atol=1e-4, rtol=0)


@pytest.mark.parametrize("yaw_roll", [False, True])
def test_layouts_share_target_and_cells(sample_of, yaw_roll):
    panorama, warped, grouped = (sample_of(layout, yaw_roll=yaw_roll) for layout in PANORAMAS)
    for sample in (warped, grouped):
        for name in ("rays", "depth", "valid", "non_ambiguous", "pose", "moving", "own_body"):
            assert torch.equal(getattr(sample.target, name), getattr(panorama.target, name)), name
    angle = warped.observation.camera_angle
    assert torch.equal(angle.isfinite().any(dim=1), panorama.target.non_ambiguous)
    winner = angle.argmin(dim=1)[:, None, None].expand(-1, 1, 3, -1, -1)
    chosen = warped.observation.images.gather(1, winner)[:, 0]
    torch.testing.assert_close(chosen, panorama.observation.images, rtol=0, atol=1.01 / 255 / 0.224)
    # the corner of the four middle pixels of a patch is its center
    middle = angle.unflatten(-1, (-1, 14))[..., 6:8].unflatten(-3, (-1, 14))[..., 6:8, :, :].mean(dim=(-3, -1))
    seen = middle.isfinite()
    assert seen.float().mean() > 0.15
    torch.testing.assert_close(grouped.observation.camera_angle[seen], middle[seen], atol=0.01, rtol=0)


def test_vehicle_masks_follow(dataset_of, sample_of):
    sample = sample_of(yaw_roll=True)
    records = records_of(dataset_of(), sample)
    vehicles = vehicles_around({agent: record.metadata for agent, record in records.items()})
    marked = 0
    for view, (agent, record) in enumerate(records.items()):
        agent_from_world = np.linalg.inv(record.metadata.pose)
        points = (
            sample.target.points_world[view].double().numpy() @ agent_from_world[:3, :3].T + agent_from_world[:3, 3]
        )
        expected = vehicle_masks(points, sample.target.valid[view].numpy(), agent, record.metadata, vehicles)
        for mask, truth in zip((sample.target.moving[view], sample.target.own_body[view]), expected, strict=True):
            assert (mask.numpy() == truth).mean() > 0.9999  # rounding at the faces of a box
            marked += int(truth.sum())
    assert marked > 50


def test_central_geometry_lies_on_nominal_rays_and_on_the_same_surfaces(dataset_of, sample_of):
    sample = sample_of(geometry="central")
    assert torch.equal(sample.target.rays, sample.observation.rays)
    for view, record in enumerate(records_of(dataset_of(), sample).values()):
        cloud = camera_points(record, record.metadata.pose)[::4]
        points = sample.target.points_world[view][sample.target.valid[view]].double()[::40]
        ranges = sample.target.depth[view][sample.target.valid[view]][::40]
        gap = torch.cdist(points, cloud).amin(dim=1) / ranges
        assert gap.median() < 0.02


@pytest.mark.parametrize("layout", [*PANORAMAS, "cameras"])
def test_no_tilt_in_evaluation(config_of, layout):
    """Nor does the option change anything else of an evaluation sample."""
    plain, tilting = (
        build_split(config_of(layout=layout, augmentation=AugmentationConfig(tilt_deg=tilt)), "val")[0]
        for tilt in (0.0, TILT_DEG)
    )
    assert_same(plain, tilting)


def test_single_cameras_are_unchanged(sample_of):
    assert_same(sample_of("cameras", tilt_deg=0.0), sample_of("cameras"))


def assert_same(first: Sample, second: Sample) -> None:
    assert first.meta == second.meta
    for record, other in ((first.observation, second.observation), (first.target, second.target)):
        for name, value in vars(record).items():
            if isinstance(value, torch.Tensor):
                assert torch.equal(value, getattr(other, name)), name


@pytest.mark.parametrize("layout", PANORAMAS)
def test_a_vanishing_tilt_is_the_level_panorama(sample_of, layout):
    """The two ways to the warp meet: from the cache, and computed for one view."""
    level, tilted = sample_of(layout, tilt_deg=0.0), sample_of(layout, tilt_deg=1e-6)
    assert (level.target.non_ambiguous == tilted.target.non_ambiguous).float().mean() > 0.999
    same = (level.target.depth - tilted.target.depth).abs() < 1e-3
    assert same.float().mean() > 0.99
    assert (level.observation.images - tilted.observation.images).abs().mean() < 1e-3
