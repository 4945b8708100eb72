import os
from pathlib import Path

import pytest

from coopmap.config import ConfigError
from coopmap.runs.find import find_checkpoint, find_run


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Runs ``a/first`` (oldest), ``a/second``, ``b/first`` and ``b/none``, the newest, without a checkpoint."""
    for age, name in ((30, "a/first"), (20, "a/second"), (10, "b/first")):
        file = tmp_path / name / "checkpoints" / "last.ckpt"
        file.parent.mkdir(parents=True)
        file.write_bytes(b"")
        os.utime(file, (1e9 - age,) * 2)
        (tmp_path / name / "config.yaml").write_text("")
    (tmp_path / "b" / "none").mkdir()
    (tmp_path / "b" / "none" / "config.yaml").write_text("")
    return tmp_path


def test_a_run_stands_for_its_best_checkpoint_and_before_there_is_one_for_its_last(root: Path) -> None:
    folder = root / "a" / "first"
    assert find_checkpoint(str(folder), None) == folder / "checkpoints" / "last.ckpt"
    (folder / "checkpoints" / "best.ckpt").write_bytes(b"")
    assert find_checkpoint(str(folder), None) == folder / "checkpoints" / "best.ckpt"
    assert find_checkpoint(None, "a.ckpt") == Path("a.ckpt")


@pytest.mark.parametrize("given", [(None, None), ("run", "a.ckpt")])
def test_one_of_run_and_checkpoint_is_asked_for(given: tuple[str | None, str | None]) -> None:
    with pytest.raises(ConfigError, match=r"^give either run=RUN or checkpoint=FILE$"):
        find_checkpoint(*given)


@pytest.mark.parametrize(
    ("name", "found"), [("latest", "b/first"), ("second", "a/second"), ("a/first", "a/first"), ("b/none", "b/none")]
)
def test_runs_are_found_by_name(root: Path, name: str, found: str) -> None:
    assert find_run(name, root).path == root / found


def test_an_experiment_with_one_run_stands_for_it(root: Path) -> None:
    (root / "b" / "none" / "config.yaml").unlink()
    assert find_run("b", root).path == root / "b" / "first"
    assert find_run(str(root / "b")).path == root / "b" / "first"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("first", r"^run=first: 2 runs have this name: a/first, b/first$"),
        ("a", r"^run=a: 2 runs have this name: a/first, a/second$"),
        (
            "a/frist",
            r"^run=a/frist: no such folder, and no run .*; did you mean a/first\?$",
        ),
        ("b/none", r"^run=b/none: there is no checkpoint in .*/b/none yet$"),
    ],
)
def test_what_names_no_single_checkpoint_is_explained(root: Path, name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        find_checkpoint(name, None, str(root))


def test_folders_of_several_runs_and_files_are_explained(root: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds 2 runs; name one of them: a/first, a/second$"):
        find_run(str(root / "a"))
    with pytest.raises(ConfigError, match=r"holds 4 runs; name one of them: a/first, a/second, b/first, b/none$"):
        find_run(str(root))
    file = root / "a" / "first" / "checkpoints" / "last.ckpt"
    with pytest.raises(ConfigError, match=f"is a file; for a checkpoint use checkpoint={file}"):
        find_run(str(file))
    with pytest.raises(ConfigError, match=r"run=latest: no run below .* has a checkpoint yet"):
        find_run("latest", root / "nowhere")
