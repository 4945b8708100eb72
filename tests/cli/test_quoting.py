"""Paths with signs that the grammar or a shell takes for its own: the message is a command line, and that one works."""

import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from coopmap import load_config
from coopmap.cli.arguments import Arguments, read
from coopmap.cli.commands import find_command
from coopmap.config import ConfigError
from coopmap.config.overrides import as_argument, parse_override, quoted
from coopmap.config.synth import TownConfig
from coopmap.runs.next_steps import next_commands

NAMES = [
    "a=b", "a#b", "a&b", "[x]", "{x}", "(x)", "[x] (y)=#&é", "réseau", "it's", 'say "x"', "`ls`", "a!b", "a;b", "a<b>c",
    "x(1)", "'a' \"b\"", "^",
]  # fmt: skip
READ_ALIKE = ["my data", "2021_08", "1e3", "true", "$HOME", "a*b", "a|b", "a:b%c", "a\\b", "HEAD~5", "ev ü x"]
IN_GRAMMAR = ["[x]", "{x}", "[x", "{é", "'é", '"é', "é,b"]


def words_of(command_line: str) -> list[str]:
    """The arguments that a command gets from a shell."""
    script = f"coopmap() {{ printf '%s\\0' \"$@\"; }}\n{command_line}"
    output = subprocess.run(["bash", "-c", script], capture_output=True, check=True).stdout
    return output.decode().split("\0")[:-1]


def arguments_of(command: str, *given: str) -> Arguments:
    found, _ = find_command(command.split())
    assert found is not None
    return read(found, given)


def root_of(found: Arguments) -> str:
    (override,) = [override for override in found.overrides if override.startswith("data.root=")]
    return parse_override(override).value()


@pytest.mark.parametrize("name", IN_GRAMMAR)
def test_the_message_is_a_command_line_that_works(name: str) -> None:
    given = ["machine=laptop", f"data.root={name}", "optim.lr=0.5"]
    with pytest.raises(ConfigError, match=r"^cannot read .*; this is read: coopmap train machine=laptop ") as caught:
        arguments_of("train", *given)
    _, _, line = str(caught.value).partition("; this is read: ")
    command, *words = words_of(line)
    assert command == "train"
    found = arguments_of(command, *words)
    assert root_of(found) == given[1].removeprefix("data.root=")
    assert "optim.lr=0.5" in found.overrides


@pytest.mark.parametrize("name", [*READ_ALIKE, *(name for name in NAMES if name[0] not in "'[{")])
def test_text_is_read_as_it_is_written(name: str) -> None:
    assert root_of(arguments_of("train", "machine=laptop", f"data.root={name}")) == name


def test_text_of_own_keys_is_read_as_it_is_written() -> None:
    (output,) = arguments_of("evaluate", "run=a", "output=ev ü x").own[1:]
    assert parse_override(output).value() == "ev ü x"
    (revision,) = arguments_of("bench data", "against=HEAD~5").own
    assert parse_override(revision).value() == "HEAD~5"


@pytest.mark.parametrize(
    "argument",
    ["optim.lr=é", "optim.lr='1", "data.sampling.agents={2:1", "seed=a=b", "seed=[1", "data.root=${runs_root}/é"],
)
def test_what_is_meant_for_the_grammar_is_refused_where_it_cannot_be_read(argument: str) -> None:
    with pytest.raises(ConfigError, match=r"^cannot read .*; this is read: coopmap train "):
        arguments_of("train", argument)


def test_text_can_be_swept() -> None:
    asked = ["data.root=a,b/c", "model.weights=1e-3,1e-4", "optim.lr=1e-3,1e-4"]
    assert arguments_of("train", "-m", *asked).overrides == asked


@pytest.mark.parametrize("name", [*NAMES, *READ_ALIKE, " a", "a,b"])
def test_what_is_there_is_read_as_it_is_written(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    assert root_of(arguments_of("train", "machine=laptop", f"data.root={name}")) == name


@pytest.mark.parametrize("name", [*NAMES, *READ_ALIKE, "a,b", " a"])
def test_printed_commands_name_what_they_mean(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / name
    frame = folder / "test" / "s" / "1" / "000069.yaml"
    frame.parent.mkdir(parents=True)
    frame.touch()
    config = load_config(["machine=laptop", f"data.root={quoted(str(folder))}"])
    evaluate, infer, train = next_commands(folder, config)
    for line, names in ((evaluate, ["run"]), (infer, ["run", "frame"])):
        module, *words = words_of(line.replace("python -m coopmap.", "coopmap "))
        values = {item.key_or_group: item.value() for item in map(parse_override, arguments_of(module, *words).own)}
        assert [values[key] for key in names] == [str(folder), str(frame.parents[1] / frame.stem)][: len(names)]
    _, *words = words_of(train.replace("python -m coopmap.train", "coopmap"))
    assert root_of(arguments_of("train", *words)) == str(folder)
    (word,) = words_of(f"coopmap {as_argument('data.root', str(folder))}")
    assert root_of(arguments_of("train", "machine=laptop", word)) == str(folder)


def test_a_path_that_a_shell_has_parted_is_put_together(tmp_path: Path) -> None:
    folder = tmp_path / "my data set"
    folder.mkdir()
    with pytest.raises(ConfigError, match=r"^set: expected key=value; a path with spaces is quoted: ") as caught:
        arguments_of("train", "machine=laptop", f"data.root={tmp_path}/my", "data", "set", "optim.lr=0.5")
    command, *words = words_of(str(caught.value).partition("is quoted: ")[2])
    found = arguments_of(command, *words)
    assert root_of(found) == str(folder)
    config = load_config(found.overrides)
    assert (config.data.root, config.optim.lr) == (str(folder), 0.5)


@pytest.mark.slow
def test_the_command_line_of_the_message_trains(tiny_model: tuple[str, ...], town: TownConfig, tmp_path: Path) -> None:
    """By a real shell, in a real process; the folder is there when it is asked for as the message says."""
    root = tmp_path / "données, [v2] (a) = #1 & more"
    given = [*tiny_model, f"data.root={root}", "data.num_workers=0", "trainer.fast_dev_run=1"]
    program = f'coopmap() {{ {shlex.quote(sys.executable)} -m coopmap "$@"; }}\n'
    shell: Callable[[str], subprocess.CompletedProcess[str]] = lambda line: subprocess.run(  # noqa: E731
        ["bash", "-c", program + line], capture_output=True, text=True, cwd=tmp_path
    )
    refused = shell(shlex.join(["coopmap", "train", *given]))
    assert refused.returncode == 2
    root.symlink_to(town.root)
    line = refused.stderr.strip().partition("; this is read: ")[2]
    trained = shell(line)
    assert trained.returncode == 0, trained.stderr
    assert shell(shlex.join(["coopmap", "train", *given])).returncode == 0  # as typed, now that it is there
