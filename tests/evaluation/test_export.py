"""Exported poses, read by other people's readers or by the rules of the formats."""

import csv
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from coopmap.config import ConfigError
from coopmap.config.evaluate import EvaluateConfig
from coopmap.data.opv2v import SplitIndex, read_agent
from coopmap.evaluate import evaluate
from coopmap.evaluation.export import confidences, posed_frames, tracks_of, write_exports
from coopmap.evaluation.records import SampleRecord
from coopmap.formats.pose_cache import lidar_poses, sample_numbers
from coopmap.geometry import pose_from_carla
from coopmap.geometry.carla import pose_cv_from_ue
from coopmap.types import SampleMeta

from ..worlds import UTM, as_jpeg, move_world


@pytest.fixture(scope="module")
def exported(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    evaluate(checkpoint, output=folder, baselines=[], export=["tum", "kitti", "colmap", "heal"])
    return folder


@pytest.fixture(scope="module")
def exported_far_away(checkpoint: Path, town: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Poses of a split that is named as in OPV2V's archive, in the coordinates of a map; and the split's folder.

    The images of one agent are JPEG files.
    """
    folder = tmp_path_factory.mktemp("far")
    split = Path(shutil.copytree(town / "town" / "validate", folder / "town" / "test_culver_city"))
    move_world(split, UTM)
    as_jpeg(next(path for path in sorted(split.glob("*/*")) if path.is_dir()))
    overrides = [f"data.root={split.parent}", "data.depth_root=null"]
    formats = ["tum", "colmap", "heal"]
    evaluate(checkpoint, "test_culvercity", overrides, folder / "exported", baselines=[], export=formats)
    return folder / "exported", split


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open() as stream:
        return list(csv.DictReader(stream))


def x_to_world(pose: list[float]) -> np.ndarray:
    """The matrix that OpenCOOD makes of ``[x, y, z, roll, yaw, pitch]``, written from its definition."""
    x, y, z, roll, yaw, pitch = pose
    (cr, sr), (cy, sy), (cp, sp) = (
        (math.cos(math.radians(angle)), math.sin(math.radians(angle))) for angle in (roll, yaw, pitch)
    )
    return np.array(
        [
            [cp * cy, cy * sp * sr - sy * cr, -cy * sp * cr - sy * sr, x],
            [sy * cp, sy * sp * sr + cy * cr, -sy * sp * cr + cy * sr, y],
            [sp, -cp * sr, cp * cr, z],
            [0, 0, 0, 1],
        ]
    )


def test_evo_finds_our_trajectory_error_in_tum_and_kitti_files(exported: Path) -> None:
    pytest.importorskip("evo")
    from evo.core import metrics, sync
    from evo.tools import file_interface

    squares, count = 0.0, 0
    for row in rows_of(exported / "trajectories.csv"):
        place = Path(row["scenario"], row["agent"])
        for form in ("tum", "kitti"):
            read = getattr(file_interface, f"read_{'tum_trajectory' if form == 'tum' else 'kitti_poses'}_file")
            pair = [read(str(exported / form / f"{place}{suffix}.txt")) for suffix in ("_true", "")]
            if form == "tum":
                pair = list(sync.associate_trajectories(*pair))
            error = metrics.APE(metrics.PoseRelation.translation_part)
            error.process_data(tuple(pair))
            found = error.get_statistic(metrics.StatisticsType.rmse)
            assert found == pytest.approx(float(row["ate_none_m"]), rel=1e-5, abs=1e-6)
        squares, count = squares + found**2 * int(row["frames"]), count + int(row["frames"])
    # the same positions, sample by sample
    samples = rows_of(exported / "samples.csv")
    agents = [float(row["num_agents"]) for row in samples]
    per_sample = [float(row["ate_none_m"]) ** 2 * n for row, n in zip(samples, agents, strict=True)]
    assert count == sum(agents) == 6
    assert squares == pytest.approx(sum(per_sample), rel=1e-4)
    assert squares > 1


def test_true_trajectories_are_those_of_the_data_set(exported: Path, town: Path) -> None:
    index = SplitIndex.build(town / "town", "val")
    for number in range(len(index)):
        frame = index.frame(number)
        for agent in frame.agents:
            file = exported / "tum" / frame.scenario / f"{agent}_true.txt"
            if not file.exists():
                continue
            comments, lines = [], []
            for line in file.read_text().splitlines():
                (comments if line.startswith("#") else lines).append(line)
            assert any("reference" in comment for comment in comments)
            rows = {round(float(line.split()[0]) / 0.05): line.split() for line in lines}
            true = read_agent(index.yaml_path(frame, agent)).pose
            np.testing.assert_allclose([float(value) for value in rows[int(frame.frame)][1:4]], true[:3, 3], atol=1e-4)


def test_poses_are_in_the_world_of_the_files_however_far_away(exported_far_away: tuple[Path, Path]) -> None:
    exported, split = exported_far_away
    cache = json.loads((exported / "heal" / "test_culver_city.json").read_text())
    assert sorted(cache) == [str(number) for number in range(len(cache))]  # as HEAL numbers them
    for entry in cache.values():
        scenario, frame = entry["scenario"], entry["timestamp"]
        reference = next(iter(entry["cav_id_list"]))
        images = (exported / "colmap" / scenario / "images.txt").read_text().splitlines()
        for agent, clean, found in zip(
            entry["cav_id_list"], entry["lidar_pose_clean_np"], entry["lidar_pose"], strict=True
        ):
            read = read_agent(split / scenario / agent / f"{frame}.yaml")
            np.testing.assert_allclose(pose_cv_from_ue(x_to_world(clean)), read.pose, atol=1e-3)
            rows = (exported / "tum" / scenario / f"{agent}_true.txt").read_text().splitlines()
            places = {round(float(row.split()[0]) / 0.05): row.split()[1:4] for row in rows if row[0] != "#"}
            np.testing.assert_allclose([float(value) for value in places[int(frame)]], read.pose[:3, 3], atol=1e-3)
            if agent == reference:
                np.testing.assert_allclose(found, clean, atol=1e-3)
                (line,) = (row for row in images if f" {agent}/{frame}_camera0." in row)
                w, x, y, z, *place = (float(value) for value in line.split()[1:8])
                turn = Rotation.from_quat([x, y, z, w]).as_matrix()
                camera = (read.pose @ read.rig.agent_from_camera[0])[:3, 3]
                np.testing.assert_allclose(-turn.T @ place, camera, atol=1e-3)


def test_images_are_named_as_they_lie_below_their_scenario(exported_far_away: tuple[Path, Path]) -> None:
    exported, split = exported_far_away
    for folder in (exported / "colmap").iterdir():
        rows = [row.split() for row in (folder / "images.txt").read_text().splitlines() if row[:1] not in ("", "#")]
        names = {row[9] for row in rows}
        assert {Path(name).suffix for name in names} == {".jpg", ".png"}
        assert all((split / folder.name / name).is_file() for name in names)


def test_kitti_rows_are_twelve_numbers_with_a_time_each(exported: Path) -> None:
    files = [file for file in (exported / "kitti").glob("*/*.txt") if not file.stem.endswith("_times")]
    assert len(files) == 2 * len(rows_of(exported / "trajectories.csv"))
    for file in files:
        rows = np.loadtxt(file, ndmin=2)
        times = np.loadtxt(file.with_name(f"{file.stem.removesuffix('_true')}_times.txt"), ndmin=1)
        assert rows.shape == (len(times), 12)
        rotation = rows.reshape(-1, 3, 4)[:, :, :3]
        np.testing.assert_allclose(
            rotation @ rotation.transpose(0, 2, 1), np.eye(3)[None].repeat(len(rows), 0), atol=1e-5
        )


def test_the_pose_cache_has_every_car_of_every_frame(exported: Path, town: Path) -> None:
    cache = json.loads((exported / "heal" / "validate.json").read_text())
    samples = rows_of(exported / "samples.csv")
    found = {(entry["scenario"], entry["timestamp"]): entry for entry in cache.values()}
    assert len(found) == len(samples) == 2
    index = SplitIndex.build(town / "town", "val")
    order = {(index.frame(number).scenario, index.frame(number).frame): number for number in range(len(index))}
    assert {key: order[(entry["scenario"], entry["timestamp"])] for key, entry in cache.items()} == {
        key: int(key) for key in cache
    }
    for row in samples:
        entry = found[(row["scenario"], row["frame"])]
        assert entry["cav_id_list"] == row["agents"].split()
        assert entry["reference"] == row["agents"].split()[0]
        assert len(entry["lidar_pose"]) == len(entry["lidar_pose_clean_np"]) == len(entry["confidence"]) == 3
        frame = index.frame(order[(row["scenario"], row["frame"])])
        for agent, clean in zip(entry["cav_id_list"], entry["lidar_pose_clean_np"], strict=True):
            true = read_agent(index.yaml_path(frame, agent)).pose
            np.testing.assert_allclose(pose_cv_from_ue(x_to_world(clean)), true, atol=1e-4)
        np.testing.assert_allclose(entry["lidar_pose"][0], entry["lidar_pose_clean_np"][0], atol=1e-5)
    # the errors between cars that a detector will meet are those of the evaluation
    errors = {
        (row["scenario"], row["frame"], row["agent_i"], row["agent_j"]): row for row in rows_of(exported / "pairs.csv")
    }
    for (scenario, name, first, second), row in errors.items():
        entry = found[(scenario, name)]
        i, j = (entry["cav_id_list"].index(agent) for agent in (first, second))
        relative = [
            np.linalg.inv(x_to_world(entry[key][i])) @ x_to_world(entry[key][j])
            for key in ("lidar_pose", "lidar_pose_clean_np")
        ]
        off = np.linalg.norm(relative[0][:3, 3] - relative[1][:3, 3])
        assert off == pytest.approx(float(row["trans_m"]), rel=1e-4)


def test_matrices_of_the_pose_cache_are_ours_to_a_micrometer() -> None:
    record = some_record("a", "000070", ("7", "12", "3"), np.random.default_rng(3))
    (frame,) = posed_frames([record])
    written = lidar_poses(frame.pose)
    assert len(written) == len(frame.agents) == 3
    for pose, relative in zip(written, record.poses["model"].numpy(), strict=True):
        ours = record.world.numpy() @ relative
        np.testing.assert_allclose(pose_cv_from_ue(x_to_world(pose)), ours, atol=1e-6)


def test_samples_are_numbered_as_heal_counts_them(tmp_path: Path) -> None:
    for scenario in ("2021_08_20_21_10_24", "2021_08_21_09_09_41"):
        for car in ("-1", "641", "7"):
            (tmp_path / scenario / car).mkdir(parents=True)
            for frame in ("000263", "000265", "000267"):
                (tmp_path / scenario / car / f"{frame}.yaml").touch()
    assert sample_numbers(tmp_path) == {
        ("2021_08_20_21_10_24", "000263"): 0,
        ("2021_08_20_21_10_24", "000267"): 1,  # its data sets leave out the one between
        ("2021_08_21_09_09_41", "000263"): 2,
        ("2021_08_21_09_09_41", "000265"): 3,
        ("2021_08_21_09_09_41", "000267"): 4,
    }


def test_trajectories_after_alignment_are_as_evo_aligns_them(tmp_path: Path) -> None:
    pytest.importorskip("evo")
    from evo.core import metrics
    from evo.tools import file_interface

    rng = np.random.default_rng(5)
    records = [some_record("drive", f"{2 * number:06d}", ("7", "12"), rng) for number in range(8)]
    write_exports(tmp_path, records, None, ["tum"])
    rows = {row["agent"]: row for row in rows_of(tmp_path / "trajectories.csv")}
    assert float(rows["7"]["ate_none_m"]) == pytest.approx(0, abs=1e-6)  # the reference
    for alignment, scaled in (("se3", False), ("sim3", True)):
        true, found = (
            file_interface.read_tum_trajectory_file(str(tmp_path / "tum" / "drive" / f"12{suffix}.txt"))
            for suffix in ("_true", "")
        )
        assert found.timestamps.tolist() == pytest.approx([0.1 * number for number in range(8)])
        found.align(true, correct_scale=scaled)
        error = metrics.APE(metrics.PoseRelation.translation_part)
        error.process_data((true, found))
        expected = float(rows["12"][f"ate_{alignment}_m"])
        assert error.get_statistic(metrics.StatisticsType.rmse) == pytest.approx(expected, rel=1e-5)


def test_an_agent_of_one_frame_has_an_error_where_nothing_is_aligned() -> None:
    record = some_record("drive", "000002", ("7", "12"), np.random.default_rng(11))
    rows = {track.agent: track.row() for track in tracks_of(list(posed_frames([record])))}
    found, true = (record.poses[name][1, :3, 3] for name in ("model", "true"))
    assert rows["12"]["ate_none_m"] == pytest.approx(float((found - true).norm()), rel=1e-5)
    assert rows["7"]["ate_none_m"] == pytest.approx(0, abs=1e-6)
    assert math.isnan(rows["12"]["ate_se3_m"])


def test_an_agent_s_track_goes_on_under_another_reference() -> None:
    rng = np.random.default_rng(7)
    first = some_record("drive", "000002", ("7", "12"), rng)
    second = some_record("drive", "000000", ("12", "7"), rng)
    tracks = {track.agent: track for track in tracks_of(list(posed_frames([first, second])))}
    assert tracks["12"].numbers == (0, 2)
    assert tracks["12"].references == ("12", "7")
    np.testing.assert_allclose(tracks["12"].pose[0], second.world.numpy(), atol=1e-12)
    expected = first.world.numpy() @ first.poses["model"][1].numpy()
    np.testing.assert_allclose(tracks["12"].pose[1], expected, atol=1e-12)


def test_samples_that_cannot_be_told_apart_or_have_no_pose_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    rng = np.random.default_rng(9)
    twice = [some_record("drive", "000002", agents, rng) for agents in (("7", "12"), ("7", "3"))]
    broken = some_record("drive", "000004", ("7", "12"), rng)
    broken.poses["model"][1] = torch.nan
    with caplog.at_level("WARNING"):
        frames = list(posed_frames([*twice, broken]))
    assert [(frame.frame, frame.agents) for frame in frames] == [("000002", ("7", "12"))]
    assert "1 samples: their frame was measured before" in caplog.text
    assert "1 samples: a pose is not finite" in caplog.text


def test_confidence_is_that_of_the_pair_with_the_reference() -> None:
    record = some_record("drive", "000002", ("7", "12", "3"), np.random.default_rng(1))
    assert confidences(record) == (1.0, None, None)
    record.pairs["confidence"] = [0.25, 0.5, 0.75]  # of 01, 02, 12
    assert confidences(record) == (1.0, 0.25, 0.5)


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"export=tmu.*tum"):
        EvaluateConfig(run="latest", export=["tmu"])


def test_pycolmap_reads_the_cameras_where_the_rig_has_them(exported: Path, town: Path) -> None:
    pycolmap = pytest.importorskip("pycolmap")
    cache = json.loads((exported / "heal" / "validate.json").read_text())
    index = SplitIndex.build(town / "town", "val")
    seen = 0
    for folder in (exported / "colmap").iterdir():
        model = pycolmap.Reconstruction(str(folder))
        images = {image.name: image for image in model.images.values()}
        frames = {entry["timestamp"]: entry for entry in cache.values() if entry["scenario"] == folder.name}
        assert len(images) == 4 * sum(len(entry["cav_id_list"]) for entry in frames.values())
        for number in range(len(index)):
            frame = index.frame(number)
            if frame.scenario != folder.name or frame.frame not in frames:
                continue
            entry = frames[frame.frame]
            for agent, lidar_pose in zip(entry["cav_id_list"], entry["lidar_pose"], strict=True):
                rig = read_agent(index.yaml_path(frame, agent)).rig
                for slot, camera in enumerate((0, 2, 3, 1)):
                    image = images[f"{agent}/{frame.frame}_camera{camera}.png"]
                    assert (town / "town" / "validate" / folder.name / image.name).is_file()
                    pose = pose_cv_from_ue(x_to_world(lidar_pose)) @ rig.agent_from_camera[slot]
                    np.testing.assert_allclose(image.cam_from_world().matrix(), np.linalg.inv(pose)[:3], atol=1e-5)
                    np.testing.assert_allclose(image.camera.calibration_matrix(), rig.intrinsics[slot], atol=1e-5)
                    assert (image.camera.height, image.camera.width) == rig.image_size
                    seen += 1
    assert seen == 24


def some_record(scenario: str, frame: str, agents: tuple[str, ...], rng: np.random.Generator) -> SampleRecord:
    def poses(number: int) -> torch.Tensor:
        cords = np.concatenate([rng.uniform(-90, 90, (number, 3)), rng.uniform(-60, 60, (number, 3))], axis=1)
        return torch.from_numpy(pose_cv_from_ue(pose_from_carla(cords)))

    first, second = np.triu_indices(len(agents), 1)
    pairs = {"i": first.tolist(), "j": second.tolist(), "confidence": [float("nan")] * len(first)}
    found = {
        name: torch.cat([torch.eye(4, dtype=torch.float64)[None], poses(len(agents) - 1)]) for name in ("true", "model")
    }
    return SampleRecord(SampleMeta(scenario, frame, agents), agents, {}, pairs, found, poses(1)[0])
