"""The last lines of a run."""

import sys
from pathlib import Path

import pytest

from coopmap.config.synth import TownConfig
from coopmap.runs.next_steps import activation, next_commands, print_next_steps


def test_commands_name_the_run_and_a_frame_that_was_not_trained_on(town: TownConfig) -> None:
    evaluate, infer, train = next_commands(Path("runs/a b/run"), town.root)
    assert evaluate == "python -m coopmap.evaluate run='runs/a b/run'"
    frame = infer.partition("frame=")[2].removesuffix(" output=out")
    assert Path(frame).relative_to(town.root).parts[0] == "validate"  # this town has no test split
    assert list(Path(frame).parent.glob(f"*/{Path(frame).name}.yaml"))
    assert train == "python -m coopmap.train experiment=four_camera"


def test_data_without_other_splits_leaves_inference_out(tmp_path: Path) -> None:
    assert [command.split()[2] for command in next_commands(Path("run"), str(tmp_path))] == [
        "coopmap.evaluate",
        "coopmap.train",
    ]


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
    print_next_steps(Path("run"), "/nowhere", is_town=True)
    shown = capsys.readouterr().out
    assert "Validation frames come from other drives through the same town" in shown
    assert "curves: run/curves.html\n" in shown
    assert max(map(len, shown.splitlines())) <= 80
    print_next_steps(Path("run"), "/nowhere", is_town=False)
    assert "town" not in capsys.readouterr().out
