"""The revision of a run is that of this package's own checkout, or none."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import coopmap

PACKAGE = Path(coopmap.__file__).parent
ASK = "from coopmap.runs.provenance import git_revision; print(git_revision())"
NONE = "{'git_revision': None, 'git_dirty': None}"


def repository(folder: Path) -> str:
    """Somebody's repository with one commit of all that is there, and its revision."""
    git = ("git", "-C", str(folder), "-c", "user.name=A", "-c", "user.email=a@example.org")
    for arguments in (("init", "-q"), ("add", "-f", "."), ("commit", "-q", "-m", "first", "--allow-empty")):
        subprocess.run([*git, *arguments], check=True)
    return subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()


def installed(folder: Path) -> Path:
    """As much of the package as the question needs."""
    for path in ("__init__.py", "runs/__init__.py", "runs/provenance.py"):
        target = folder / "coopmap" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if path == "__init__.py":
            target.write_text("")
        else:
            shutil.copy(PACKAGE / path, target)
    return folder


def asked(folder: Path) -> str:
    environment = {"PYTHONPATH": str(folder), "PATH": os.environ["PATH"]}
    done = subprocess.run(
        [sys.executable, "-c", ASK], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("place", [".venv/lib/site-packages", "src"])
def test_a_wheel_in_somebodys_repository_has_no_revision(place: str, tmp_path: Path) -> None:
    repository(tmp_path)
    assert asked(installed(tmp_path / place)) == NONE  # even where a checkout of ours would have it


def test_a_wheel_that_somebody_committed_has_none(tmp_path: Path) -> None:
    packages = installed(tmp_path / ".venv" / "lib" / "site-packages")
    repository(tmp_path)
    assert asked(packages) == NONE


def test_a_checkout_has_its_revision(tmp_path: Path) -> None:
    source = installed(tmp_path / "src")
    revision = repository(tmp_path)
    assert f"'git_revision': '{revision}'" in asked(source)
