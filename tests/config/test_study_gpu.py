"""The study's script for a GPU asks for runs that can be composed, with weights that fit, and goes on where it was."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from coopmap import load_config
from coopmap.config import Config
from coopmap.models.hub import MODELS, RELEASES, EncoderKind

REPOSITORY = Path(__file__).parents[2]
RECORDS = """#!/bin/bash
printf '%s\\n' "$*" >> "$CALLS"
for word in "$@"; do
    case "$word" in
        "run_dir=$KILLED") exit 137;;
        "run_dir=$FAILED") exit 1;;
        output=*) mkdir -p "${word#*=}" && touch "${word#*=}/summary.json";;
    esac
done
"""
"""In place of Python: writes down what it is called with, and leaves what the script takes for an evaluation."""

LAYOUTS = {
    "panorama": "panorama",
    "mosaic": "mosaic",
    "cameras": "cameras",
    "cameras_rig": "cameras",
    "fusion": "grouped",
}
"""Of the arms by alignment; the others have panoramas."""
POSE_WEIGHTS = {"regression": 3.0, "relative": 0.1, "regression_v11": 0.1}

SMALL = {
    "MODELS": "small=model=mapanything_matching model.weights=null data.mosaic.height=72 data.mosaic.width=88",
    "TRAIN": "machine=laptop preflight.enabled=false data.num_workers=0 data.max_views_per_gpu=4 logger=csv "
    "checkpoint.every_n_steps=1 callbacks.validate_at_start=false callbacks.live_frames=0 trainer.log_every_n_steps=1",
    "SCALE": "0.125",
    "STREETS": "4",
    "VAL_STREETS": "2",
    "TEST_STREETS": "2",
    "STEPS": "6",
    "SEEDS": "0",
}
"""Settings of a study that takes half a minute of a core."""


class Study:
    """The script with its own folder, in which it may be started several times."""

    def __init__(self, folder: Path) -> None:
        self.runs, self.python, self.log = folder / "runs", folder / "python", folder / "calls"
        self.python.write_text(RECORDS)
        self.python.chmod(0o755)

    def run(self, name: str) -> Path:
        """Folder of a run."""
        return self.runs / name

    def start(self, *arguments: str, **settings: str) -> tuple[int, list[list[str]]]:
        """Exit status of one start, and what it calls: an entry point or script, and its arguments."""
        self.log.write_text("")
        env = {key: value for key, value in os.environ.items() if not key.startswith("COOPMAP_")}
        env |= {"PYTHON": str(self.python), "CALLS": str(self.log), "OUT": str(self.runs), "STREETS_ROOT": "/streets"}
        env |= {"KILLED": "-", "FAILED": "-", **settings}
        command = ["experiments/study/gpu.sh", *arguments]
        status = subprocess.run(command, cwd=REPOSITORY, env=env, check=False, capture_output=True).returncode
        lines = [line.removeprefix("-m coopmap ") for line in self.log.read_text().splitlines()]
        return status, [line.split() for line in lines]


@pytest.fixture
def study(tmp_path: Path) -> Study:
    if shutil.which("bash") is None:
        pytest.skip("needs bash")
    return Study(tmp_path)


def trained(calls: list[list[str]]) -> list[str]:
    """Names of the runs that were trained."""
    return [Path(value(call, "run_dir")).name for call in calls if call[0] == "train"]


def value(call: list[str], key: str) -> str:
    """What a call says of a key, once."""
    (found,) = (word.partition("=")[2] for word in call if word.startswith(f"{key}="))
    return found


def composed(calls: list[list[str]]) -> dict[str, Config]:
    """Configurations of trainings, by the name of the run."""
    configs = [load_config(call[1:]) for call in calls if call[0] == "train"]
    return {Path(config.run_dir).name: config for config in configs}


def test_every_arm_composes_with_weights_that_fit(study):
    status, calls = study.start(SEEDS="0", STEPS="12000", COOPMAP_DATA_ROOT="/opv2v")
    assert status == 0
    runs = composed(calls)
    arms = {*LAYOUTS, "regression", "relative"}
    expected = {"v1": arms, "v11": {*arms, "regression_v11"}}
    assert runs.keys() == {
        f"{place}_{model}_{arm}_seed0"
        for place in ("streets", "opv2v")
        for model in expected
        for arm in expected[model]
    }
    for name, config in runs.items():
        place, model, arm = name.removesuffix("_seed0").split("_", 2)
        encoder = EncoderKind(config.model.encoder.depth, config.model.encoder.dim)
        assert RELEASES[config.model.weights].encoder == encoder
        assert config.model.name == MODELS[encoder] == f"mapanything_{model}"
        assert config.data.root == f"/{place}"
        assert config.data.depth_root == ("/streets_depth" if place == "streets" else None)
        assert (config.trainer.max_epochs, config.data.steps_per_epoch, config.seed) == (3, 4000, 0)
        assert config.model.ground_range
        assert config.data.panorama.v_fov_deg == 90
        assert config.data.layout == LAYOUTS.get(arm, "panorama")
        assert config.model.inputs.rays == (arm in ("mosaic", "cameras_rig", "fusion"))
        assert config.model.rig_constraint == (arm == "cameras_rig")
        assert config.model.fusion.kind == ("cross_attention" if arm == "fusion" else "none")
        assert config.model.matching.enabled == (arm in LAYOUTS)
        assert config.model.pose_from == ("alignment" if arm in LAYOUTS else "head")
        assert config.model.info_sharing.mark_reference == (arm != "relative")
        assert config.loss.convert_to_view0 == (arm == "relative")
        assert config.loss.weights.pose_trans == POSE_WEIGHTS.get(arm, 3.0)
        assert config.loss.weights.matching == (1.0 if arm in LAYOUTS else 0.0)
        if config.model.matching.enabled:
            assert config.model.matching.tilt_sigma_deg == 1.0


def test_three_seeds_of_every_arm_are_trained_evaluated_and_compared(study):
    status, calls = study.start()
    names = [call[0] for call in calls]
    assert status == 0
    assert names.count("synth") == 1
    assert names.count("train") == names.count("evaluate") == 3 * (7 + 8)
    first, second = (call for call in calls if call[0].endswith("table.py"))
    assert " ".join(first[1:3]) == f"panorama 0={study.run('streets_v1_panorama_seed0')}/evaluation_test"
    assert len(first[1:]) == 2 * 3 * 7
    assert len(second[1:]) == 2 * 3 * 8
    for call in calls:
        if call[0] == "evaluate":
            assert value(call, "output") == f"{value(call, 'run')}/evaluation_test"


def test_what_is_evaluated_is_left_alone(study):
    study.start("_v1_")
    status, calls = study.start("_v1_")
    assert status == 0
    assert [call[0] for call in calls] == ["synth", "experiments/study/table.py"]


def test_a_start_after_an_interruption_goes_on_in_the_same_run(study):
    killed = "streets_v1_mosaic_seed0"
    status, calls = study.start(SEEDS="0", KILLED=str(study.run(killed)))
    assert status == 137
    assert trained(calls) == ["streets_v1_panorama_seed0", killed]
    interrupted = calls[-1]

    status, calls = study.start(SEEDS="0")
    assert status == 0
    assert trained(calls)[0] == killed
    assert calls[1] == interrupted
    assert value(calls[1], "resume") == "auto"
    assert value(calls[1], "run_dir") == str(study.run(killed))
    assert len(trained(calls)) == 7 - 1 + 8


def test_an_arm_that_fails_does_not_stop_the_others(study):
    failed = "streets_v1_relative_seed0"
    status, calls = study.start("_v1_", SEEDS="0 1", FAILED=str(study.run(failed)))
    assert status == 1
    assert len(trained(calls)) == 2 * 7
    assert len(calls[-1][1:]) == 2 * (2 * 7 - 1)
    assert f"0={study.run(failed)}/evaluation_test" not in calls[-1]
    status, calls = study.start("_v1_", SEEDS="0 1")
    assert status == 0
    assert trained(calls) == [failed]


def test_arms_are_chosen_by_their_names_and_tables_have_all(study):
    _, calls = study.start("^streets_v11_(mosaic|fusion)_seed1$")
    assert trained(calls) == ["streets_v11_mosaic_seed1", "streets_v11_fusion_seed1"]
    _, calls = study.start("^streets_v11_panorama_seed1$")
    assert [word for word in calls[-1] if not word.startswith("1=")][1:] == ["panorama", "mosaic", "fusion"]


def test_models_may_be_others_and_win_over_the_arms(study):
    models = "tiny=model=mapanything_tiny model.weights=null\nsmall=model=mapanything_matching model.weights=null "
    sizes = "data.cameras.height=72 data.cameras.width=88"
    _, calls = study.start("cameras_seed", MODELS=models + sizes, SEEDS="0", STEPS="7", TRAIN="trainer.accelerator=cpu")
    tiny, small = composed(calls).values()
    assert (tiny.model.name, tiny.data.cameras.height, tiny.data.steps_per_epoch) == ("mapanything_tiny", 210, 7)
    assert (small.model.name, small.data.cameras.height, small.model.weights) == ("mapanything_matching", 72, None)
    assert tiny.trainer.accelerator == small.trainer.accelerator == "cpu"


@pytest.mark.slow
def test_a_training_that_was_killed_goes_on_and_is_evaluated_once(study, tmp_path):
    env = {key: value for key, value in os.environ.items() if not key.startswith("COOPMAP_")}
    env |= {**SMALL, "PYTHON": sys.executable, "OUT": str(study.runs), "STREETS_ROOT": str(tmp_path / "streets")}
    command = ["experiments/study/gpu.sh", "_mosaic_"]  # its evaluation is on images and rays
    run = study.run("streets_small_mosaic_seed0")

    script = subprocess.Popen(command, cwd=REPOSITORY, env=env, start_new_session=True)
    while not (run / "checkpoints/last.ckpt").exists():
        assert script.poll() is None
        time.sleep(0.1)
    os.killpg(script.pid, signal.SIGKILL)
    script.wait()
    assert not (run / "evaluation_test").exists()

    subprocess.run(command, cwd=REPOSITORY, env=env, check=True)
    starts = json.loads((run / "starts.json").read_text())
    assert [start["resumed_from"] for start in starts] == [None, str(run / "checkpoints/last.ckpt")]
    with (run / "metrics.csv").open(newline="") as file:
        steps = [int(row["step"]) for row in csv.DictReader(file) if row["train/loss"]]
    assert steps == list(range(6))
    assert "| mosaic 0 |" in (study.runs / "streets_small.md").read_text()

    before = (run / "train.log").stat().st_mtime_ns, (run / "evaluation_test/summary.json").stat().st_mtime_ns
    subprocess.run(command, cwd=REPOSITORY, env=env, check=True)
    assert before == ((run / "train.log").stat().st_mtime_ns, (run / "evaluation_test/summary.json").stat().st_mtime_ns)
