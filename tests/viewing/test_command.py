"""From a checkpoint to a frame in the viewer."""

from pathlib import Path

import numpy as np
import pytest

from coopmap import load_config
from coopmap.config import ConfigError
from coopmap.config.synth import TownConfig
from coopmap.config.view import ViewConfig
from coopmap.viewing import command

from ..untrained import write_checkpoint

FREE_PORT = 18180


@pytest.fixture
def checkpoint(tiny_model: tuple[str, ...], town: TownConfig, tmp_path: Path) -> Path:
    """Of an untrained model."""
    roots = ("data.town=null", f"data.root={town.root}", f"data.depth_root={town.depth_root}")
    loading = ("data.num_workers=0", "data.max_views_per_gpu=4")
    return write_checkpoint(tmp_path / "run", load_config([*tiny_model, *loading, *roots]))


def test_frames_of_the_split_are_predicted_when_they_are_chosen(checkpoint: Path) -> None:
    pytest.importorskip("viser")
    viewer = command.start(ViewConfig(checkpoint=str(checkpoint), points=2000, port=FREE_PORT))
    try:
        shown = viewer.server.scene._handle_from_node_name
        assert viewer.count > 1
        first = np.array(shown["/predicted points"].points)
        assert 0 < len(first) <= 2000
        assert viewer.title.value.endswith(viewer.load(0).title)
        viewer.frame.value = 1
        viewer.show()
        assert viewer.title.value == viewer.load(1).title != viewer.load(0).title
        assert not np.array_equal(first, shown["/predicted points"].points)
        assert "/cameras/0" in shown
    finally:
        viewer.server.stop()


def test_without_viser_the_command_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"pip install coopmap\[view\]"):
        command.start(ViewConfig(run="latest"))
