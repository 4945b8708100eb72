"""Help: complete, in 80 columns, quick."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields, is_dataclass

import pytest

from coopmap.cli import help
from coopmap.cli.commands import COMMANDS
from coopmap.cli.main import main
from coopmap.config import Config
from coopmap.config.checks import ConfigError
from coopmap.config.groups import config_groups, group_choices
from coopmap.config.meanings import all_keys, attribute_texts

SCHEMAS = [Config, *(command.schema for command in COMMANDS if command.schema is not None)]


def shown(*words: str) -> str:
    return help.topic(words)


def sections(schema: type) -> Iterator[type]:
    yield schema
    for key in all_keys(schema):
        if key.section is not None:
            yield key.section


@pytest.mark.parametrize("schema", SCHEMAS)
def test_every_key_has_a_meaning_and_every_meaning_a_key(schema: type) -> None:
    assert [key.name for key in all_keys(schema) if not key.meaning] == []
    for section in sections(schema):
        assert is_dataclass(section)
        assert set(attribute_texts(section)) <= {field.name for field in fields(section)}, section


@pytest.mark.parametrize("width", ["60", "80", "100"])
@pytest.mark.parametrize("words", [[], ["bench"], ["data"], *(command.name.split() for command in COMMANDS)])
def test_pages_fit_the_terminal(words: list[str], width: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", width)
    unbreakable = ("coopmap ", "run_dir", "${runs_root}")  # commands and values are to be copied
    lines = [line for line in shown(*words).splitlines() if len(line) > int(width)]
    assert [line for line in lines if not line.strip().startswith(unbreakable)] == []
    if width == "80":
        assert lines == []


def test_overview_names_every_command() -> None:
    page = shown()
    for command in COMMANDS:
        assert f"\n  {command.name.split()[0]} " in page


def test_train_shows_groups_with_choices_and_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    page = shown("train")
    for group in config_groups():
        assert f"\n{group}:\n" in page
        for choice in group_choices(group):
            assert f"\n  {choice}" in page
    assert "One 360-degree panorama per agent" in page
    for field in fields(Config):
        assert f"\n  {field.name}" in page
    assert "data.*" in page


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.schema], ids=lambda each: each.name)
def test_commands_show_their_keys_with_meanings(command) -> None:
    page = " ".join(shown(*command.name.split()).split())
    for key in all_keys(command.schema):
        if key.section is None:
            assert " ".join(key.meaning.removesuffix(".").split()) in page
            assert f"default: {key.default}]" in page


def test_groups_of_keys_and_single_keys() -> None:
    page = shown("data.panorama")
    for name in ("height", "v_fov_deg", "legacy_crop"):
        assert f"\n  {name} " in page
    assert "[bowl | sphere | infinite; default: bowl]" in " ".join(page.split())
    (title, text) = shown("data.panorama.surface").split("\n\n")
    assert title == "data.panorama.surface=..."
    assert " ".join(text.split()).startswith("proxy surface that rays are cut with")
    assert "[gelu | swiglu; default: gelu]" in shown("model.encoder")
    assert "this share of each view's pixels" in " ".join(shown("infer", "confidence_percentile").split())


def test_keys_of_commands_are_found_with_a_dot_or_a_space() -> None:
    assert shown("evaluate.split") == shown("evaluate", "split")
    assert shown("bench", "model.views") == shown("bench", "model", "views")
    assert shown("preflight.enabled").startswith("preflight.enabled=...")  # of the configuration


def test_groups_list_their_choices_with_comments() -> None:
    assert "One 360-degree panorama per agent" in shown("experiment")
    fusion = shown("model/fusion")
    assert fusion == shown("model.fusion")
    assert "A convolution over camera axis and panorama" in fusion
    assert "\n  num_heads " in fusion


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data.panorma"], r"help data\.panorma: .* did you mean data\.panorama"),
        (["surface"], r"did you mean data\.panorama\.surface"),
        (["experimnt"], "did you mean experiment"),
        (["infer", "imags"], "did you mean images"),
        (["trian"], "did you mean train"),
        (["qqqqqq"], "coopmap help lists commands"),
        (["evaluate.splt"], "did you mean split"),
        (["train", "evaluate"], "help explains one command, group or key at a time: coopmap help evaluate$"),
        (["data.root", "optim.lr"], "at a time: coopmap help data.root, coopmap help optim.lr$"),
    ],
)
def test_near_misses_are_named(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        shown(*words)


@pytest.mark.parametrize("flag", ["--help", "-h", "help"])
def test_every_way_to_ask_shows_the_same(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["evaluate", flag])
    assert capsys.readouterr().out == shown("evaluate") + "\n"


def test_help_and_completion_load_nothing_slow() -> None:
    slow = {"torch", "lightning", "plotly", "hydra", "omegaconf", "numpy", "numba", "cv2", "wandb"}
    calls = [["help"], ["help", "data.panorama"], ["__complete", "train", "data."], ["__complete", "infer", "run="]]
    calls += [["help", *command.name.split()] for command in COMMANDS]
    code = (
        "import sys\n"
        "from coopmap.cli.main import main\n"
        f"for words in {calls!r}: main(words)\n"
        f"assert not {slow!r} & set(sys.modules), {slow!r} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
