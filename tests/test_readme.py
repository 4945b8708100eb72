"""What the README says to type works as it stands after ``make demo``.

Each command runs in a shell of its own, in a folder that holds what the demo leaves, only smaller. Where it would take
long, need a GPU or the network, or names the user's data, it is changed as :func:`shortened` says.
"""

import dataclasses
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from coopmap import load_config
from coopmap.cli import commands as cli_commands
from coopmap.config.synth import ScenarioCounts, tiny_town

README = (Path(__file__).parents[1] / "README.md").read_text()
NEEDS_THE_FULL_MODEL = "facebook/map-anything"
"""Weights from the hub: the configuration is put together, or the command declines the demo's model."""

FEW_STREETS = "data.town.scenarios.train=1 data.town.scenarios.validate=1 data.town.scenarios.test=1"
SHORTER = {
    "train": "debug=fast",
    "train experiment=cyl_matching": f"debug=fast {FEW_STREETS} data.sampling.curriculum.distance_m=null",
    "train resume=auto": f"debug=fast {FEW_STREETS}",
    "train machine=local3090": "--cfg job",
    "preview split=val": FEW_STREETS,
    "preflight": "preset=demo machine=laptop data.num_workers=0",
    "train -m": "debug=fast",
    "train debug=fast": FEW_STREETS,
    "train debug=overfit": f"{FEW_STREETS} trainer.max_epochs=1 trainer.overfit_batches=1 data.num_workers=0",
    "train --help": "",
    "bench": "repeats=1",
    "synth": "scenarios.train=1 scenarios.validate=0 scenarios.test=0 frames=1 image_scale=0.125 workers=1",
}
"""What is added to the commands that begin so; the longest beginning counts."""


def readme_commands() -> list[str]:
    """Commands in code blocks, and in the first column of tables."""
    text = README.replace("\\\n", " ")
    blocks = re.findall(r"^    (coopmap .*)$", text, re.MULTILINE)
    tables = re.findall(r"^\| `([^`]*)` \|.* \|$", text, re.MULTILINE)
    return [re.sub(r"  +", " ", command) for command in [*blocks, *tables] if command.startswith("coopmap ")]


COMMANDS = readme_commands()


def shortened(command: str, folder: Path) -> str:
    """A command as the test runs it."""
    command = command.replace("/data/opv2v", str(folder / "data/town"))
    command = command.replace("/data/depth", str(folder / "data/town_depth"))
    begins = [start for start in SHORTER if command.startswith(f"coopmap {start}")]
    return f"{command} {SHORTER[max(begins, key=len)]}" if begins else command


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """In a fresh shell with the environment's programs on its path, without network and GPU."""
    programs = folder / "programs"
    programs.mkdir(exist_ok=True)
    for name, arguments in (("python", ""), ("coopmap", "-m coopmap")):
        (programs / name).write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {arguments} "$@"\n')
        (programs / name).chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if name in ("PYTHONPATH", "OMP_NUM_THREADS", "LANG")}
    if "PYTHONPATH" in kept:
        kept["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, kept["PYTHONPATH"].split(os.pathsep)))
    environment = {
        **kept,
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(folder),
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HUB_OFFLINE": "1",
        **dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9"),
    }
    return subprocess.run(
        ["bash", "--norc", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, timeout=1200
    )


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory, tiny_model: tuple[str, ...]) -> Path:
    """Folder with a few streets, a tiny town and a finished run; read only."""
    from coopmap.synthetic import render_town

    folder = tmp_path_factory.mktemp("demo")
    counts = ScenarioCounts(train=1, validate=1, test=1)
    render_town(tiny_town(str(folder / "data/town"), str(folder / "data/town_depth"), scenarios=counts))
    streets = load_config(["preset=demo"]).data.town
    assert streets is not None
    roots = {"root": str(folder / "data/market"), "depth_root": str(folder / "data/market_depth")}
    render_town(dataclasses.replace(streets, **roots, scenarios=counts))
    settings = [
        "logger=csv",
        "data.steps_per_epoch=2",
        "data.num_workers=0",
        "trainer.max_epochs=1",
        *FEW_STREETS.split(),
        *tiny_model,
    ]
    train = shlex.join(["python", "-m", "coopmap.train", "experiment=cyl_posefix", *settings])
    done = run(train, folder)
    assert done.returncode == 0, done.stdout + done.stderr
    (folder / "shown.txt").write_text(done.stdout)
    return folder


@pytest.fixture
def folder(demo: Path, tmp_path: Path) -> Path:
    """A copy of it to write to."""
    return shutil.copytree(demo, tmp_path / "demo")


def test_readme_has_the_commands_of_every_program() -> None:
    programs = {command.split()[1] for command in COMMANDS}
    expected = "train evaluate infer export compare check preview render dashboard bench synth"
    assert programs >= set(expected.split())
    assert programs <= {command.name.split()[0] for command in cli_commands.COMMANDS}
    everyday = README.partition("## Everyday commands\n")[2]
    assert everyday.index("source .venv/bin/activate") < everyday.index("`coopmap ")


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.startswith("coopmap train")])
def test_what_is_to_be_trained_can_be_composed(command: str) -> None:
    for choice in (words := shlex.split(command)[2:]):
        if "," in choice:
            key, _, values = choice.partition("=")
            for value in values.split(","):
                load_config([f"{key}={value}"])
    load_config([word for word in words if "," not in word and not word.startswith("-")])


def test_frame_in_the_readme_is_one_of_the_demo() -> None:
    from coopmap.synthetic.worlds import plan_drive

    town = load_config(["preset=demo"]).data.town
    assert town is not None
    drive = plan_drive(town, "test", 0)
    assert f"frame={town.root}/test/{drive.name}/{drive.frames[0]} " in README


@pytest.mark.slow
@pytest.mark.parametrize("command", [command for command in COMMANDS if NEEDS_THE_FULL_MODEL not in command])
def test_command_runs(command: str, folder: Path) -> None:
    done = run(shortened(command, folder), folder)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_export_says_that_it_is_for_the_published_models(folder: Path) -> None:
    (command,) = (command for command in COMMANDS if command.startswith("coopmap export"))
    done = run(command, folder)
    assert done.returncode == 2
    assert "upstream cannot build model=mapanything_tiny" in done.stderr


@pytest.mark.slow
def test_commands_that_a_run_ends_with_run(folder: Path) -> None:
    shown = (folder / "shown.txt").read_text().partition("\nnext:\n")[2].splitlines()
    commands = [line.strip() for line in shown if not line.strip().startswith("source ")]
    assert len(commands) == 3
    for command in commands:
        done = run(command + " debug=fast" * ("coopmap.train " in command), folder)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_python_lines_run_in_a_plain_script_and_render_the_missing_town(tmp_path: Path) -> None:
    lines = README.partition("## From Python\n")[2].partition("\n## ")[0]
    code = "".join(line.removeprefix("    ") + "\n" for line in lines.splitlines() if line.startswith("    "))
    town = {"scenarios.train": 2, "scenarios.validate": 1, "scenarios.test": 0, "workers": 2}
    tiny = ", ".join(f'"data.town.{key}={value}"' for key, value in town.items())
    assert '["experiment=cyl_posefix"]' in code
    (tmp_path / "script.py").write_text(code.replace('"experiment=cyl_posefix"', f'"experiment=cyl_posefix", {tiny}'))
    done = run("python script.py", tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("data/market/*/*/*/*.yaml"))) >= 3
