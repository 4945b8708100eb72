"""The command on the town, with an untrained model, down to the files that it leaves."""

import json
import sys
from dataclasses import fields, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import trimesh

from coopmap import build_model, load_config
from coopmap import infer as program
from coopmap.config import Config, ConfigError
from coopmap.config.compose import to_yaml
from coopmap.config.data import MosaicConfig
from coopmap.config.infer import InferConfig
from coopmap.config.model import InputsConfig
from coopmap.config.task import TaskConfig
from coopmap.geometry.cameras import PanoramaCamera, camera_rays
from coopmap.inference import loading
from coopmap.inference.command import read_views
from coopmap.inference.outputs import write_ply
from coopmap.models import MapAnything
from coopmap.models.sources import architecture
from coopmap.types import Observation, Prediction


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["infer", *map(str, arguments)])
    program.main()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three views, one of them with a name that is no good HTML."""
    rng = np.random.default_rng(0)
    (tmp_path / "a & b").mkdir()
    for name in ("1.png", "2 <b>.png", "10.png"):
        image = cv2.resize(rng.integers(0, 255, (6, 8, 3), dtype=np.uint8), (80, 60), interpolation=cv2.INTER_CUBIC)
        assert cv2.imwrite(str(tmp_path / "a & b" / name), image)
    return tmp_path / "a & b"


def test_folder_of_images(
    checkpoint: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    output = tmp_path / "out"
    own = [f"run={checkpoint.parents[1]}", f"images={folder}", f"output={output}", "size=84", "edges=false"]
    own.append("data.layout=cameras")  # as if trained on single cameras
    run(monkeypatch, *own, "max_points=2000")
    shown = capsys.readouterr()
    assert shown.err == ""
    for text in (
        "views relative to 1.png",
        "2 <b>.png",
        "forward (m)",
        "rotation",
        "(deg)",
        "fx",
        f"{output}/points.ply",
    ):
        assert text in shown.out
    assert "error (m)" not in shown.out  # no truth is known

    with np.load(output / "predictions.npz", allow_pickle=False) as file:
        arrays = dict(file)
    assert arrays["names"].tolist() == ["1.png", "2 <b>.png", "10.png"]
    assert arrays["images"].shape == (3, 56, 84, 3)
    assert arrays["depth"].shape == arrays["mask"].shape == arrays["confidence"].shape == (3, 56, 84)
    assert arrays["intrinsics"].shape == (3, 3, 3)
    np.testing.assert_array_equal(arrays["pose"][0], np.eye(4))
    points = (arrays["rays"] * arrays["depth"][..., None]).reshape(3, -1, 3) @ arrays["pose"][:, :3, :3].swapaxes(1, 2)
    points = (points + arrays["pose"][:, None, :3, 3]).reshape(arrays["points_world"].shape)
    np.testing.assert_allclose(arrays["points_world"], points, rtol=1e-4, atol=1e-3)

    cloud = trimesh.load(output / "points.ply")
    assert len(cloud.vertices) == min(2000, arrays["mask"].sum())
    known = {tuple(point) for point in arrays["points_world"][arrays["mask"]].tolist()}
    assert {tuple(point) for point in cloud.vertices.astype(np.float32).tolist()} <= known

    cameras = json.loads((output / "cameras.json").read_text())
    assert [view["name"] for view in cameras["views"]] == arrays["names"].tolist()
    np.testing.assert_allclose([view["pose"] for view in cameras["views"]], arrays["pose"], rtol=1e-6)
    assert cameras["weights"] == str(checkpoint)

    page = (output / "scene.html").read_text()
    assert "a &amp; b: 3 images" in page or "a \\u0026amp; b: 3 images" in page
    assert "2 <b>.png" not in page
    assert "<script src=" not in page  # nothing is fetched
    overview = cv2.imread(str(output / "overview.png"))
    assert overview.shape[1] > 3 * 640


def test_frame_with_errors_beside_the_poses(
    checkpoint: Path, frame: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    run(monkeypatch, f"checkpoint={checkpoint}", f"frame={frame}", f"output={tmp_path}", "edges=false")
    printed = capsys.readouterr().out
    with np.load(tmp_path / "predictions.npz", allow_pickle=False) as file:
        arrays = dict(file)
    assert "intrinsics" not in arrays
    assert {"v_fov", "elevation_center", "yaw", "projection", "ray_residual", "true_pose"} <= set(arrays)
    assert len(arrays["names"]) >= 2
    for i, name in enumerate(arrays["names"][1:], start=1):
        off = np.linalg.norm(arrays["pose"][i, :3, 3] - arrays["true_pose"][i, :3, 3])
        assert any(str(name) in line and f"{off:.2f}" in line for line in printed.splitlines())
    cameras = json.loads((tmp_path / "cameras.json").read_text())
    assert cameras["camera_model"] == "cyl"
    assert not any("intrinsics" in view for view in cameras["views"])


def test_frame_for_a_model_of_mosaics(
    config: Config, frame: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    """Its cameras are given with their calibration, and looked at one by one for edges."""
    trained = replace(
        config,
        data=replace(config.data, layout="mosaic", mosaic=MosaicConfig(28, 42)),
        task=TaskConfig("calibrated", geometric=1.0, rays=1.0),
        model=replace(config.model, plucker=True, inputs=InputsConfig(rays=True)),
    )
    checkpoint = tmp_path / "best.ckpt"
    state = {f"model.{name}": tensor for name, tensor in build_model(trained).state_dict().items()}
    torch.save({"coopmap": {"config": to_yaml(trained)}, "state_dict": state}, checkpoint)
    output = tmp_path / "out"
    run(monkeypatch, f"checkpoint={checkpoint}", f"frame={frame}", f"output={output}")
    printed = capsys.readouterr().out
    assert "mosaics of cameras (168 x 28 pixels)" in printed
    assert "error" in printed
    with np.load(output / "predictions.npz", allow_pickle=False) as file:
        arrays = dict(file)
    assert arrays["images"].shape[1:] == (28, 168, 3)
    assert not {"intrinsics", "v_fov", "ray_residual"} & set(arrays)
    cameras = json.loads((output / "cameras.json").read_text())
    assert cameras["camera_model"] == "mosaic"
    assert not any({"intrinsics", "projection", "ray_residual_deg"} & set(view) for view in cameras["views"])
    assert (output / "overview.png").exists()
    assert (output / "scene.html").exists()


def test_truth_and_calibration_do_not_reach_the_model(
    checkpoint: Path, frame: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    seen, forward = [], MapAnything.forward

    def spy(self: MapAnything, observation: Observation) -> Prediction:
        seen.append(observation)
        return forward(self, observation)

    monkeypatch.setattr(MapAnything, "forward", spy)
    run(monkeypatch, f"checkpoint={checkpoint}", f"frame={frame}", f"output={tmp_path}")
    (observation,) = seen
    assert observation.depth_prior is None
    assert observation.pose_prior is None
    assert not observation.rays_given.any()


def test_stored_configuration_can_be_changed(
    checkpoint: Path, frame: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    *_, experiment, name, _, _ = checkpoint.parts  # found by its name
    place = [f"run={experiment}/{name}", f"runs_root={checkpoint.parents[3]}"]
    own = [*place, f"frame={frame}", f"output={tmp_path}"]
    run(monkeypatch, *own, "data.panorama.width=56", "data.panorama.height=14", "confidence_percentile=50")
    with np.load(tmp_path / "predictions.npz", allow_pickle=False) as arrays:
        assert arrays["depth"].shape[1:] == (14, 56)
        assert (arrays["mask"].mean((1, 2)) <= 0.5).all()


def test_weights_alone_and_panoramas_from_a_folder(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    (tmp_path / "in").mkdir()
    rays = camera_rays(PanoramaCamera(28, 112, np.deg2rad(90)))
    cv2.imwrite(str(tmp_path / "in" / "a.png"), (127 + 120 * rays).astype(np.uint8))
    images = [f"images={tmp_path / 'in'}", "camera_model=cyl", f"output={tmp_path / 'out'}"]
    run(monkeypatch, f"checkpoint={checkpoint}", *images)
    with np.load(tmp_path / "out" / "predictions.npz", allow_pickle=False) as arrays:
        assert arrays["depth"].shape == (1, 28, 112)  # as the model was trained
    with pytest.raises(SystemExit):
        run(monkeypatch, f"weights={checkpoint}", "model=mapanything_tiny", *images)
    assert "does not fit the model" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["imges=x"], "imges: no such key. Did you mean images?"),
        (["run"], "run: expected key=value"),
        (["qqq=1"], "qqq: no such key. coopmap help infer lists them."),
        (["images=a", "output=b"], "give one of run=RUN, checkpoint=FILE and weights=HUB_ID|FILE|FOLDER"),
        (["run=a", "weights=b", "images=a", "output=b"], "give one of run=RUN, checkpoint=FILE and weights="),
        (["run=/nowhere", "output=b"], "give either images=FOLDER or frame=ROOT/SPLIT/SCENARIO/FRAME"),
        (["run=/nowhere", "images=a"], "give output=FOLDER for the results"),
        (["run=/nowhere", "images=a", "output=b"], "run=/nowhere: no such folder"),
        (["run=a", "images=a", "output=b", "agents=3"], "agents=3: goes with frame=... only"),
        (["run=a", "frame=a", "output=b", "size=300"], "size=300: goes with images=... only"),
        (
            ["run=a", "images=a", "output=b", "size=big"],
            "size: Value 'big' of type 'str' could not be",
        ),
        (["run=a", "images=a", "output=b", "precision=fp16"], "precision=fp16: expected one of auto, fp32, bf16"),
        (["run=a", "images=a", "output=b", "model=mapanything_v1"], "model=mapanything_v1: goes with weights=..."),
        (["checkpoint=/nowhere.ckpt", "images=a", "output=b"], "/nowhere.ckpt: there is no such checkpoint"),
        (["checkpoint=a", "images=a", "output=b", "device=gpu"], "device=gpu: "),
        (["checkpoint=a", "images=a", "output=b", "device=meta"], "device=meta: "),
        (["run=a", "images=a", "output=b", "size=99999"], "size=99999: expected 14 (one patch) to 4,096 pixels"),
    ],
)
def test_mistakes_are_named(arguments, message, monkeypatch, capsys):
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, *arguments)
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {message}")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["experiment=fusion_mean"], "fuses the camera images of an agent"),
        (["experiment=four_camera_rig"], "agents with calibrated rigs"),
        (["model.matching.gravity=true"], "told where down is"),
        (["experiment=mosaic_posefix"], "the four cameras of a car side by side"),
        (["experiment=cyl_panorama_aware"], "360-degree panoramas"),
        (["preset=town"], "expects 360-degree panoramas, which it was trained on"),
        (["model=mapanything_matching", "data.panorama.height=256", "data.panorama.width=1024"], "patches of 8"),
    ],
)
def test_models_that_need_more_than_loose_photographs_say_so(overrides, message):
    asked = InferConfig(run="a", images="photos", output="b")
    with pytest.raises(ConfigError, match=f"images=photos: this model .*{message}"):
        read_views(asked, load_config(["machine=laptop", *overrides]))


def test_panoramas_given_to_a_model_of_single_cameras_are_refused():
    asked = InferConfig(run="a", images="photos", output="b", camera_model="cyl")
    with pytest.raises(ConfigError, match=r"expects perspective images.*camera_model=pinhole"):
        read_views(asked, load_config(["machine=laptop", "experiment=four_camera"]))


def test_released_weights_take_photographs():
    asked = InferConfig(weights="facebook/map-anything", images="/nowhere", output="b")
    with pytest.raises(ConfigError, match="there is no such folder"):
        read_views(asked, load_config(["machine=laptop", "preset=town"]))


@pytest.mark.parametrize(
    ("weights", "choice"),
    [
        ("facebook/map-anything", "mapanything_v11"),
        ("facebook/map-anything-apache", "mapanything_v11"),
        ("facebook/map-anything-v1", "mapanything_v1"),
        ("facebook/map-anything-apache-v1", "mapanything_v1"),
    ],
)
def test_the_architecture_is_that_of_the_release(weights: str, choice: str, monkeypatch: pytest.MonkeyPatch):
    built: list[str] = []
    monkeypatch.setattr(loading, "build_model_and_record", lambda config: (built.append(config.model.name), None))
    loading.load_released(weights)
    assert built == [choice]


def test_the_architecture_of_a_folder_is_what_its_configuration_says(tmp_path: Path):
    assert architecture(tmp_path) is None
    for size, kept, choice in (("large", None, "mapanything_v1"), ("giant", 24, "mapanything_v11")):
        encoder = {"size": size} | ({} if kept is None else {"keep_first_n_layers": kept})
        (tmp_path / "config.json").write_text(json.dumps({"encoder_config": encoder}))
        assert architecture(tmp_path) == choice
        assert architecture(tmp_path / "config.json") == choice  # beside a file of weights
    assert architecture("/nowhere/model.safetensors") is None


def test_nan_in_the_weights_is_named_on_loading(
    checkpoint: Path, frame: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    content = torch.load(checkpoint, weights_only=True)
    name = next(name for name in content["state_dict"] if name.endswith("pose_head.proj.weight") or "pose_head" in name)
    content["state_dict"][name].view(-1)[0] = float("nan")
    broken = tmp_path / "checkpoints" / "broken.ckpt"
    broken.parent.mkdir()
    torch.save(content, broken)
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, f"checkpoint={broken}", f"frame={frame}", f"output={tmp_path / 'out'}")
    assert ended.value.code == 2
    message = capsys.readouterr().err
    assert "NaN or infinity in 1 of" in message
    assert name.removeprefix("model.") in message
    assert str(broken) in message


def test_a_run_says_that_it_has_no_groups(
    checkpoint: Path, frame: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit):
        run(monkeypatch, f"checkpoint={checkpoint}", f"frame={frame}", f"output={tmp_path}", "task=calibrated")
    assert "task=calibrated: a stored configuration has no groups to choose from; set single keys (task.KEY=VALUE)" in (
        capsys.readouterr().err
    )
    run(monkeypatch, "--help")
    assert "its groups where no run is named" in " ".join(capsys.readouterr().out.split())


def test_files_of_an_earlier_run_go(checkpoint: Path, frame: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    own = [f"checkpoint={checkpoint}", f"frame={frame}", f"output={tmp_path}"]
    run(monkeypatch, *own, "export=[tum,kitti]")
    (tmp_path / "kitti" / "mine.txt").write_text("mine")
    run(monkeypatch, *own)
    assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()} == {
        *("predictions.npz", "points.ply", "cameras.json", "overview.png", "scene.html"),
        *(".infer.files", "kitti/mine.txt"),
    }


def test_help_names_every_key(monkeypatch, capsys):
    run(monkeypatch, "--help")
    text = capsys.readouterr().out
    assert [key.name for key in fields(InferConfig) if f"\n  {key.name} " not in text] == []


def test_empty_and_wide_point_clouds(tmp_path: Path):
    rng = np.random.default_rng(0)
    points, colors = rng.standard_normal((70, 3)).astype(np.float32), rng.integers(0, 255, (70, 3), dtype=np.uint8)
    write_ply(tmp_path / "some.ply", points, colors, np.arange(70, dtype=np.uint16) * 9, "two\nlines é")
    cloud = trimesh.load(tmp_path / "some.ply")
    np.testing.assert_array_equal(cloud.vertices.astype(np.float32), points)
    np.testing.assert_array_equal(cloud.colors[:, :3], colors)
    write_ply(tmp_path / "none.ply", points[:0], colors[:0], np.zeros(0, np.uint8))
    assert (tmp_path / "none.ply").read_bytes().endswith(b"end_header\n")
