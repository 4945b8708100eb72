"""The last lines of a run."""

import shlex
import sys
from dataclasses import replace
from operator import attrgetter
from pathlib import Path

import pytest

from coopmap import load_config
from coopmap.config.synth import TownConfig
from coopmap.runs.next_steps import activation, next_commands, print_next_steps


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell on a machine without GPU that names no data."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    for name in ("COOPMAP_DATA_ROOT", "COOPMAP_DEPTH_ROOT"):
        monkeypatch.delenv(name, raising=False)


def test_commands_name_the_run_and_a_frame_that_was_not_trained_on(town: TownConfig) -> None:
    config = load_config([f"data.root={town.root}", f"data.depth_root={town.depth_root}"])
    evaluate, infer, train = next_commands(Path("runs/a b/run"), config)
    assert evaluate == "python -m coopmap.evaluate run='runs/a b/run'"
    frame = infer.partition("frame=")[2].removesuffix(" output=out")
    assert Path(frame).relative_to(town.root).parts[0] == "validate"  # this town has no test split
    assert list(Path(frame).parent.glob(f"*/{Path(frame).name}.yaml"))
    data = f"data.root={town.root} data.depth_root={town.depth_root}"
    assert train == f"python -m coopmap.train experiment=four_camera {data}"


def test_data_without_other_splits_leaves_inference_out(tmp_path: Path) -> None:
    commands = next_commands(Path("run"), load_config([f"data.root={tmp_path}"]))
    assert [command.split()[2] for command in commands] == ["coopmap.evaluate", "coopmap.train"]


OF_MARKET = ["data.root=data/market", "data.depth_root=data/market_depth", "preset=town"]


@pytest.mark.parametrize(
    ("trained", "named"),
    [
        (["preset=town"], []),
        (["experiment=fusion_mean"], []),
        (["data.root=a"], ["data.root=a"]),
        (["data.root=a", "preset=town"], ["data.root=a", "preset=town"]),
        (["data.root=a", "machine=gpu"], ["machine=gpu", "data.root=a"]),
        (["data.root=a", "data.cache_root='c ü'"], ["data.root=a", "\"data.cache_root='c ü'\""]),
        (["data=town", "data.depth_root=null"], ["data.depth_root=null"]),
        ([], OF_MARKET),  # the demo's model has larger patches than fit into single cameras
        (["preset=demo", "data.root=a"], ["data.root=a", "preset=town"]),
    ],
)
def test_the_baseline_is_trained_on_the_same_data(trained: list[str], named: list[str]) -> None:
    config = load_config(trained)
    *_, train = next_commands(Path("run"), config)
    assert train == " ".join(["python -m coopmap.train experiment=four_camera", *named])
    baseline = load_config(shlex.split(train)[3:])
    for key in ("machine", "data.root", "data.depth_root", "data.cache_root"):
        assert attrgetter(key)(baseline) == attrgetter(key)(config)


def test_data_that_the_environment_names_need_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COOPMAP_DATA_ROOT", "/data")
    assert next_commands(Path("run"), load_config())[-1] == "python -m coopmap.train experiment=four_camera"
    own = load_config(["data=town", "preset=town"])
    assert next_commands(Path("run"), own)[-1].endswith(" experiment=four_camera preset=town")


def test_a_baseline_that_cannot_be_composed_is_not_named() -> None:
    config = replace(load_config(["data.root=a"]), machine="gone")
    assert [command.split()[2] for command in next_commands(Path("run"), config)] == ["coopmap.evaluate"]


def test_environment_is_activated_first_where_the_shell_does_not_know_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / ".venv"))
    monkeypatch.setattr(sys, "base_prefix", "/usr")
    monkeypatch.setenv("PATH", "/usr/bin")
    assert activation() == ["source .venv/bin/activate"]
    monkeypatch.setenv("PATH", f"{tmp_path / '.venv/bin'}:/usr/bin")
    assert activation() == []
    monkeypatch.setattr(sys, "base_prefix", sys.prefix)
    monkeypatch.setenv("PATH", "/usr/bin")
    assert activation() == []


def test_figures_of_the_town_say_which_streets_they_stand_for(capsys: pytest.CaptureFixture[str]) -> None:
    print_next_steps(Path("run"), load_config(["preset=town"]))
    shown = capsys.readouterr().out
    assert "Validation frames come from other drives through the same town" in shown
    assert "curves: run/curves.html\n" in shown
    assert max(map(len, shown.splitlines())) <= 80
    print_next_steps(Path("run"), load_config(["data.root=/nowhere"]))
    assert "town" not in capsys.readouterr().out
