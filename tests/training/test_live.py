"""What a run shows while it trains: the same frames at every validation, curves, media at W&B."""

import json
import logging
import struct
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from coopmap import load_config
from coopmap.config.train import CallbacksConfig
from coopmap.runs.loggers import build_loggers, close_loggers
from coopmap.runs.metrics_file import read_metrics
from coopmap.training.callbacks.live import LivePictures, send
from coopmap.training.gallery import Gallery, Stage
from coopmap.training.run import TrainingResult
from coopmap.viz.frame_picture import draw_frame

from ..html_elements import Elements
from ..viz.scenes import scene


def stages_of(result: TrainingResult) -> list[dict]:
    return json.loads((result.run.path / "gallery" / "gallery.json").read_text())


def test_the_same_frame_is_drawn_at_every_validation(finished: TrainingResult) -> None:
    stages = stages_of(finished)
    assert [stage["step"] for stage in stages] == [0, 3, 6, 9]  # not again when the best checkpoint is measured
    assert len({tuple(stage["frames"]) for stage in stages}) == 1
    assert stages[0]["is_best"]
    by_step = {entry["step"]: entry["val/pose_trans_avg"] for entry in finished.validations}
    lowest = float("inf")
    for stage in stages:
        folder = finished.run.path / "gallery" / f"step_{stage['step']}"
        picture = cv2.imread(str(folder / "frame_0.jpg"))
        assert picture.shape[1] > 3 * 400
        assert stage["figures"]["pose_trans_avg"] == pytest.approx(by_step[stage["step"]], rel=1e-6)
        assert stage["is_best"] == (by_step[stage["step"]] < lowest)
        lowest = min(lowest, by_step[stage["step"]])
        assert (folder / "frame_0.html").exists() == stage["is_best"]
        assert (folder / "frame_0_cloud.jpg").exists() == stage["has_clouds"]
    best = min(by_step, key=by_step.__getitem__)  # before training, if nine steps made it worse
    assert (finished.run.path / "gallery" / f"step_{best:g}" / "frame_0.html").exists()


def test_the_index_leads_to_files_that_exist(finished: TrainingResult) -> None:
    gallery = finished.run.path / "gallery"
    elements = Elements((gallery / "index.html").read_text())
    addresses = [address for address in elements.addresses() if address != "#"]
    assert len(addresses) == 4
    assert all((gallery / address).is_file() for address in addresses)


def test_gradient_norms_and_memory_stand_beside_rates_and_times(finished: TrainingResult) -> None:
    rows = read_metrics(finished.run.path / "metrics.csv")
    names = {name for row in rows for name in row}
    parts = {name.removeprefix("lr/") for name in names if name.startswith("lr/")}
    assert {name.removeprefix("grad_norm/") for name in names if name.startswith("grad_norm/")} == parts
    assert {"time/step_s", "time/data_s", "memory/host_gb"} <= names
    (row, *_) = (row for row in rows if "train/grad_norm" in row)
    norms = [value for name, value in row.items() if name.startswith("grad_norm/")]
    assert np.sqrt(np.sum(np.square(norms))) == pytest.approx(row["train/grad_norm"], rel=1e-4)


EVIL = "<script>alert(1)</script> \"'ü"


def test_a_gallery_shows_names_as_text_and_forgets_later_steps_of_a_resumed_run(tmp_path: Path) -> None:
    gallery, shown = Gallery(tmp_path), scene(names=(EVIL, "650"), title=EVIL)
    for step, is_best in ((0, True), (5, False), (10, False)):
        gallery.add(Stage(step, [shown.title], {"translation (m)": 2.0}, is_best), [shown])
    assert [stage.step for stage in gallery.stages()] == [0, 5, 10]
    gallery.add(Stage(5, [shown.title], is_best=True, has_clouds=True), [shown])
    assert [stage.step for stage in gallery.stages()] == [0, 5]
    text = (tmp_path / "index.html").read_text()
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)" in text
    assert {path.name for path in (tmp_path / "step_5").iterdir()} == {
        "frame_0.jpg",
        "frame_0_cloud.jpg",
        "frame_0.html",
    }


def test_a_picture_that_cannot_be_written_does_not_end_the_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = SimpleNamespace(
        callback_metrics={"val/pose_trans_avg": 1.0},
        state=SimpleNamespace(fn="fit"),
        global_step=3,
        is_global_zero=True,
        fast_dev_run=False,
        sanity_checking=False,
        loggers=[],
    )

    def refuse(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(Gallery, "add", refuse)
    monkeypatch.setattr(logging.getLogger("coopmap"), "propagate", True)
    LivePictures(tmp_path, CallbacksConfig(), "val/pose_trans_avg").on_validation_end(trainer, None)  # type: ignore[arg-type]
    assert "no pictures of this validation: OSError: no space left on device" in caplog.text


BLOCK, HEADER = 32768, 7


def records_of(file: Path) -> list[bytes]:
    """Of a W&B file: LevelDB's log format, whose records are cut at the borders of blocks, after 7 bytes of its own."""
    content, at, records, parts = file.read_bytes(), HEADER, [], []
    while at + HEADER <= len(content):
        if BLOCK - at % BLOCK < HEADER:  # padding
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", content, at)
        parts.append(content[at + HEADER : at + HEADER + length])
        at += HEADER + length
        if kind in (1, 4):  # whole, or the last part
            records.append(b"".join(parts))
            parts = []
    return records


def test_wandb_gets_the_points_that_have_a_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of an agent whose pose is no number have none."""
    sent: list[dict[str, np.ndarray]] = []
    monkeypatch.setattr("wandb.Object3D", lambda points: points)
    logger: Any = SimpleNamespace(log_metrics=lambda media, step: sent.append(media))
    whole = scene()
    lost = replace(whole.views[1], pose={**whole.views[1].pose, "pred": np.full((4, 4), np.nan)})
    for views in (whole.views, [whole.views[0], lost]):
        shown = scene(views=views)
        send(logger, Stage(7, [shown.title]), [draw_frame(shown, "step 7")], [shown])
    all_points, placed = (media["live/points_0"] for media in sent)
    assert np.isfinite(placed).all()
    np.testing.assert_array_equal(placed, all_points[: len(placed)])
    assert 0 < len(placed) < len(all_points)


@pytest.mark.filterwarnings("error")
def test_points_without_a_place_are_not_drawn() -> None:
    """What a machine makes of one as whole pixels is its own."""
    whole = scene()
    lost = replace(whole.views[1], pose={**whole.views[1].pose, "pred": np.full((4, 4), np.nan)})
    drawn = draw_frame(scene(views=[whole.views[0], lost]), "step 7")
    assert drawn.shape == draw_frame(whole, "step 7").shape


@pytest.mark.slow
def test_an_offline_run_of_wandb_holds_metrics_and_pictures(tmp_path: Path) -> None:
    """Read back from its file."""
    from wandb.proto.wandb_internal_pb2 import Record

    loggers = build_loggers(load_config(["machine=laptop", "logger=offline"]), tmp_path, 0)
    shown = scene()
    picture = draw_frame(shown, "step 7")
    loggers[1].log_metrics({"val/pose_trans_avg": 3.25}, 7)
    send(loggers[1], Stage(7, [shown.title]), [picture], [shown])  # type: ignore[arg-type]
    close_loggers(loggers)
    (file,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    found = {}
    for data in records_of(file):
        for item in Record.FromString(data).history.item:
            found[item.key or "/".join(item.nested_key)] = json.loads(item.value_json)
    assert found["val/pose_trans_avg"] == 3.25
    assert (found["live/frame_0/width"], found["live/frame_0/height"]) == (picture.shape[1], picture.shape[0])
    assert found["live/frame_0/caption"] == "drive / 000069, step 7"
    files = file.parent / "files"
    stored = cv2.imread(str(files / found["live/frame_0/path"]))[..., ::-1]
    assert np.abs(stored.astype(int) - picture).mean() < 4  # JPEG
    points = json.loads((files / found["live/points_0/path"]).read_text())
    assert len(points[0]) == 6  # a place and a color
