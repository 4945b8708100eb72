"""What ``export=`` writes for a frame and for a folder of images."""

import json
import shutil
import struct
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from coopmap import infer as program
from coopmap.config import Config, ConfigError
from coopmap.config.infer import InferConfig
from coopmap.data.opv2v import SplitIndex, read_agent
from coopmap.geometry import pose_from_carla
from coopmap.geometry.carla import pose_cv_from_ue
from coopmap.inference import InferenceOptions, infer
from coopmap.inference.export import posed_frame, write_exports
from coopmap.inference.frame import read_frame
from coopmap.inference.inputs import Views
from coopmap.metrics.trajectory import trajectory_figures
from coopmap.models import MapAnything

from ..worlds import as_jpeg

ALL = ["tum", "kitti", "colmap", "heal"]


def numbers(file: Path) -> np.ndarray:
    return np.loadtxt(file, ndmin=2)


def test_a_frame_in_all_formats(config: Config, model: MapAnything, frame: Path, tmp_path: Path) -> None:
    views = read_frame(frame, config.data)
    result = infer(model, views.observation, InferenceOptions(camera_model="cyl", edges=False))
    files = write_exports(tmp_path, views, result, ALL, max_points=300)
    assert sorted(files) == sorted(path for path in tmp_path.rglob("*") if path.is_file())
    assert list(dict.fromkeys(file.parent.name for file in files)) == ALL
    agents = views.names
    assert len(agents) == 3
    index = SplitIndex.build(frame.parents[2], "val")
    true = np.stack([read_agent(frame.parent / agent / f"{frame.name}.yaml").pose for agent in agents])

    cache = json.loads((tmp_path / "heal" / "validate.json").read_text())
    ((key, entry),) = cache.items()
    assert (index.frame(int(key)).scenario, index.frame(int(key)).frame) == (frame.parent.name, frame.name)
    assert entry["cav_id_list"] == list(agents)
    assert entry["confidence"] == [1.0, None, None]
    ours = true[0] @ result.pose.double().numpy()
    np.testing.assert_allclose(pose_cv_from_ue(pose_from_carla(entry["lidar_pose"])), ours, atol=1e-4)
    np.testing.assert_allclose(pose_cv_from_ue(pose_from_carla(entry["lidar_pose_clean_np"])), true, atol=1e-4)
    np.testing.assert_allclose(numbers(tmp_path / "kitti" / "poses.txt").reshape(3, 3, 4), ours[:, :3], atol=1e-4)

    positions = [numbers(tmp_path / "tum" / f"poses{suffix}.txt")[:, 1:4] for suffix in ("", "_true")]
    error = np.sqrt(((positions[0] - positions[1]) ** 2).sum(axis=1).mean())
    assert views.true_pose is not None
    expected = trajectory_figures(result.pose[None], views.true_pose[None])["ate_none_m"]
    assert error == pytest.approx(float(expected), rel=1e-4)
    assert "the true world pose of agent 0" in (tmp_path / "tum" / "poses.txt").read_text()


def test_evo_gives_the_trajectory_error_of_a_frame(
    config: Config, model: MapAnything, frame: Path, tmp_path: Path
) -> None:
    pytest.importorskip("evo")
    from evo.core import metrics
    from evo.tools import file_interface

    views = read_frame(frame, config.data)
    result = infer(model, views.observation, InferenceOptions(camera_model="cyl", edges=False))
    write_exports(tmp_path, views, result, ["tum"])
    read = [file_interface.read_tum_trajectory_file(str(tmp_path / "tum" / f"poses{s}.txt")) for s in ("_true", "")]
    error = metrics.APE(metrics.PoseRelation.translation_part)
    error.process_data(tuple(read))
    assert views.true_pose is not None
    ours = trajectory_figures(result.pose[None], views.true_pose[None])["ate_none_m"]
    assert error.get_statistic(metrics.StatisticsType.rmse) == pytest.approx(float(ours), rel=1e-5)


def test_points_of_a_colmap_model_lie_where_the_cameras_saw_them(
    config: Config, model: MapAnything, frame: Path, tmp_path: Path
) -> None:
    pycolmap = pytest.importorskip("pycolmap")
    views = read_frame(frame, config.data)
    result = infer(model, views.observation, InferenceOptions(camera_model="cyl", edges=False))
    write_exports(tmp_path, views, result, ["colmap"], max_points=300)
    read = pycolmap.Reconstruction(str(tmp_path / "colmap"))
    assert len(read.images) == 12
    assert {len(read.cameras)} <= {1, 2, 3, 4}
    assert views.source is not None
    world = posed_frame(views.source, result).pose[0]
    inside = result.points_world[result.mask].double().numpy() @ world[:3, :3].T + world[:3, 3]
    points = np.array([point.xyz for point in read.points3D.values()])
    assert len(points) == min(300, len(inside))
    nearest = np.linalg.norm(points[:, None] - inside[None], axis=2).min(axis=1)
    assert nearest.max() < 1e-3


def test_cameras_of_jpeg_files_have_their_names(
    config: Config, model: MapAnything, frame: Path, tmp_path: Path
) -> None:
    scenario = Path(shutil.copytree(frame.parent, tmp_path / "validate" / frame.parent.name))
    as_jpeg(scenario)
    views = read_frame(scenario / frame.name, config.data)
    result = infer(model, views.observation, InferenceOptions(camera_model="cyl", edges=False))
    write_exports(tmp_path / "out", views, result, ["colmap"])
    lines = (tmp_path / "out" / "colmap" / "images.txt").read_text().splitlines()
    names = [line.split()[9] for line in lines if line[:1] not in ("", "#")]
    assert len(names) == 12
    assert all((scenario / name).is_file() for name in names)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for name in ("1.png", "2.png"):
        image = cv2.resize(rng.integers(0, 255, (6, 8, 3), dtype=np.uint8), (80, 60), interpolation=cv2.INTER_CUBIC)
        assert cv2.imwrite(str(tmp_path / "photos" / name), image)
    return tmp_path / "photos"


def test_photographs_become_cameras_with_the_recovered_intrinsics(
    checkpoint: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    own = (f"run={checkpoint.parents[1]}", f"images={folder}", f"output={output}", "data.layout=cameras")
    small = ("size=84", "edges=false", "max_points=100")
    monkeypatch.setattr(sys, "argv", ["infer", *own, *small, "export=[tum,colmap]"])
    program.main()
    assert f"written to {output}/colmap" in capsys.readouterr().out
    cameras = json.loads((output / "cameras.json").read_text())["views"]
    np.testing.assert_allclose(
        numbers(output / "tum" / "poses.txt")[:, 1:4], [np.array(view["pose"])[:3, 3] for view in cameras], atol=1e-6
    )
    lines = [
        line.split() for line in (output / "colmap" / "images.txt").read_text().splitlines() if line[:1] not in "#"
    ]
    known = {
        int(line.split()[0]): line.split()
        for line in (output / "colmap" / "cameras.txt").read_text().splitlines()
        if not line.startswith("#")
    }
    images = {line[9]: line for line in lines if line}
    fits = [view for view in cameras if view["intrinsics_of_file"][0][0] is not None]
    assert sorted(images) == sorted(view["name"] for view in fits)
    for view in fits:
        model, width, height, *parameters = known[int(images[view["name"]][8])][1:]
        assert (model, width, height) == ("PINHOLE", "80", "60")
        matrix = np.array(view["intrinsics_of_file"])
        expected = matrix[[0, 1, 0, 1], [0, 1, 2, 2]]
        np.testing.assert_allclose([float(value) for value in parameters], expected, rtol=1e-6, atol=1e-5)


def test_four_cameras_stand_for_their_agent(config: Config, frame: Path, tmp_path: Path) -> None:
    from dataclasses import replace

    data = replace(config.data, layout="cameras", cameras=replace(config.data.cameras, width=56, height=42))
    views = read_frame(frame, data)
    assert views.source is not None
    assert views.true_pose is not None
    with_truth = Exact(views)
    posed = posed_frame(views.source, with_truth)  # type: ignore[arg-type]
    assert posed.agents == tuple(dict.fromkeys(name.split()[0] for name in views.names))
    np.testing.assert_allclose(posed.pose, posed.true_pose, atol=1e-3)


class Exact:
    """A result whose poses are the true ones."""

    def __init__(self, views: Views) -> None:
        assert views.true_pose is not None
        self.pose: torch.Tensor = views.true_pose
        self.prediction = type("Prediction", (), {"matches": None})


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"export": ["heal"]}, "images have no cars"),
        ({"export": ["colmap"], "camera_model": "cyl"}, "COLMAP has no panoramas"),
        ({"export": ["ply"]}, "export=ply"),
    ],
)
def test_what_images_cannot_give_is_said_before_the_model_runs(asked: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        InferConfig(run="latest", images="photos", output="out", **asked)


@pytest.mark.parametrize("orientation", [3, 6])
def test_a_photograph_that_is_stored_turned_is_refused_for_colmap(
    orientation: int,
    checkpoint: Path,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    as_jpeg(folder)
    data = (folder / "2.jpg").read_bytes()
    tag = b"Exif\0\0II*\0" + struct.pack("<IHHHIII", 8, 1, 0x112, 3, 1, orientation, 0)
    (folder / "2.jpg").write_bytes(data[:2] + b"\xff\xe1" + struct.pack(">H", len(tag) + 2) + tag + data[2:])
    own = (f"run={checkpoint.parents[1]}", f"images={folder}", f"output={folder / 'out'}", "data.layout=cameras")
    monkeypatch.setattr(sys, "argv", ["infer", *own, "size=84", "export=[colmap]"])
    with pytest.raises(SystemExit):
        program.main()
    assert "2.jpg is stored turned, as its EXIF orientation says" in capsys.readouterr().err


def test_a_file_name_with_white_space_is_refused_for_colmap(
    checkpoint: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "2.png").rename(folder / "2 b.png")
    own = (f"run={checkpoint.parents[1]}", f"images={folder}", f"output={tmp_path / 'out'}", "data.layout=cameras")
    monkeypatch.setattr(sys, "argv", ["infer", *own, "size=84", "export=[colmap]"])
    with pytest.raises(SystemExit):
        program.main()
    assert "'2 b.png' has white space" in capsys.readouterr().err
