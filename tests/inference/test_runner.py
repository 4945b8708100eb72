"""Post-processing of an answer that is known to be exact."""

import numpy as np
import pytest
import roma
import torch

from coopmap import build_dataset
from coopmap.config import Config, ConfigError
from coopmap.geometry.calibration import PanoramaCalibration, PinholeCalibration
from coopmap.geometry.cameras import PanoramaCamera, PinholeCamera, camera_rays
from coopmap.inference import InferenceOptions, infer
from coopmap.models import MapAnything
from coopmap.models.decoding import decode
from coopmap.types import Observation, Prediction

HEIGHT, WIDTH = 28, 56
SHAPE = (2, HEIGHT, WIDTH)
INTRINSICS = np.array([[50.0, 0, 30], [0, 45, 12], [0, 0, 1]])


class KnownAnswer:
    """A model that answers with a ball of 12 m around the second view; it remembers what it was shown."""

    def __init__(self, rays: np.ndarray) -> None:
        self.rays = torch.from_numpy(rays).float()
        self.trans = torch.tensor([[1.0, 0, 0], [4, 0, 2]])
        self.quat = roma.rotvec_to_unitquat(torch.tensor([[0.0, 0.3, 0], [0.1, -0.5, 0]]))

    def __call__(self, observation: Observation) -> Prediction:
        self.seen = observation
        views = len(self.trans)
        dense = torch.zeros(1, views, 6, *self.rays.shape[:2])
        dense[:, :, :3] = self.rays.movedim(-1, 0)
        dense[:, :, 3] = np.log(6)  # times the scale
        dense[:, 0, 5] = 3.0
        dense[:, 1, 5, :, : self.rays.shape[1] // 2] = 3.0
        dense[:, 1, 5, :, self.rays.shape[1] // 2 :] = -3.0
        return decode(dense, self.trans[None] / 2, self.quat[None], torch.tensor([np.log(2.0)]).float())


def observation(height: int = HEIGHT, width: int = WIDTH) -> Observation:
    return Observation(torch.zeros(2, 3, height, width), torch.zeros(2, height, width, 3))


@pytest.fixture
def pinhole() -> KnownAnswer:
    return KnownAnswer(camera_rays(PinholeCamera(INTRINSICS, HEIGHT, WIDTH)))


def test_pinhole_views(pinhole: KnownAnswer):
    result = infer(pinhole, observation())
    assert isinstance(result.camera, PinholeCalibration)
    np.testing.assert_allclose(result.camera.intrinsics, np.stack([INTRINSICS] * 2), atol=1e-3)
    torch.testing.assert_close(result.depth, torch.full(SHAPE, 12.0))
    assert torch.equal(result.pose[0], torch.eye(4))
    rotations = roma.unitquat_to_rotmat(pinhole.quat)
    torch.testing.assert_close(result.pose[1, :3, :3], rotations[0].T @ rotations[1], rtol=0, atol=1e-6)
    expected = rotations[0].T @ (pinhole.trans[1] - pinhole.trans[0])
    torch.testing.assert_close(result.pose[1, :3, 3], expected, rtol=0, atol=1e-5)
    moved = result.points_world[1] - expected
    torch.testing.assert_close(moved.norm(dim=-1), result.depth[1])
    torch.testing.assert_close(moved @ result.pose[1, :3, :3] / 12, pinhole.rays, rtol=0, atol=1e-5)
    assert torch.equal(result.non_ambiguous[1], torch.arange(WIDTH).expand(HEIGHT, -1) < WIDTH // 2)
    assert torch.equal(result.mask, result.non_ambiguous)  # a ball has no edges


def test_panoramas_have_no_matrix():
    camera = PanoramaCamera(HEIGHT, 4 * HEIGHT, np.deg2rad(80), np.deg2rad(-4), "cylinder")
    result = infer(KnownAnswer(camera_rays(camera)), observation(HEIGHT, 4 * HEIGHT), InferenceOptions("cyl"))
    assert isinstance(result.camera, PanoramaCalibration)
    assert not hasattr(result.camera, "intrinsics")
    np.testing.assert_allclose(result.camera.v_fov, camera.v_fov, atol=1e-6)
    np.testing.assert_allclose(result.camera.elevation_center, camera.elevation_center, atol=1e-6)
    assert result.camera.projection == ("cylinder", "cylinder")


def test_uncovered_pixels_are_left_out(pinhole: KnownAnswer):
    covered = torch.ones(SHAPE, dtype=torch.bool)
    covered[0, :10] = False
    result = infer(pinhole, observation(), InferenceOptions(edges=False), covered)
    assert torch.equal(result.mask, result.non_ambiguous & covered)
    assert result.non_ambiguous[0].all()


def test_real_model_on_a_sample_of_the_dataset(model: MapAnything, config: Config):
    sample = build_dataset(config, "val")[0]
    training = model.train()
    result = infer(training, sample.observation, InferenceOptions("cyl"))
    assert not training.training
    with torch.no_grad():
        expected = model(sample.observation.map(lambda tensor: tensor[None]))
    torch.testing.assert_close(result.prediction.points_world, expected.points_world, rtol=1e-4, atol=1e-4)
    assert not result.points_world.is_inference()


def test_bf16_changes_little(model: MapAnything, config: Config):
    views = build_dataset(config, "val")[0].observation
    exact, rough = (infer(model, views, InferenceOptions("cyl", precision)) for precision in ("fp32", "bf16"))
    difference = (rough.prediction.depth / exact.prediction.depth).log().abs().max()
    assert 0 < difference < 0.05


def test_wrong_options_and_shapes(pinhole: KnownAnswer):
    with pytest.raises(ConfigError, match="camera_model=cylinder: expected one of pinhole, cyl"):
        InferenceOptions("cylinder")
    with pytest.raises(ConfigError, match="confidence_percentile=100"):
        InferenceOptions(confidence_percentile=100)
    with pytest.raises(ValueError, match="1 x 2 x 3 x 28 x 56; expected those of one sample, without batch"):
        infer(pinhole, observation().map(lambda tensor: tensor[None]))


def test_cameras_of_a_mosaic_are_searched_for_edges_one_by_one():
    """A step in depth between two cameras is none within either; one within a camera is."""
    rays = torch.from_numpy(camera_rays(PanoramaCamera(HEIGHT, 4 * HEIGHT, np.deg2rad(90))))[None, None].float()
    depth = torch.full((1, 1, HEIGHT, 4 * HEIGHT), 5.0)
    depth[..., HEIGHT : 2 * HEIGHT] = 50.0
    depth[..., 3 * HEIGHT + HEIGHT // 2 :] = 50.0
    trans, quat = torch.zeros(1, 1, 3), torch.tensor([[[0.0, 0, 0, 1]]])
    points, ones = rays * depth[..., None], torch.ones_like(depth)
    known = Prediction(rays, depth, trans, quat, torch.ones(1), ones, ones, points, points)
    kept = {}
    for kind in ("cyl", "mosaic"):
        result = infer(lambda _: known, observation(HEIGHT, 4 * HEIGHT), InferenceOptions(kind))
        kept[kind] = result.mask[0].all(dim=0)
    assert infer(lambda _: known, observation(HEIGHT, 4 * HEIGHT), InferenceOptions("mosaic")).camera is None
    borders = torch.tensor([0, HEIGHT - 1, HEIGHT, 2 * HEIGHT - 1, 2 * HEIGHT, 4 * HEIGHT - 1])
    middle = torch.tensor([3 * HEIGHT + HEIGHT // 2 - 1, 3 * HEIGHT + HEIGHT // 2])
    assert kept["mosaic"][borders].all()
    assert not kept["mosaic"][middle].any()
    assert not kept["cyl"][borders].any()
