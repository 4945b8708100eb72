"""A town of a few seconds that tests may damage copies of: files are shared by hard links."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from coopmap.config.synth import tiny_town
from coopmap.synthetic import render_town


@pytest.fixture(scope="session")
def checked_town(make_once: Callable[[str, Callable[[Path], None]], Path]) -> Path:
    """Folder with ``town`` and ``depth``: two scenarios of four frames, three cars each."""

    def fill(folder: Path) -> None:
        render_town(tiny_town(str(folder / "town"), str(folder / "depth"), frames=4, agents_min=3))

    return make_once("checked_town", fill)


@pytest.fixture
def copy(checked_town: Path, tmp_path: Path) -> Path:
    """A copy to damage. Its files are links: replace them, never write into them."""
    return Path(shutil.copytree(checked_town, tmp_path / "copy", copy_function=os.link))
