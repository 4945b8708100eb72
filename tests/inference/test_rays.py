"""On which rays the points of a result are, and what is said where predicted ones are far off."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from coopmap import build_model, load_config
from coopmap import infer as program
from coopmap.config import Config, ConfigError
from coopmap.config.data import MosaicConfig
from coopmap.config.infer import InferConfig
from coopmap.config.synth import TownConfig
from coopmap.inference import InferenceOptions, Views, infer
from coopmap.inference.command import read_views
from coopmap.inference.frame import read_frame
from coopmap.inference.loading import load_released
from coopmap.inference.rays import median_angle_deg
from coopmap.types import Observation
from coopmap.types.agents import camera_centers_by_azimuth

from ..untrained import write_checkpoint


@pytest.fixture(scope="module")
def matching(tiny_model: tuple[str, ...], town: TownConfig) -> Config:
    """Of a model that answers with the poses of its matches."""
    roots = (f"data.root={town.root}", f"data.depth_root={town.depth_root}", "data.max_agents=3")
    return load_config([*tiny_model, *roots, "model.matching.enabled=true", "model.pose_from=alignment"])


@pytest.fixture(scope="module")
def matching_checkpoint(matching: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("matching"), matching)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["infer", *map(str, arguments)])
    program.main()


def test_points_are_on_the_rays_that_matching_aligns(
    matching_checkpoint: Path,
    frame: Path,
    matching: Config,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run(monkeypatch, f"checkpoint={matching_checkpoint}", f"frame={frame}", f"output={tmp_path}", "edges=false")
    printed = capsys.readouterr()
    views = read_frame(frame, matching.data)
    with np.load(tmp_path / "predictions.npz", allow_pickle=False) as file:
        np.testing.assert_allclose(file["rays"], views.observation.rays.numpy(), atol=1e-6)
        ranges = np.linalg.norm(file["points_world"] - file["pose"][:, None, None, :3, 3], axis=-1)
        np.testing.assert_allclose(ranges, file["depth"], rtol=1e-4)
    cameras = json.loads((tmp_path / "cameras.json").read_text())
    assert cameras["rays_from"] == "calibration"
    assert min(cameras["predicted_rays_off_deg"]) > 5  # never trained
    assert cameras["views"][0]["v_fov_deg"] == pytest.approx(matching.data.panorama.v_fov_deg, abs=0.01)
    assert "cameras recovered from the calibrated rays" in printed.out
    assert "do not rely on the points" not in printed.out + printed.err


def test_predicted_rays_that_are_far_off_are_warned_of(
    matching_checkpoint: Path,
    frame: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    own = [f"checkpoint={matching_checkpoint}", f"frame={frame}", f"output={tmp_path}"]
    run(monkeypatch, *own, "model.matching.rays=predicted")
    printed = capsys.readouterr()
    assert json.loads((tmp_path / "cameras.json").read_text())["rays_from"] == "prediction"
    (line,) = [line for line in (printed.out + printed.err).splitlines() if "do not rely on the points of" in line]
    assert "degrees off the calibrated ones" in line
    assert "loss.weights.ray_directions" in line


def test_points_of_a_mosaic_are_on_its_cameras_lines_of_sight(matching: Config, frame: Path) -> None:
    data = replace(matching.data, layout="mosaic", mosaic=MosaicConfig(28, 42))
    torch.manual_seed(0)
    model = build_model(replace(matching, data=data))
    views: Views = read_frame(frame, data)
    result = infer(model, views.observation, InferenceOptions("mosaic", edges=False))
    assert views.observation.camera_pose is not None
    centers = camera_centers_by_azimuth(views.observation.camera_pose[None])[0].repeat_interleave(42, dim=1)
    from_camera = result.rays * result.depth[..., None] - centers[:, None]
    across = torch.linalg.cross(from_camera, views.observation.rays, dim=-1).norm(dim=-1)
    far = result.depth > 5
    assert far.any()
    assert across[far].max() < 1e-2


def test_weights_without_a_matching_head_answer_with_regressed_poses_and_their_own_rays(
    checkpoint: Path, tiny_model: tuple[str, ...], tmp_path: Path
) -> None:
    weights = tmp_path / "weights.pt"
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    torch.save({name.removeprefix("model."): tensor for name, tensor in state.items()}, weights)
    overrides = ["loss=pose_matching", *(each for each in tiny_model if not each.startswith("preset="))]
    model, config = load_released(str(weights), "mapanything_tiny", overrides)
    assert (config.model.matching.enabled, config.model.pose_from) == (False, "head")
    images = torch.rand(2, 3, 28, 112)
    views = Observation(images, torch.zeros(2, 28, 112, 3), rays_given=torch.zeros(2, dtype=torch.bool))
    result = infer(model, views, InferenceOptions("cyl"))
    assert result.prediction.matches is None
    assert result.rays_from == "prediction"


def test_panoramas_are_taken_for_those_that_a_run_was_trained_on(tmp_path: Path, matching: Config) -> None:
    rows = np.linspace(0, 255, 28).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), np.tile(rows[:, None, None], (1, 112, 3)))
    config = replace(matching, data=replace(matching.data, panorama=replace(matching.data.panorama, v_fov_deg=40.0)))
    asked = InferConfig(run="a", images=str(tmp_path), output="b", camera_model="cyl")
    rays = read_views(asked, config).observation.rays[0]
    highest = torch.rad2deg(torch.asin(-rays[0, :, 1]))
    torch.testing.assert_close(highest, torch.full((112,), 20 - 20 / 28), rtol=0, atol=1e-3)


def test_photographs_are_refused_by_a_model_that_matches_along_calibrated_rays(matching: Config) -> None:
    config = replace(matching, data=replace(matching.data, layout="cameras"))
    asked = InferConfig(run="a", images="photos", output="b")
    with pytest.raises(ConfigError, match="matches agents along calibrated rays"):
        read_views(asked, config)


def test_the_median_angle_is_that_of_the_pixels_that_count() -> None:
    ahead = torch.tensor([0.0, 0, 1]).expand(2, 4, 3)
    angle = torch.deg2rad(torch.tensor([10.0, 20, 30, 80]))
    turned = torch.stack([angle.sin(), torch.zeros(4), angle.cos()], dim=-1).expand(2, 4, 3)
    counted = torch.tensor([[True, True, True, False], [False] * 4])
    first, second = median_angle_deg(turned, ahead, counted)
    assert first == pytest.approx(20, abs=1e-4)
    assert np.isnan(second)
