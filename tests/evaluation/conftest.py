"""A tiny town on disk, and checkpoints of an untrained model on it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from coopmap import load_config
from coopmap.config.synth import ScenarioCounts, tiny_town
from coopmap.synthetic import render_town

from ..untrained import write_checkpoint


@pytest.fixture(scope="session")
def town(make_once: Callable[[str, Callable[[Path], None]], Path]) -> Path:
    """Folder of a rendered town (``town``) and its depth (``depth``); GPS is off by a meter and a degree."""
    scenarios = ScenarioCounts(train=1, validate=1, test=1)
    changes = {"scenarios": scenarios, "agents_min": 3, "gps_noise_m": 1.0, "gps_noise_deg": 1.0}
    return make_once(
        "evaluation", lambda folder: render_town(tiny_town(str(folder / "town"), str(folder / "depth"), **changes))
    )


@pytest.fixture(scope="session")
def tiny(tiny_model: tuple[str, ...], town: Path) -> list[str]:
    """Overrides of a tiny model on the town."""
    loading = ("data.num_workers=0", "data.max_views_per_gpu=4")
    return [*tiny_model, *loading, f"data.root={town / 'town'}", f"data.depth_root={town / 'depth'}"]


@pytest.fixture(scope="session")
def make_checkpoint(tiny: list[str], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes the checkpoint of an untrained model, as a run of so configured would have it."""

    def make(*overrides: str) -> Path:
        return write_checkpoint(tmp_path_factory.mktemp("run"), load_config([*tiny, *overrides]))

    return make


@pytest.fixture(scope="session")
def checkpoint(make_checkpoint: Callable[..., Path]) -> Path:
    """Of a model that sees images only."""
    return make_checkpoint()
