"""Folders of results are kept out of git."""

import subprocess
from pathlib import Path

import pytest

from coopmap.runs.outputs import make_output_folder, replace_outputs


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    (tmp_path / ".gitignore").write_text("/runs/\n")
    return tmp_path


def untracked(checkout: Path) -> str:
    status = ["git", "status", "--porcelain", "--untracked-files=all"]
    return subprocess.run(status, cwd=checkout, capture_output=True, text=True, check=True).stdout


def test_a_new_folder_in_a_checkout_is_ignored(checkout: Path) -> None:
    (checkout / "kept").mkdir()
    before = untracked(checkout)
    for name in ("out", "a/b/c", "kept/out", "runs/x", "a/b/d"):
        (make_output_folder(checkout / name) / "result.csv").write_text("1")
    assert untracked(checkout) == before
    assert {str(file.parent.relative_to(checkout)) for file in checkout.rglob(".gitignore")} == {
        ".",
        "out",
        "a",
        "kept/out",
    }


def test_a_folder_that_is_there_already_is_left_alone(checkout: Path) -> None:
    (checkout / "mine").mkdir()
    make_output_folder(checkout / "mine")
    assert not list((checkout / "mine").iterdir())


def test_outside_a_checkout_nothing_is_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert not list(make_output_folder(tmp_path / "out" / "deeper").iterdir())
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "deeper"]


def test_files_of_an_earlier_run_go(tmp_path: Path) -> None:
    """Those that the command does not write again, with folders that become empty; nothing else in the folder."""
    for name in ("a.csv", "b.csv", "views/1.png", "shared/2.png", "shared/mine.png", "mine.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    first = [tmp_path / name for name in ("a.csv", "b.csv", "views/1.png", "shared/2.png")]
    replace_outputs(tmp_path, "infer", first)
    assert all(file.is_file() for file in first)

    replace_outputs(tmp_path, "render", [])  # another command's are not its own
    replace_outputs(tmp_path, "infer", first[:1])
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {"a.csv", "mine.csv", "shared/mine.png", ".infer.files", ".render.files"}
    assert not (tmp_path / "views").exists()


def test_a_record_names_no_file_elsewhere(tmp_path: Path) -> None:
    (folder := tmp_path / "out").mkdir()
    (elsewhere := tmp_path / "mine.csv").write_text("1")
    (folder / ".infer.files").write_text(f"../mine.csv\n{elsewhere}\n")
    replace_outputs(folder, "infer", [])
    assert elsewhere.is_file()
