import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coopmap import load_config
from coopmap.config import Config
from coopmap.config.preview import PreviewConfig
from coopmap.config.synth import TownConfig
from coopmap.previews.command import write_previews
from coopmap.viz.packing import unpack

from ..html_elements import Elements


@dataclass
class Page:
    """A written page, its script's numbers unpacked."""

    file: Path
    text: str
    views: list[dict[str, Any]]

    @property
    def elements(self) -> Elements:
        return Elements(self.text)

    def view(self, agent: str, name: str = "") -> dict[str, Any]:
        (found,) = (view for view in self.views if (view["title"], view["name"]) == (f"agent {agent}", name))
        return found


def read_page(file: Path) -> Page:
    text = file.read_text()
    found = re.search(r'<script type="application/json" id="numbers">(.*?)</script>', text)
    assert found is not None
    views = json.loads(found[1])["views"]
    for view in views:
        for name in ("range", "azimuth", "elevation", "camera", "covered"):
            view[name] = unpack(view[name], view["height"], view["width"]).astype(np.float64)
    return Page(file, text, views)


@pytest.fixture(scope="session")
def config_of(town: TownConfig, tiny_model: tuple[str, ...]) -> Callable[..., Config]:
    """Configuration on the tiny town, with further overrides."""

    def make(*overrides: str) -> Config:
        roots = ("data.town=null", f"data.root={town.root}", f"data.depth_root={town.depth_root}")
        size = ("data.panorama.height=56", "data.panorama.width=224")
        return load_config([*tiny_model, *roots, *size, *overrides])

    return make


@pytest.fixture(scope="module")
def written(config_of: Callable[..., Config], tmp_path_factory: pytest.TempPathFactory) -> Page:
    """The page as it is by default; read only."""
    options = PreviewConfig(output=str(tmp_path_factory.mktemp("look")))
    return read_page(write_previews(options, config_of()))


@pytest.fixture
def preview(config_of: Callable[..., Config], tmp_path: Path) -> Callable[..., Page]:
    """Writes a page and reads it again."""

    def make(*overrides: str, **asked: Any) -> Page:
        options = PreviewConfig(**({"output": str(tmp_path / "look")} | asked))
        return read_page(write_previews(options, config_of(*overrides)))

    return make
