import csv
import json
import logging
import math
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from coopmap import build_dataset, load_config
from coopmap.cli.main import main
from coopmap.config import ConfigError
from coopmap.config.compose import to_yaml
from coopmap.config.evaluate import PROBES, EvaluateConfig
from coopmap.data.budget import BadFrameBudgetError
from coopmap.evaluate import evaluate
from coopmap.evaluation import icp
from coopmap.evaluation.baselines import Gaps, notes_about
from coopmap.evaluation.charts import error_by_circumstance
from coopmap.evaluation.subject import open_subject, stored_config
from coopmap.geometry.rig import SLOTS
from coopmap.metrics.cloud import cloud_figures
from coopmap.models import MapAnything
from coopmap.models.placement import as_matched
from coopmap.types import Batch, Observation, Prediction

MakeCheckpoint = Callable[..., Path]


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open() as stream:
        return list(csv.DictReader(stream))


def column(rows: list[dict[str, str]], name: str) -> list[float]:
    return [float(row[name]) for row in rows]


def test_tables_summary_and_figures_agree(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "samples.rank1.csv").write_text("of an earlier evaluation")
    result = evaluate(checkpoint, output=tmp_path, refine=True)
    samples, pairs = rows_of(tmp_path / "samples.csv"), rows_of(tmp_path / "pairs.csv")
    assert len(samples) == result.summary["samples"] == 2
    assert [row["agents"].count(" ") for row in samples] == [2, 2]
    assert len(pairs) == result.summary["pairs"] == 6
    for method, prefix in (
        ("model", ""),
        ("refined", "refined_"),
        ("training_mean", "training_mean_"),
        ("gps", "gps_"),
    ):
        mean = sum(column(pairs, f"{prefix}trans_m")) / 6
        assert result.summary["methods"][method]["trans_m"]["mean"] == pytest.approx(mean, rel=1e-5)
        assert sum(column(samples, f"{prefix}trans_m")) / 2 == pytest.approx(mean, rel=1e-5)
    logged = json.loads((tmp_path / "metrics.json").read_text())
    assert logged["figures"]["val/trans_m_mean"] == pytest.approx(sum(column(pairs, "trans_m")) / 6, rel=1e-5)
    assert logged["inputs"] == "images"
    assert len(logged["sha256"]) == 64
    assert json.loads((tmp_path / "summary.json").read_text())["bootstrap"]["drawn"] == "samples"
    assert sum(row["pairs"] for row in result.summary["breakdown"]["distance (m)"]) == 6
    assert not (tmp_path / "samples.rank1.csv").exists()


def test_bounds_and_baselines_stand_beside_the_model_for_every_kind_of_pair(checkpoint: Path, tmp_path: Path) -> None:
    result = evaluate(checkpoint, output=tmp_path, baselines=["gps", "bound", "matching"])
    pairs, samples = rows_of(tmp_path / "pairs.csv"), rows_of(tmp_path / "samples.csv")
    assert "training_mean" not in result.summary["methods"]
    assert "gps_icp" not in result.summary["methods"]
    assert result.summary["methods"]["bound"]["trans_m"]["median"] < 2  # patches of 45 degrees
    assert len(column(pairs, "bound_trans_m")) == 6
    rates = {method: row["apply_rate"]["mean"] for method, row in result.summary["methods"].items()}
    assert (rates["model"], rates["gps"]) == (1.0, 1.0)
    assert rates["matching"] == pytest.approx(sum(column(samples, "matching_answered")) / 2)
    assert set(column(samples, "bound_answered")) == {1.0}
    answered = [row["matching_trans_m"] != "" for row in pairs]
    assert sum(answered) == result.summary["methods"]["matching"]["trans_m"]["count"]
    assert sum(answered) / 6 == pytest.approx(sum(column(samples, "matching_answered")) / 2)
    for title, rows in result.summary["breakdown"].items():
        for method in ("model", "gps", "bound", "matching"):
            assert sum(row["methods"][method]["pairs"] for row in rows) == 6, (title, method)
            assert sum(row["methods"][method]["count"] for row in rows) == (
                sum(answered) if method == "matching" else 6
            )
    headings = column(pairs, "heading_deg")
    by_heading = result.summary["breakdown"]["difference of headings (deg)"]
    assert [row["bin"].split(":")[0] for row in by_heading] == ["same", "crossing", "opposite"]
    for row, (low, high) in zip(by_heading, ((0, 45), (45, 135), (135, 181)), strict=True):
        errors = [
            (float(pair["trans_m"]), float(pair["rot_deg"]))
            for pair in pairs
            if low <= float(pair["heading_deg"]) < high
        ]
        for limit in (1, 2, 3) if errors else ():
            right = sum(trans_m <= limit and rot_deg <= 5 for trans_m, rot_deg in errors) / len(errors)
            assert row["methods"]["model"][f"recall_{limit}m_5deg"] == pytest.approx(right)
            assert row["methods"]["model"]["trans_m_p95"] == pytest.approx(
                np.quantile([trans_m for trans_m, _ in errors], 0.95), rel=1e-4
            )
    assert [row["pairs"] for row in by_heading] == [
        sum(low <= angle < high for angle in headings) for low, high in ((0, 45), (45, 135), (135, 181))
    ]
    page = (tmp_path / "report.html").read_text()
    assert "Share of pairs within 2 m and 5°, by kind of pair" in page


def test_predictions_that_are_not_finite_are_no_smaller_sample(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first of two samples; its errors are infinite in every table, and JSON's null in means."""
    predict, calls = MapAnything.forward, []

    def broken(self: MapAnything, observation: Observation) -> Prediction:
        prediction = predict(self, observation)
        calls.append(observation)
        return prediction.map(lambda value: value * math.nan) if len(calls) == 1 else prediction

    monkeypatch.setattr(MapAnything, "forward", broken)
    evaluate(checkpoint, output=tmp_path)
    pairs, samples = rows_of(tmp_path / "pairs.csv"), rows_of(tmp_path / "samples.csv")
    assert [row["trans_m"] == "inf" for row in pairs] == [True] * 3 + [False] * 3
    assert [row["depth_abs_rel"] == "inf" for row in samples] == [True, False]
    summary, logged = (json.loads((tmp_path / name).read_text()) for name in ("summary.json", "metrics.json"))
    model = summary["methods"]["model"]
    assert (model["trans_m"]["count"], model["trans_m"]["mean"], model["trans_m"]["median"]) == (6, None, None)
    assert model["apply_rate"]["mean"] == 0.5
    assert summary["methods"]["gps"]["trans_m"]["mean"] > 0
    assert summary["figures"]["depth_abs_rel"]["mean"] is None
    assert summary["overall"][0]["methods"]["model"]["count"] == 6
    assert logged["figures"]["val/trans_m_mean"] is logged["figures"]["val/depth_abs_rel"] is None
    assert "+inf" in (tmp_path / "report.html").read_text()


def test_bounds_are_of_the_own_tick(make_checkpoint: MakeCheckpoint, checkpoint: Path, tmp_path: Path) -> None:
    evaluate(checkpoint, output=tmp_path / "alone", baselines=["bound"])
    with_ticks = make_checkpoint("data.neighbor_ticks=1", "data.max_views_per_gpu=8")
    result = evaluate(with_ticks, output=tmp_path / "ticks", baselines=["bound"])
    assert result.summary["pairs"] == 6
    for error in ("trans_m", "rot_deg"):
        expected = column(rows_of(tmp_path / "alone" / "pairs.csv"), f"bound_{error}")
        assert column(rows_of(tmp_path / "ticks" / "pairs.csv"), f"bound_{error}") == pytest.approx(expected, rel=1e-5)


def test_gps_has_no_answer_for_an_agent_without_it(checkpoint: Path, town: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(town / "town", tmp_path / "town"))
    lacking = min(root.glob("validate/*/*/*.yaml"))
    text = re.sub(r"^predicted_ego_pos:.*\n(- .*\n)*", "", lacking.read_text(), flags=re.MULTILINE)
    lacking.write_text(text)
    changed = [f"data.root={root}", f"data.depth_root={town / 'depth'}"]
    result = evaluate(checkpoint, overrides=changed, output=tmp_path / "out", baselines=["gps", "icp"])
    agent, frame = lacking.parent.name, lacking.stem
    gps = [method for method in ("gps", "gps_icp") if icp.is_available() or method == "gps"]
    for row in rows_of(tmp_path / "out" / "pairs.csv"):
        lacks = frame == row["frame"] and agent in (row["agent_i"], row["agent_j"])
        lacks &= row["scenario"] == lacking.parents[1].name
        assert [row[f"{method}_trans_m"] == "" for method in gps] == [lacks] * len(gps), row
    for method in gps:
        figure = result.summary["methods"][method]["trans_m"]
        assert figure["mean"] is not None
        assert 0 < figure["mean"] < 10
        note = result.summary["notes"][method]
        assert note == f"no answer, or none for some pairs, in 1 sample: {lacking} has no predicted_ego_pos"


def test_frames_with_one_agent_have_no_rows_of_pairs(checkpoint: Path, town: Path, tmp_path: Path) -> None:
    agent = sorted((town / "town" / "validate").glob("*/[0-9]*"))[0]
    frame = sorted(agent.glob("*.yaml"))[0].stem
    file = tmp_path / "list.json"
    file.write_text(json.dumps([{"scenario": agent.parent.name, "frame": frame, "agents": [agent.name]}]))
    changes = ["data.min_agents=1"]
    every = ["mean", "gps", "icp", "bound", "matching"]
    result = evaluate(checkpoint, frames=str(file), overrides=changes, output=tmp_path / "out", baselines=every)
    assert result.summary["pairs"] == 0
    assert not {"bound", "gps_icp", "matching"} & set(result.summary["methods"])


def test_priors_are_given_only_when_named(make_checkpoint: MakeCheckpoint, tmp_path: Path) -> None:
    posed = make_checkpoint("task=posed")
    alone = evaluate(posed, output=tmp_path / "alone", baselines=[])
    assert alone.summary["inputs"] == "images"
    assert alone.summary["trained_with"] == "images + poses"
    given = evaluate(posed, overrides=["task=posed"], baselines=[])
    assert given.summary["inputs"] == "images + poses"
    assert given.folder == posed.parents[1] / "evaluation_val_posed"
    assert given.figures["val/trans_m_mean"] != alone.figures["val/trans_m_mean"]
    assert "images + poses" in (given.folder / "report.html").read_text()


def test_weights_are_measured_as_the_checkpoint_that_holds_them(
    checkpoint: Path, tiny: list[str], tmp_path: Path
) -> None:
    of_run = evaluate(checkpoint, output=tmp_path / "run", baselines=[])
    of_weights = evaluate(weights=str(checkpoint), overrides=tiny, output=tmp_path / "weights", baselines=[])
    assert of_weights.figures == pytest.approx(of_run.figures, rel=1e-6, nan_ok=True)
    assert of_weights.summary["sha256"] == of_run.summary["sha256"]


def test_weights_that_do_not_match_agents_answer_with_regressed_poses(
    make_checkpoint: MakeCheckpoint, tiny: list[str], tmp_path: Path
) -> None:
    """As released weights do: a head that finds matches would be an untrained one."""
    regression, matching = make_checkpoint("loss=pose"), [*tiny, "loss=pose_matching"]
    of_run = evaluate(regression, output=tmp_path / "run", baselines=[])
    of_weights = evaluate(weights=str(regression), overrides=matching, output=tmp_path / "weights", baselines=[])
    assert of_weights.figures["val/trans_m_mean"] == pytest.approx(of_run.figures["val/trans_m_mean"], rel=1e-6)
    assert "val/confidence_mean" not in of_weights.figures


def test_clouds_of_a_model_that_matches_are_on_the_rays_that_it_aligns(
    make_checkpoint: MakeCheckpoint, tmp_path: Path
) -> None:
    """What it answers with: its own rays are hardly taught where calibration gives them."""
    checkpoint = make_checkpoint("loss=matching")
    evaluate(checkpoint, output=tmp_path / "out", baselines=[])
    row = rows_of(tmp_path / "out" / "samples.csv")[0]
    subject = open_subject(EvaluateConfig(checkpoint=str(checkpoint)), [])
    batch, model = Batch.collate([build_dataset(subject.config, split="val")[0]]), subject.module.eval()
    with torch.no_grad():
        prediction = model(batch.observation)
    matched, own = (
        float(cloud_figures(each, batch.target)["chamfer_m"])
        for each in (as_matched(model.model, prediction, batch.observation), prediction)
    )
    assert float(row["chamfer_m"]) == pytest.approx(matched, rel=1e-3)
    assert abs(own / matched - 1) > 0.01


def test_listed_frames_of_two_splits_with_agents_in_the_given_order(
    checkpoint: Path, town: Path, tmp_path: Path
) -> None:
    frames = []
    for folder in ("validate", "test"):
        agent = sorted((town / "town" / folder).glob("*/[0-9]*"))
        frame = sorted(agent[0].glob("*.yaml"))[0].stem
        frames.append({"scenario": agent[0].parent.name, "frame": frame, "agents": [agent[2].name, agent[0].name]})
    file = tmp_path / "list.json"
    published = [{"name": "others <1>", "trans_m": 2.0, "rot_deg": 1.0}]
    file.write_text(json.dumps({"name": "few & <far>", "frames": frames, "published": published}))
    result = evaluate(checkpoint, frames=str(file), output=tmp_path / "out", baselines=[])
    rows = rows_of(tmp_path / "out" / "samples.csv")
    by_scenario = {frame["scenario"]: " ".join(frame["agents"]) for frame in frames}
    assert {row["scenario"]: row["agents"] for row in rows} == by_scenario
    assert "frames/trans_m_mean" in result.figures
    page = (tmp_path / "out" / "report.html").read_text()
    assert "few &amp; &lt;far&gt;" in page
    assert "others &lt;1&gt;" in page
    assert "<far>" not in page
    assert "src='http" not in page
    assert 'src="http' not in page


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (("{style: suburb, hard: blank}", "{style: <far>, hard: blank}"), {"style of street": ["<far>", "suburb"]}),
        (("{hard: empty, slope_deg: 2}", "{hard: [none]}"), {"hard street": ["empty", "not stated"]}),
        (("{style: suburb", "of OPV2V"), {}),
    ],
)
def test_errors_by_kind_of_street(
    checkpoint: Path, town: Path, tmp_path: Path, said: tuple[str, str], expected: dict[str, list[str]]
) -> None:
    root = tmp_path / "town"
    shutil.copytree(town / "town", root)
    for scenario, street in zip(list_two_scenarios(root, tmp_path / "list.json"), said, strict=True):
        (scenario / "data_protocol.yaml").write_text(f"world:\n  street: {street}\n")
    changed = [f"data.root={root}", f"data.depth_root={town / 'depth'}"]
    frames = str(tmp_path / "list.json")
    result = evaluate(checkpoint, frames=frames, overrides=changed, output=tmp_path / "out", baselines=["gps"])
    of_streets = list(result.summary["breakdown"].items())[4:]
    assert {title: [row["bin"] for row in rows] for title, rows in of_streets} == expected
    pairs = rows_of(tmp_path / "out" / "pairs.csv")
    for title, rows in of_streets:
        fact = title.split()[0]
        for row in rows:
            errors = [float(pair["trans_m"]) for pair in pairs if (pair[fact] or "not stated") == row["bin"]]
            assert row["trans_m"]["mean"] == pytest.approx(sum(errors) / len(errors), rel=1e-4)
            assert row["methods"]["gps"]["pairs"] == len(errors) == 1
    page = (tmp_path / "out" / "report.html").read_text()
    assert [title for title in ("style of street", "hard street") if page.count(title) > 1] == list(expected)
    assert "<far>" not in page


def test_directions_of_gravity_are_stated_among_the_inputs(
    make_checkpoint: MakeCheckpoint, checkpoint: Path, tmp_path: Path
) -> None:
    matching = ("model.matching.enabled=true", "model.pose_from=alignment", "loss=matching")
    told = make_checkpoint(*matching, "model.matching.gravity=true")
    result = evaluate(told, output=tmp_path / "told", baselines=["bound"], probe=["seam", "moving", "alone"])
    assert result.summary["inputs"] == "images + directions of gravity"
    assert result.summary["inputs_asked_for"] == "images + directions of gravity"
    assert result.summary["methods"]["bound"]["trans_m"]["count"] == 6
    assert "images only" not in (tmp_path / "told" / "report.html").read_text()
    assert evaluate(checkpoint, output=tmp_path / "plain", baselines=[]).summary["inputs"] == "images"


def list_two_scenarios(root: Path, file: Path) -> list[Path]:
    """Writes a list of one pair of agents in each of two scenarios, and returns the folders of these."""
    frames, scenarios = [], []
    for folder in ("validate", "test"):
        agents = sorted((root / folder).glob("*/[0-9]*"))[:2]
        frame = sorted(agents[0].glob("*.yaml"))[0].stem
        scenarios.append(agents[0].parent)
        frames.append({"scenario": scenarios[-1].name, "frame": frame, "agents": [agent.name for agent in agents]})
    file.write_text(json.dumps({"name": "two streets", "frames": frames}))
    return scenarios


def test_unreadable_frames_are_told_and_counted(checkpoint: Path, town: Path, tmp_path: Path) -> None:
    root = tmp_path / "town"
    shutil.copytree(town / "town", root)
    shutil.rmtree(root / "train")
    victim = sorted(root.glob("validate/*/*/*_camera0.png"))[0]
    victim.write_bytes(victim.read_bytes()[:100])
    changed = [f"data.root={root}", f"data.depth_root={town / 'depth'}"]
    strict = [*changed, "data.bad_frame_budget=0"]
    with pytest.raises(BadFrameBudgetError, match=victim.name):
        evaluate(checkpoint, overrides=strict, output=tmp_path / "strict", baselines=[])
    result = evaluate(
        checkpoint, overrides=[*changed, "data.bad_frame_budget=0.5"], output=tmp_path / "out", baselines=["mean"]
    )
    assert result.summary["samples"] == 1
    assert result.summary["requested_samples"] == 2
    assert [victim.name in line for line in result.summary["unreadable"]] == [True]
    assert "1 unreadable" in (tmp_path / "out" / "report.html").read_text()
    with pytest.raises(ConfigError, match=rf"none of the samples asked for can be read.*{victim.name}"):
        evaluate(
            checkpoint,
            overrides=[*changed, "data.bad_frame_budget=0.5", "data.max_val_frames=1"],
            output=tmp_path / "1",
        )
    # the training split is gone as well: no baseline of its mean, and a word about it
    assert "training_mean" not in result.summary["methods"]
    assert result.summary["notes"]["training_mean"].startswith("no training split in data.root")


def test_the_training_split_may_have_unreadable_frames_within_the_budget(
    checkpoint: Path, town: Path, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(town / "town", tmp_path / "town"))
    victim = min(root.glob("train/*/*/*_camera0.png"))
    victim.write_bytes(victim.read_bytes()[:100])
    changed = [f"data.root={root}", f"data.depth_root={town / 'depth'}", "data.bad_frame_budget=0.5"]
    result = evaluate(checkpoint, split="train", overrides=changed, output=tmp_path / "out", baselines=[])
    assert result.summary["requested_samples"] - result.summary["samples"] == 1
    assert [victim.name in line for line in result.summary["unreadable"]] == [True]


def test_frames_with_too_few_agents_are_told_and_counted(
    checkpoint: Path, town: Path, tmp_path: Path, said: pytest.LogCaptureFixture
) -> None:
    root = Path(shutil.copytree(town / "town", tmp_path / "town"))
    min(root.glob("validate/*/*/*.yaml")).unlink()  # leaves two agents in that frame
    changed = [f"data.root={root}", "data.depth_root=null", "data.min_agents=3"]
    result = evaluate(checkpoint, overrides=changed, output=tmp_path / "out", baselines=[])
    assert (result.summary["samples"], result.summary["frames_with_too_few_agents"]) == (1, 1)
    told = "in 1 more fewer than data.min_agents=3 agents are in range"
    assert told in (tmp_path / "out" / "report.html").read_text()
    assert "in 1 more frames fewer than data.min_agents=3" in said.text


def test_a_kind_of_pair_without_a_finite_answer_has_no_bar() -> None:
    known = {"count": 3, "mean": 2.0, "mean_ci95": [1.0, 4.0], "median": 1.5}
    none = dict.fromkeys(known)
    rows = [
        {"bin": name, "pairs": 3, "trans_m": error, "rot_deg": error}
        for name, error in (("near", known), ("far", none))
    ]
    bars = [trace for trace in error_by_circumstance({"distance": rows}).data if trace.type == "bar"]
    assert [list(bar.y) for bar in bars] == [[2.0], [2.0]]


def test_what_was_done_survives_a_crash(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("coopmap.evaluation.runner.add_baselines", crash)
    (tmp_path / "summary.json").write_text("of an earlier evaluation")
    with pytest.raises(KeyboardInterrupt):
        evaluate(checkpoint, output=tmp_path)
    assert len(rows_of(tmp_path / "samples.partial.csv")) == 2
    assert not (tmp_path / "samples.csv").exists()
    assert (tmp_path / "summary.json").read_text() == "of an earlier evaluation"


def test_results_of_an_earlier_evaluation_are_replaced_and_nothing_else(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    evaluate(checkpoint, split="test", output="~/out", baselines=[], export=["tum", "kitti", "colmap", "heal"])
    folder = tmp_path / "out"
    mine = ["notes.txt", "matches_of_mine.png", "tum/notes.txt", "colmap/test_0000/database.db", "more/summary.json"]
    for name in mine:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("mine")
    for name in ("risk_coverage.csv", "reliability.csv", "matches_best.png", "samples.partial.csv"):
        (folder / name).write_text("of an earlier evaluation of a model that matches")
    evaluate(checkpoint, output=folder, baselines=[])
    written = ["metrics.json", "pairs.csv", "report.html", "samples.csv", "summary.json"]
    found = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    assert sorted(found) == sorted([*mine, *written])
    assert not (folder / "kitti").exists()
    assert {row["scenario"] for row in rows_of(folder / "samples.csv")} == {"validate_0000"}


def test_the_cache_of_a_run_is_left_out_on_other_data(
    make_checkpoint: MakeCheckpoint, tiny: list[str], town: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["cache", *tiny, f"cache_root={tmp_path / 'cache'}", "workers=1"])
    shutil.copytree(town / "town", tmp_path / "other")
    for frame in (tmp_path / "other" / "validate").glob("*/*/000060*"):
        frame.unlink()  # so that the cache is of other data
    cached = make_checkpoint(f"data.cache_root={tmp_path / 'cache'}")
    other = [f"data.root={tmp_path / 'other'}"]
    result = evaluate(cached, overrides=other, output=tmp_path / "out", baselines=[])
    assert (result.summary["samples"], result.summary["data_root"]) == (1, str(tmp_path / "other"))
    assert f"data.cache_root={tmp_path / 'cache'} holds views of data.root={town / 'town'}" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="the cache has other frames or agents of val"):
        evaluate(cached, overrides=[*other, f"data.cache_root={tmp_path / 'cache'}"], output=tmp_path / "named")
    capsys.readouterr()
    same = evaluate(cached, overrides=[f"data.root={town / 'town'}"], output=tmp_path / "same", baselines=[])
    assert same.summary["samples"] == 2
    assert "holds views of" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("loss=pose", "loss=pose: a run keeps the model, the objective and the settings that it was trained with; of "),
        ("experiment=four_camera", r"\(coopmap help experiment\)\. .*: weights=CHECKPOINT experiment=four_camera$"),
        ("data=four_camera", "data=four_camera: views of data.layout=cameras, but the model was trained on those of"),
    ],
)
def test_choices_that_a_run_has_settled_are_refused(checkpoint: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        evaluate(checkpoint, overrides=[override])


@pytest.mark.parametrize(
    "argument", ["trainer.accelerator=abacus", "trainer.strategy=together", "trainer.max_time=soon"]
)
def test_what_lightning_refuses_is_one_line(
    argument: str, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["evaluate", f"checkpoint={checkpoint}", f"output={tmp_path}", argument])
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: ")
    assert not list(tmp_path.iterdir())


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    """What the program logs, whatever commands have set up."""
    monkeypatch.setattr(logging.getLogger("coopmap"), "propagate", True)
    caplog.set_level("INFO", "coopmap")
    return caplog


def test_what_a_choice_of_data_changes_beside_the_place_is_said(
    make_checkpoint: MakeCheckpoint, tiny: list[str], tmp_path: Path, said: pytest.LogCaptureFixture
) -> None:
    places = [text for text in tiny if text.startswith(("data.root=", "data.depth_root="))]
    checkpoint = make_checkpoint("data.max_agents=2", "data.communication_range_m=50")
    changes = ["data=panorama", "data.communication_range_m=60", "data.num_workers=0", *places]
    result = evaluate(checkpoint, overrides=changes, output=tmp_path, baselines=[])
    assert result.summary["pairs"] == 6  # of three agents
    assert "data=panorama also has data.max_agents=4 (in training 2)\n" in said.text


def test_fused_cameras_stay_as_in_training_on_a_choice_of_data() -> None:
    sizes = ("data.cameras.height=48", "data.cameras.width=64")
    trained = load_config(["machine=laptop", "preset=demo", "experiment=fusion_mean", *sizes])
    assert trained.data.fused_patch_px == 8
    measured = stored_config(to_yaml(trained), ["data=streets"])
    assert (measured.data.fused_patch_px, measured.data.layout) == (8, "grouped")


def test_a_missing_registration_library_is_named(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(icp, "is_available", lambda: False)
    result = evaluate(checkpoint, output=tmp_path, baselines=["icp"])
    assert result.summary["notes"]["gps_icp"] == "not installed: pip install coopmap[icp]"
    assert "pip install coopmap[icp]" in (tmp_path / "report.html").read_text()


def test_samples_that_a_baseline_leaves_out_are_counted_over_all_ranks() -> None:
    gaps = [
        Gaps({}, {"gps_icp": ["c: damaged", "b: damaged"]}),
        Gaps({"xfeat": "not installed"}, {"gps_icp": ["a: damaged"], "matching": ["d: damaged"]}),
    ]
    assert notes_about(gaps) == {
        "xfeat": "not installed",
        "gps_icp": "no answer, or none for some pairs, in 3 samples: a: damaged",
        "matching": "no answer, or none for some pairs, in 1 sample: d: damaged",
    }


@pytest.mark.slow
def test_two_processes_measure_the_same(checkpoint: Path, town: Path, tmp_path: Path) -> None:
    """The sweeps are unreadable, so that one sample of each process has no registration."""
    root = Path(shutil.copytree(town / "town", tmp_path / "town"))
    for sweep in root.glob("validate/*/*/*.pcd"):
        sweep.write_bytes(sweep.read_bytes()[:100])
    changed = [f"data.root={root}", f"data.depth_root={town / 'depth'}"]
    command = [
        sys.executable,
        "-m",
        "coopmap.evaluate",
        f"checkpoint={checkpoint}",
        *changed,
        "baselines=[icp]",
        "refine=true",
    ]
    done = subprocess.run(
        [*command, f"output={tmp_path / 'two'}", "trainer.devices=2", "trainer.strategy=ddp"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("model, refined") == 1
    alone = evaluate(checkpoint, overrides=changed, output=tmp_path / "one", baselines=["icp"], refine=True)
    assert not icp.is_available() or alone.summary["notes"]["gps_icp"].startswith(
        "no answer, or none for some pairs, in 2 samples: /"
    )
    two = json.loads((tmp_path / "two" / "summary.json").read_text())
    assert two["samples"] == 2
    assert two["notes"] == alone.summary["notes"]
    assert two["figures"].keys() == alone.summary["figures"].keys()
    for name, figure in alone.summary["figures"].items():
        mean = figure["mean"]
        written = None if mean is None or not math.isfinite(mean) else pytest.approx(mean, rel=1e-5)
        assert two["figures"][name]["mean"] == written, name
    assert (
        rows_of(tmp_path / "two" / "samples.csv")[0]["frame"] == rows_of(tmp_path / "one" / "samples.csv")[0]["frame"]
    )
    assert not list((tmp_path / "two").glob("*.rank*"))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({}, "give one of run=RUN, checkpoint=FILE and weights="),
        ({"run": "/nowhere"}, "run=/nowhere: no such folder"),
        ({"weights": "/nowhere.pt"}, "weights=/nowhere.pt: no such file or folder"),
        ({"run": "a", "frames": "/nowhere.json"}, "frames=/nowhere.json: there is no such file"),
        ({"run": "a", "probe": ["mirror"]}, "probe=mirror: expected one of other_street"),
        ({"run": "a", "split": "vall"}, "split=vall: expected one of val, test"),
        ({"run": "a", "split": "val", "frames": "b"}, "split=val and frames=b: give only one of them"),
    ],
)
def test_mistakes_are_named(keys: dict[str, Any], message: str, tiny: list[str]) -> None:
    with pytest.raises(ConfigError) as raised:
        evaluate(overrides=tiny, **keys)
    assert message in str(raised.value)


def test_limits_of_a_training_run_do_not_cut_an_evaluation_short(
    make_checkpoint: MakeCheckpoint, tmp_path: Path
) -> None:
    checkpoint = make_checkpoint("trainer.limit_val_batches=1", "data.max_agents=2", "data.max_views_per_gpu=2")
    whole = evaluate(checkpoint, output=tmp_path / "whole", baselines=[])
    assert whole.summary["samples"] == 2
    cut = evaluate(checkpoint, overrides=["trainer.limit_val_batches=1"], output=tmp_path / "cut", baselines=[])
    assert cut.summary["samples"] == 1


def test_progress_is_shown(checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "coopmap")
    evaluate(checkpoint, overrides=["callbacks.progress_seconds=1e-6"], output=tmp_path, baselines=[])
    lines = [record.getMessage() for record in caplog.records if "batch" in record.getMessage()]
    assert re.fullmatch(r"measuring: batch 1/\d  \d:\d\d:\d\d left", lines[0])
    assert lines[-1].endswith("  0:00:00 left")


def test_figures_are_of_cars_where_views_are_cameras(make_checkpoint: MakeCheckpoint, tmp_path: Path) -> None:
    cameras = make_checkpoint("data.layout=cameras", "data.max_views_per_gpu=16")
    result = evaluate(cameras, output=tmp_path, baselines=[], refine=True)
    pairs = rows_of(tmp_path / "pairs.csv")
    assert len(pairs) == 6
    assert {row["agent_i"] for row in pairs} < set(rows_of(tmp_path / "samples.csv")[0]["agents"].split())
    assert all(math.isfinite(value) for value in column(pairs, "refined_trans_m"))
    assert result.summary["inputs"] == "images"
    captions = re.findall(r"<figcaption>(\d): agent \S+, (\w+)</figcaption>", (tmp_path / "report.html").read_text())
    assert captions[:12] == [(str(agent), slot) for agent in range(3) for slot in SLOTS]


def test_a_model_that_matches_chooses_its_reference(make_checkpoint: MakeCheckpoint, tmp_path: Path) -> None:
    checkpoint = make_checkpoint("model.matching.enabled=true", "model.pose_from=alignment")
    result = evaluate(checkpoint, output=tmp_path, baselines=[], refine=True)
    pairs = rows_of(tmp_path / "pairs.csv")
    assert {"chosen", "refined", "model"} <= result.summary["methods"].keys()
    assert all(math.isfinite(value) for value in column(pairs, "chosen_trans_m"))
    assert "model, reference chosen" in (tmp_path / "report.html").read_text()


def test_rough_poses_stand_beside_the_answer_to_them(make_checkpoint: MakeCheckpoint, tmp_path: Path) -> None:
    checkpoint = make_checkpoint("priors=gps")
    result = evaluate(checkpoint, overrides=["priors=gps"], output=tmp_path / "gps", baselines=["gps"])
    pairs = rows_of(tmp_path / "gps" / "pairs.csv")
    for name in ("trans_m", "rot_deg"):
        assert column(pairs, f"prior_{name}") == pytest.approx(column(pairs, f"gps_{name}"), rel=1e-3, abs=1e-3)
        mean = sum(column(pairs, f"prior_{name}")) / len(pairs)
        assert result.summary["methods"]["prior"][name]["mean"] == pytest.approx(mean, rel=1e-5)
    assert "prior_trans_m" in rows_of(tmp_path / "gps" / "samples.csv")[0]
    page = (tmp_path / "gps" / "report.html").read_text()
    assert '<tr class="prior"><th class="left">pose priors</th>' in page

    without = evaluate(checkpoint, output=tmp_path / "without", baselines=[])
    assert "prior" not in without.summary["methods"]
    assert "as given" not in (tmp_path / "without" / "report.html").read_text()


def test_rough_poses_are_of_cars_where_views_are_cameras(make_checkpoint: MakeCheckpoint, tmp_path: Path) -> None:
    noise = ["priors=noisy", "priors.trans_noise_m=1", "priors.rot_noise_deg=2"]
    found = {}
    for layout in ("panorama", "cameras"):
        checkpoint = make_checkpoint("priors=noisy", f"data.layout={layout}", "data.max_views_per_gpu=16")
        evaluate(checkpoint, overrides=noise, output=tmp_path / layout, baselines=[])
        rows = rows_of(tmp_path / layout / "pairs.csv")
        found[layout] = [*column(rows, "prior_trans_m"), *column(rows, "prior_rot_deg")]
    assert len(found["cameras"]) == 12
    assert min(found["cameras"]) > 0.01
    assert found["cameras"] == pytest.approx(found["panorama"], rel=1e-3, abs=1e-4)


def test_calibrated_rays_that_every_sample_had_are_kept(make_checkpoint: MakeCheckpoint, tmp_path: Path) -> None:
    """They are to mosaics and cameras what the warp is to a panorama, whose own say nothing more."""
    found = {}
    for layout in ("panorama", "mosaic", "cameras"):
        size = tuple(f"data.{part}.{side}" for part in ("mosaic", "cameras") for side in ("height=28", "width=42"))
        checkpoint = make_checkpoint("task=calibrated", f"data.layout={layout}", *size, "data.max_views_per_gpu=16")
        result = evaluate(checkpoint, output=tmp_path / layout, baselines=[], refine=True)
        found[layout] = result.summary["inputs"]
        assert len(rows_of(tmp_path / layout / "pairs.csv")) == 6
    assert found == dict.fromkeys(("panorama", "mosaic", "cameras"), "images + calibrated rays")


def test_a_model_that_matches_says_how_sure_it_is(
    make_checkpoint: MakeCheckpoint, town: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coopmap.evaluation.bound.true_matches", None)  # the objective has found them
    file = tmp_path / "list.json"
    list_two_scenarios(town / "town", file)  # two streets, so that one can lend the other its images
    checkpoint = make_checkpoint("model.matching.enabled=true", "model.pose_from=alignment", "loss=matching")
    result = evaluate(checkpoint, frames=str(file), output=tmp_path / "out", baselines=["bound"], probe=list(PROBES))
    assert result.summary["methods"]["bound"]["trans_m"]["count"] == 2
    pairs = rows_of(tmp_path / "out" / "pairs.csv")
    asked = result.summary["probes"]["other_street"]
    for kind, name in (("as_they_are", "confidence"), ("other_street", "other_street_confidence")):
        assert asked[kind]["confidence"]["mean"] == pytest.approx(sum(column(pairs, name)) / 2, rel=1e-4)
    assert list(result.summary["probes"]) == list(PROBES)
    assert (
        sum(int(row["pairs"]) for row in rows_of(tmp_path / "out" / "reliability.csv") if row["of"] == "confidence")
        == 2
    )
    last = rows_of(tmp_path / "out" / "risk_coverage.csv")[-1]
    assert float(last["trans_m_median"]) == pytest.approx(sum(column(pairs, "trans_m")) / 2, rel=1e-4)
    shared = [share > 0.2 for share in column(pairs, "covisibility")]
    pictures = sorted(path.stem for path in (tmp_path / "out").glob("matches_*.png"))
    assert pictures == (["matches_best", "matches_median", "matches_worst"] if any(shared) else [])
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Whether the model knows when it is right" in page
    assert page.count("Probe: ") == len(PROBES)
    assert page.count("data:image/webp") == len(pictures)
    every, shared_pairs = result.summary["overall"]
    assert (every["pairs"], shared_pairs["pairs"]) == (2, sum(shared))
    assert every["trans_m"]["median"] == pytest.approx(sum(column(pairs, "trans_m")) / 2, rel=1e-4)
    headings = result.summary["breakdown"]["difference of headings (deg)"]
    assert sum(row["recall_2m_5deg"]["count"] for row in headings) == 2


def test_a_probe_needs_a_model_that_matches(checkpoint: Path) -> None:
    with pytest.raises(ConfigError, match=r"probe=other_street: .* has no model\.matching"):
        evaluate(checkpoint, probe=["alone", "other_street"])
