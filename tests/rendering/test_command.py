"""Which files a rendering writes, and that its numbers are those of the evaluation."""

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh

from coopmap.cli.main import main
from coopmap.config.checks import ConfigError
from coopmap.config.render import RenderConfig
from coopmap.evaluate import evaluate
from coopmap.evaluation.data import EvaluationData
from coopmap.evaluation.subject import open_subject
from coopmap.rendering import command
from coopmap.rendering.command import Rendering, predict, read_sample, render
from coopmap.types import Batch, Prediction

PANELS = ("image", "depth", "depth_true", "error", "mask", "cloud")
ARRAYS = ("depth", "depth_true", "depth_sparse", "pose", "pose_pred", "pose_gt")


@pytest.fixture(scope="module")
def rendered(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Rendering:
    """By predicted poses."""
    return render(RenderConfig(checkpoint=str(checkpoint), output=str(tmp_path_factory.mktemp("look"))))


def test_all_files_are_there(rendered: Rendering) -> None:
    agents = rendered.summary["agents"]
    assert len(agents) >= 2
    expected = {f"views/{agent}_{name}.png" for agent in agents for name in PANELS}
    expected |= {f"views/{agent}_{name}.npy" for agent in agents for name in ARRAYS}
    expected |= {"pointcloud.html", "cloud.ply", "cloud.glb", "summary.json", ".render.files"}
    assert {str(path.relative_to(rendered.folder)) for path in rendered.folder.rglob("*") if path.is_file()} == expected
    assert (rendered.folder / "pointcloud.html").stat().st_size < 15e6


def test_arrays_are_those_of_the_sample(rendered: Rendering, checkpoint: Path) -> None:
    subject = open_subject(RenderConfig(checkpoint=str(checkpoint)), [])
    sample = read_sample(EvaluationData(subject.config, "val").dataset("val"), 0)
    assert sample.meta.scenario == rendered.summary["scenario"]
    assert list(sample.meta.agents) == rendered.summary["agents"]
    for number, agent in enumerate(sample.meta.agents):
        arrays = {name: np.load(rendered.folder / "views" / f"{agent}_{name}.npy") for name in ARRAYS}
        np.testing.assert_array_equal(arrays["depth_true"], sample.target.depth[number].numpy())
        sparse = arrays["depth_sparse"] > 0
        covered = sample.target.non_ambiguous[number].numpy()
        assert 0.005 < sparse.mean() <= covered.mean()
        assert not (sparse & ~covered).any()
        both = sparse & (arrays["depth_true"] > 0)
        ratio = arrays["depth_sparse"][both] / arrays["depth_true"][both]
        assert abs(np.median(ratio) - 1) < 0.05
        pose = sample.target.pose.double().numpy()
        np.testing.assert_allclose(arrays["pose_gt"], np.linalg.inv(pose[0]) @ pose[number], atol=1e-6)
        np.testing.assert_array_equal(arrays["pose"], arrays["pose_pred"])


def test_clouds_hold_the_predicted_points(rendered: Rendering) -> None:
    ply = trimesh.load(rendered.folder / "cloud.ply")
    glb = next(iter(trimesh.load(rendered.folder / "cloud.glb").geometry.values()))
    np.testing.assert_allclose(glb.vertices, ply.vertices * [1, -1, -1], atol=1e-5)
    assert (np.asarray(glb.colors)[:, :3] == np.asarray(ply.colors)[:, :3]).all()
    first = rendered.summary["agents"][0]
    ranges = np.load(rendered.folder / "views" / f"{first}_depth.npy")
    of_first = np.linalg.norm(ply.vertices, axis=1)[: int((ranges > 0).sum() / 3)]
    assert ranges.min() - 0.01 <= of_first.min()
    assert of_first.max() <= ranges.max() + 0.01
    assert (
        (rendered.folder / "cloud.ply").read_bytes().split(b"\n")[2].startswith(b"comment points in the frame of agent")
    )


def test_true_poses_place_the_points(rendered: Rendering, checkpoint: Path, tmp_path: Path) -> None:
    true = render(RenderConfig(checkpoint=str(checkpoint), output=str(tmp_path), pose_source="gt"))
    agent = true.summary["agents"][1]
    pose, pose_pred = (np.load(tmp_path / "views" / f"{agent}_{name}.npy") for name in ("pose_gt", "pose_pred"))
    np.testing.assert_array_equal(np.load(tmp_path / "views" / f"{agent}_pose.npy"), pose)
    placed, predicted = (trimesh.load(folder / "cloud.ply").vertices for folder in (tmp_path, rendered.folder))
    last = slice(len(placed) - 50, None) if len(true.summary["agents"]) == 2 else None
    if last is not None:
        back = (predicted[last] - pose_pred[:3, 3]) @ pose_pred[:3, :3]
        np.testing.assert_allclose(placed[last], back @ pose[:3, :3].T + pose[:3, 3], atol=1e-3)
    assert not np.allclose(placed, predicted)
    assert '"source": "gt"' in (tmp_path / "pointcloud.html").read_text()


def test_numbers_are_those_of_the_evaluation(rendered: Rendering, checkpoint: Path, tmp_path: Path) -> None:
    evaluate(checkpoint, output=tmp_path, baselines=[])
    summary = rendered.summary
    with (tmp_path / "samples.csv").open() as stream:
        rows = [row for row in csv.DictReader(stream) if row["frame"] == summary["frame"]]
    (row,) = [row for row in rows if row["scenario"] == summary["scenario"]]
    shared = [name for name in summary["metrics"] if name in row]
    assert {"trans_m", "rot_deg", "scale_ratio", "depth_abs_rel", "mask_iou", "chamfer_m", "bev_iou"} <= set(shared)
    for name in shared:
        assert float(row[name] or "nan") == pytest.approx(summary["metrics"][name], rel=1e-4, nan_ok=True), name
    with (tmp_path / "pairs.csv").open() as stream:
        pairs = [pair for pair in csv.DictReader(stream) if pair["frame"] == summary["frame"]]
    reference, *others = summary["agents"]
    found = {
        pair["agent_j"]: float(pair["trans_m"])
        for pair in pairs
        if (pair["scenario"], pair["agent_i"]) == (summary["scenario"], reference)
    }
    assert list(found) == others
    for agent, trans_m in found.items():
        assert summary["errors"]["agents"][agent]["trans_m"] == pytest.approx(trans_m, rel=1e-4)


def test_both_sides_have_the_same_keys(rendered: Rendering) -> None:
    pred, true = rendered.summary["pred"], rendered.summary["gt"]
    assert pred.keys() == true.keys()
    for agent in rendered.summary["agents"]:
        assert pred["agents"][agent].keys() == true["agents"][agent].keys()
    errors = rendered.summary["errors"]
    assert errors["scale_ratio"] == pytest.approx(pred["scale_m"] / true["scale_m"])
    views, agents = rendered.folder / "views", rendered.summary["agents"]
    ranges, truth = (
        np.stack([np.load(views / f"{agent}_{name}.npy") for agent in agents]) for name in ("depth", "depth_true")
    )
    assert true["depth_m_mean"] == pytest.approx(truth[truth > 0].mean(), rel=1e-5)
    off = (ranges[1] - truth[1])[truth[1] > 0].astype(float)
    assert errors["agents"][agents[1]]["depth_m_rmse"] == pytest.approx(np.sqrt((off**2).mean()), rel=1e-5)


def test_an_answer_without_a_point_is_rendered_without_gltf(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def predict_nothing(*args: Any) -> tuple[Prediction, Batch]:
        prediction, batch = predict(*args)
        return replace(prediction, depth=torch.zeros_like(prediction.depth)), batch

    monkeypatch.setattr(command, "predict", predict_nothing)
    main(["render", f"checkpoint={checkpoint}", f"output={tmp_path}"])
    assert not (tmp_path / "cloud.glb").exists()
    assert b"element vertex 0\n" in (tmp_path / "cloud.ply").read_bytes()
    printed = capsys.readouterr()
    assert "pointcloud.html, views/, cloud.ply, summary.json" in printed.out
    assert "no point is kept" in printed.err + printed.out


LAYOUTS = {
    "cameras": ("experiment=four_camera", "data.cameras.height=28", "data.cameras.width=42"),
    "mosaic": ("experiment=mosaic_posefix", "data.mosaic.height=28", "data.mosaic.width=28"),
    "warped": ("experiment=fusion_mean",),
    "grouped": ("experiment=fusion_cross_attention", "data.cameras.height=28", "data.cameras.width=42"),
    "alignment": ("model.matching.enabled=true", "model.pose_from=alignment"),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", LAYOUTS)
def test_every_kind_of_model_can_be_rendered(
    kind: str, make_checkpoint: Callable[..., Path], tiny_model: tuple[str, ...], tmp_path: Path
) -> None:
    chosen = LAYOUTS[kind]
    result = render(RenderConfig(checkpoint=str(make_checkpoint(*chosen)), output=str(tmp_path)))
    views = 4 if kind == "cameras" else 1
    pictures = sorted(path.name for path in (tmp_path / "views").glob("*_image.png"))
    assert len(pictures) == views * len(result.summary["agents"])
    import cv2

    image = cv2.imread(str(tmp_path / "views" / pictures[0]))
    assert image.std() > 20  # something is seen
    assert result.summary["pose_from"] == ("alignment" if kind == "alignment" else "head")
    assert np.isfinite(result.summary["errors"]["trans_m_mean"])


def test_the_command_says_what_to_suspect_and_where_things_are(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    main(["render", f"checkpoint={checkpoint}", "index=-1", "points=2000", f"output={tmp_path}"])
    printed = capsys.readouterr().out
    assert f"written to {tmp_path}: pointcloud.html" in printed
    assert "- Poses: off by" in printed
    assert json.loads((tmp_path / "summary.json").read_text())["index"] == 1


def test_rays_that_were_never_taught_are_suspected_and_points_are_on_calibrated_ones(
    make_checkpoint: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = make_checkpoint("model.matching.enabled=true", "model.pose_from=alignment")
    main(["render", f"checkpoint={checkpoint}", "points=2000", f"output={tmp_path}"])
    assert "- Rays: predicted ones are off by" in capsys.readouterr().out
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["rays_from"] == "calibration"
    subject = open_subject(RenderConfig(checkpoint=str(checkpoint)), [])
    rays = read_sample(EvaluationData(subject.config, "val").dataset("val"), 0).observation.rays[0].numpy()
    first = summary["agents"][0]
    points = trimesh.load(tmp_path / "cloud.ply")
    of_first = points.vertices[np.asarray(points.metadata["_ply_raw"]["vertex"]["data"]["view"]).ravel() == 0]
    known = (rays * np.load(tmp_path / "views" / f"{first}_depth.npy")[..., None]).reshape(-1, 3)
    nearest = np.linalg.norm(of_first[:50, None] - known[None], axis=-1).min(axis=1)
    assert nearest.max() < 1e-3


def test_files_of_an_earlier_rendering_go(checkpoint: Path, tmp_path: Path) -> None:
    render(RenderConfig(checkpoint=str(checkpoint), output=str(tmp_path)))
    (tmp_path / "views" / "notes.txt").write_text("mine")
    before = {path.name for path in (tmp_path / "views").iterdir()}
    result = render(RenderConfig(checkpoint=str(checkpoint), index=-1, output=str(tmp_path)), ["data.max_agents=2"])
    expected = {f"{agent}_{name}.png" for agent in result.summary["agents"] for name in PANELS}
    expected |= {f"{agent}_{name}.npy" for agent in result.summary["agents"] for name in ARRAYS} | {"notes.txt"}
    assert expected != before
    assert {path.name for path in (tmp_path / "views").iterdir()} == expected


def test_a_place_that_cannot_take_the_files_is_said_first(
    make_checkpoint: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = make_checkpoint()
    asked = RenderConfig(checkpoint=str(checkpoint))
    (open_subject(asked, []).folder / "render").touch()
    monkeypatch.setattr("coopmap.rendering.command.read_sample", None)
    with pytest.raises(ConfigError, match=r"^output=.*/render/val_0: .*render is a file; expected a folder"):
        render(asked)


def test_what_does_not_exist_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"index=99: split val has samples 0 to 1"):
        render(RenderConfig(checkpoint=str(checkpoint), index=99, output=str(tmp_path)))
    with pytest.raises(ConfigError, match="pose_source"):
        RenderConfig(checkpoint="x", pose_source="gps")
    with pytest.raises(ConfigError, match="give one of run=RUN"):
        RenderConfig()


def test_rendering_leaves_torch_as_it_was(rendered: Rendering) -> None:
    assert torch.is_grad_enabled()
