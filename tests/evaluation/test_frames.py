import json
from pathlib import Path

import pytest

from coopmap.config import ConfigError
from coopmap.config.data import DataConfig
from coopmap.data import build_split
from coopmap.evaluation.frames import find_samples, read_frame_list, splits_of

SHIPPED = Path(__file__).parents[2] / "experiments" / "frames"


def written(folder: Path, content: object) -> Path:
    file = folder / "list.json"
    file.write_text(json.dumps(content))
    return file


def test_the_list_with_published_figures() -> None:
    frames = read_frame_list(SHIPPED / "opv2v_test_10.json")
    assert len(frames.frames) == 10
    assert all(len(frame.agents) == 2 for frame in frames.frames)
    assert [(line.trans_m, line.rot_deg) for line in frames.published] == [(6.28, 4.59), (10.85, 12.66), (2.09, 1.5)]
    assert "120 m" in frames.published_conditions


def test_names_that_are_not_there(town: Path, tmp_path: Path) -> None:
    config = DataConfig(root=str(town / "town"), depth_root=str(town / "depth"))
    dataset = build_split(config, "val")
    agent = sorted((town / "town" / "validate").glob("*/[0-9]*"))[0]
    good = {"scenario": agent.parent.name, "frame": sorted(agent.glob("*.yaml"))[0].stem, "agents": [agent.name]}
    for changes, message in (
        ({"scenario": "other"}, "scenario other is in none of the folders train, validate, test"),
        ({"frame": "999999"}, f"scenario {agent.parent.name} has no frame 999999 (it has 2, "),
        ({"agents": [agent.name, "31"]}, "has no agent 31 (it has "),
    ):
        frames = read_frame_list(written(tmp_path, [good | changes]))
        with pytest.raises(ConfigError) as raised:
            find_samples(frames, dict.fromkeys(splits_of(frames, config.root), dataset))
        assert message in str(raised.value)
        assert f"frames={tmp_path / 'list.json'}" in str(raised.value)
    frames = read_frame_list(written(tmp_path, [good]))
    assert splits_of(frames, config.root) == {agent.parent.name: "val"}
    assert find_samples(frames, {agent.parent.name: dataset})[0].meta == frames.frames[0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "expected a list"),
        ({"frame": 1}, "expected a list"),
        ([{"scenario": "a", "frame": 69, "agents": ["1"]}], "entry 0 is"),
        ([{"scenario": "a", "frame": "069", "agents": []}], "entry 0: expected at least one agent"),
        ([{"scenario": "a", "frame": "069", "agents": ["1"]}] * 2, "a 069 with agents 1 is listed twice"),
        ({"frames": [{"scenario": "a", "frame": "1", "agents": ["1"]}], "published": [{"name": "x"}]}, "'published'"),
    ],
)
def test_malformed_lists(content: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"list\.json") as raised:
        read_frame_list(written(tmp_path, content))
    assert message in str(raised.value)
