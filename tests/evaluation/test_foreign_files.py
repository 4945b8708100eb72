"""Checkpoints of somebody else: what they could try, and what happens. The rows of ``docs/security.md``."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from coopmap.config import ConfigError
from coopmap.config.evaluate import EvaluateConfig
from coopmap.config.stored_text import MAX_CHARACTERS, stored_mapping
from coopmap.evaluate import evaluate
from coopmap.evaluation.runner import _default_folder
from coopmap.evaluation.subject import Subject, open_subject, stored_config
from coopmap.inference.loading import load_run
from coopmap.runs.stored import open_checkpoint

Change = Callable[[dict], None]
SECRET = "hunter2"
MARKUP = "<img src=x onerror=alert(1)>"


@pytest.fixture
def planted(checkpoint: Path, tmp_path: Path) -> Callable[[Change], Path]:
    """The checkpoint with a changed configuration."""

    def plant(change: Change) -> Path:
        content = torch.load(checkpoint, weights_only=True)
        stored = yaml.safe_load(content["coopmap"]["config"])
        change(stored)
        content["coopmap"]["config"] = yaml.safe_dump(stored)
        file = tmp_path / "run" / "checkpoints" / "best.ckpt"
        file.parent.mkdir(parents=True)
        torch.save(content, file)
        return file

    return plant


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def precious(tmp_path: Path) -> Path:
    """A folder of the user's, that a town could be rendered over."""
    folder = tmp_path / "precious"
    (folder / "train").mkdir(parents=True)
    (folder / "thesis.tex").write_text("years of work")
    return folder


def render_over(precious: Path) -> Change:
    def change(stored: dict) -> None:
        root, depth = str(precious), str(precious / "depth")
        stored["data"]["town"] = {"root": root, "depth_root": depth, "overwrite": True, "towns": "per_scenario"}
        stored["data"] |= {"root": root, "depth_root": depth, "cache_dir": str(precious / "cache")}
        stored["trainer"]["profiler"] = "pytorch"

    return change


def test_nothing_is_rendered_where_a_stored_configuration_says(
    planted: Callable[[Change], Path], precious: Path, tmp_path: Path
) -> None:
    before = files_below(precious)
    with pytest.raises(Exception, match="precious"):
        evaluate(planted(render_over(precious)), output=tmp_path / "out", baselines=[])
    assert files_below(precious) == before


def test_results_go_to_their_folder_alone(
    planted: Callable[[Change], Path], town: Path, precious: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The data are there, and the rest of the configuration points elsewhere; its names are shown as text."""

    def change(stored: dict) -> None:
        roots = {key: stored["data"][key] for key in ("root", "depth_root")}
        render_over(precious)(stored)
        stored["data"] |= roots
        stored["experiment"] = MARKUP

    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    file, before, data = planted(change), files_below(precious), files_below(town)
    result = evaluate(file, output=tmp_path / "out", baselines=[])
    assert files_below(precious) == before
    assert files_below(town).keys() == data.keys()
    assert not files_below(tmp_path / "elsewhere")
    assert list(files_below(tmp_path / "run")) == ["checkpoints/best.ckpt"]
    pages = [path.read_text() for path in result.folder.glob("*.html")]
    assert pages
    assert all(MARKUP not in page and "&lt;img src=x onerror" in page for page in pages)


@pytest.mark.parametrize("load", ["evaluate", "infer"])
def test_folders_to_write_to_count_only_where_the_user_names_them(
    load: str, planted: Callable[[Change], Path], precious: Path
) -> None:
    file = planted(render_over(precious))

    def config(*overrides: str):
        if load == "infer":
            return load_run(file, overrides)[1]
        return stored_config(open_checkpoint(file).record["config"], overrides)

    opened = config()
    assert (opened.data.town, opened.data.cache_dir, opened.trainer.profiler) == (None, None, None)
    own = config("data.cache_dir=mine", "data.town.frames=3", "trainer.profiler=simple")
    assert own.data.cache_dir == "mine"
    assert own.data.town is not None
    assert own.data.town.frames == 3
    assert own.trainer.profiler == "simple"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("experiment", "${oc.env:TOKEN}"),
        ("experiment", "a${oc.env:TOKEN,b}"),
        ("runs_root", "${oc.decode:${oc.env:TOKEN}}"),
        ("seed", "${run_id:}"),
    ],
)
def test_interpolations_are_not_resolved(
    key: str, value: str, planted: Callable[[Change], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", SECRET)
    file = planted(lambda stored: stored.update({key: value}))
    for attempt in (lambda: open_checkpoint(file).config(), lambda: evaluate(file, output=tmp_path / "out"),
                    lambda: load_run(file)):  # fmt: skip
        with pytest.raises(ConfigError, match=f"{key}: the stored configuration holds an interpolation") as error:
            attempt()
        assert SECRET not in str(error.value)
    assert not (tmp_path / "out").exists()


BOMB = "a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, "holds an alias"),
        ("a: " + "[" * 100_000, "nested more than 32 deep"),
        ("a: " + "{b: " * 1000, "nested more than 32 deep"),
        ("a: " + "x" * MAX_CHARACTERS, "characters, more than"),
        ("a: !!python/object/apply:os.system ['touch ran']", "no YAML"),
        ("a: [1", "no YAML"),
        ("- 1", "no mapping"),
        ("", "is empty"),
        ("a: " + "9" * 5000, "no YAML"),
    ],
)
def test_texts_that_are_no_configuration_are_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        stored_mapping(text)


def test_names_in_a_stored_task_make_no_path(checkpoint: Path, tmp_path: Path) -> None:
    subject = open_subject(EvaluateConfig(checkpoint=str(checkpoint)), ())
    subject.config.task.name, subject.config.task.geometric, subject.config.task.rays = "../../precious", 1.0, 1.0
    here = Subject(subject.config, subject.module, "x", {}, tmp_path)
    assert _default_folder(here, "val", None).parent == tmp_path


def test_keys_that_the_configuration_does_not_have_are_refused(planted: Callable[[Change], Path]) -> None:
    file = planted(lambda stored: stored["trainer"].update({"default_root_dir": "/tmp", "plugins": "x"}))
    with pytest.raises(ConfigError, match="no such key"):
        open_checkpoint(file).config()


def test_every_row_of_the_table_is_a_test() -> None:
    tests = Path(__file__).parents[1]
    rows = [line for line in (tests.parent / "docs" / "security.md").read_text().splitlines() if "::" in line]
    assert len(rows) > 10
    for file, name in (match for row in rows for match in re.findall(r"`([\w/.]+)::(\w+)`", row)):
        assert f"def {name}(" in (tests / file).read_text(), f"{file}::{name}"
    assert all(re.search(r"`[\w/.]+::\w+`", row) for row in rows)
