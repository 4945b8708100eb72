"""Where cars carry their sensors: as OPV2V's do, or each in its own way."""

from pathlib import Path

import numpy as np
import pytest

from coopmap.config.checks import ConfigError
from coopmap.config.synth import TownConfig
from coopmap.data.opv2v.metadata import AgentMetadata, read_agent
from coopmap.synthetic import record
from coopmap.synthetic.sensors import OPV2V_MOUNTING, mounting

from ..worlds import tiny_streets


def agents(cfg: TownConfig) -> dict[str, list[AgentMetadata]]:
    """Metadata of all frames of each agent."""
    found: dict[str, list[AgentMetadata]] = {}
    for path in sorted(Path(cfg.root).glob("*/*/*/*.yaml")):
        found.setdefault(str(path.parent), []).append(read_agent(path))
    return found


def test_every_agent_has_a_rig_of_its_own_and_keeps_it(drawn_rigs: TownConfig) -> None:
    rigs = [[frame.rig for frame in frames] for frames in agents(drawn_rigs).values()]
    assert {len(frames) for frames in rigs} == {2}
    for first, second in rigs:
        np.testing.assert_allclose(first.agent_from_camera, second.agent_from_camera, atol=1e-6)
        assert first.ground_height_m == pytest.approx(second.ground_height_m, abs=0.02)  # the car tilts on a slope
    heights = [first.ground_height_m for first, _ in rigs]
    assert len(set(np.round(heights, 2))) == len(heights) >= 6
    assert 1.45 < min(heights) < max(heights) < 2.95
    off = (np.array([first.azimuths_deg for first, _ in rigs]) - [0, -100, 180, 100] + 180) % 360 - 180
    assert 1 < np.abs(off).max() < 3.1


def test_cars_of_opv2v_have_its_rig(streets: TownConfig) -> None:
    for frames in agents(streets).values():
        assert frames[0].rig.ground_height_m == pytest.approx(1.9, abs=0.02)
    assert mounting("opv2v", (0, 1)) is OPV2V_MOUNTING


def test_cameras_keep_their_share_of_the_height() -> None:
    drawn = [mounting("drawn", (0, number)) for number in range(300)]
    above_ground = np.array([each.lidar[2] + each.cameras[:, 2] for each in drawn])
    share = above_ground / np.array([each.lidar[2] for each in drawn])[:, None]
    np.testing.assert_allclose(share.mean(axis=0), 1 + OPV2V_MOUNTING.cameras[:, 2] / 1.9, atol=0.02)
    assert above_ground.min() > 0.45
    spread = (
        np.array([each.cameras for each in drawn])[..., [0, 1, 3, 4, 5]] - OPV2V_MOUNTING.cameras[:, [0, 1, 3, 4, 5]]
    )
    np.testing.assert_allclose(np.abs(spread).max(axis=(0, 1)), [0.3, 0.3, 1, 3, 3], rtol=0.02)
    np.testing.assert_allclose(spread.mean(axis=(0, 1)), 0, atol=0.15)


def test_records_of_opv2v_rigs_are_what_they_were() -> None:
    assert "rigs" not in record.record_of(tiny_streets("s", None))["config"]
    assert record.record_of(tiny_streets("s", None, rigs="drawn"))["config"]["rigs"] == "drawn"


def test_other_rigs_do_not_go_into_the_same_folder(streets: TownConfig) -> None:
    other = tiny_streets(str(streets.root), streets.depth_root, rigs="drawn")
    with pytest.raises(ConfigError, match="rendered with another rigs"):
        record.claim_streets(other)


def test_a_typo_is_named() -> None:
    with pytest.raises(ConfigError, match="rigs"):
        tiny_streets("s", None, rigs="randm")
