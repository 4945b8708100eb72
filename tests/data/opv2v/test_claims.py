"""What a file says about itself is checked against its name and its content."""

import logging
from copy import deepcopy
from pathlib import Path

import pytest
import yaml

from coopmap.data.opv2v import MetadataError, claims, read_agent

VEHICLES = {
    number: {"angle": [0] * 3, "center": [0] * 3, "extent": [1] * 3, "location": [0, 0, -1.37], "speed": 0}
    for number in (1, 2)
}


@pytest.fixture(autouse=True)
def _nothing_warned_of_yet() -> None:
    claims._warned.cache_clear()


def edited(path: Path, change) -> Path:
    content = yaml.safe_load(path.read_text())
    change(content)
    path.write_text(yaml.safe_dump(content))
    return path


def written(path: Path, line: str) -> Path:
    """With the key spelled as it is."""
    path.write_text(f"{line}\n" + path.read_text())
    return path


@pytest.mark.parametrize("claim", ["'false'", "1", "'True'", "0", "[]", "yes please"])
def test_a_claim_to_be_a_roadside_unit_is_a_boolean(claim: str, writer) -> None:
    path = written(writer.agent("s", "641", "000001", vehicles=VEHICLES), f"RSU: {claim}")
    with pytest.raises(MetadataError, match=r"key 'RSU' is .*Expected true or false"):
        read_agent(path)


@pytest.mark.parametrize(("agent", "claim"), [("641", "true"), ("641", "True"), ("-1", "false"), ("-1", "False")])
def test_a_claim_that_the_id_denies_is_refused(agent: str, claim: str, writer) -> None:
    """A car that is taken for a road-side unit has its LiDAR at another height: that above the cars around."""
    path = written(writer.agent("s", agent, "000001", vehicles=VEHICLES), f"RSU: {claim}")
    with pytest.raises(MetadataError, match=r"'RSU' is (true|false), but the id of the agent"):
        read_agent(path)


@pytest.mark.parametrize("with_vehicles", [True, False])
@pytest.mark.parametrize("line", ["RSU: true", "RSU: True", "RSU:   yes", ""])
def test_roadside_units_stand_above_the_cars_however_it_is_spelled(line: str, with_vehicles: bool, writer) -> None:
    path = written(writer.agent("s", "-1", "000001", vehicles=VEHICLES), line)
    agent = read_agent(path, with_vehicles)
    assert agent.is_rsu
    assert agent.rig.ground_height_m == pytest.approx(1.9 + 1.37)
    car = read_agent(writer.agent("s", "641", "000001", vehicles=VEHICLES), with_vehicles)
    assert not car.is_rsu
    assert car.rig.ground_height_m == pytest.approx(1.9)


def test_a_rig_that_is_numbered_the_other_way_is_refused(writer) -> None:
    def swap(content: dict) -> None:
        content["camera1"], content["camera2"] = content["camera2"], content["camera1"]

    path = edited(writer.agent("s", "641", "000001"), swap)
    expected = r"camera2 \+100 deg \(left expected\), camera1 -100 deg \(right expected\).*camera0 looks to the front"
    with pytest.raises(MetadataError, match=expected):
        read_agent(path)


def test_a_rig_that_starts_elsewhere_is_refused(writer) -> None:
    def turn(content: dict) -> None:
        old = deepcopy(content)
        for number in range(4):
            content[f"camera{number}"] = old[f"camera{(number + 1) % 4}"]

    with pytest.raises(MetadataError, match=r"camera0 .*front expected"):
        read_agent(edited(writer.agent("s", "641", "000001"), turn))


def test_further_cameras_and_keys_are_warned_of_once(writer, caplog: pytest.LogCaptureFixture) -> None:
    def add(content: dict) -> None:
        content["camera4"], content["camera5"] = deepcopy(content["camera0"]), deepcopy(content["camera0"])
        content["camera0"]["exposure"] = 0.1

    with caplog.at_level(logging.WARNING):
        for frame in ("000001", "000002"):
            read_agent(edited(writer.agent("s", "641", frame), add))
    (record,) = caplog.records
    assert "not used: camera*.exposure, camera4, camera5" in record.getMessage()
    assert "000001.yaml" in record.getMessage()


@pytest.mark.parametrize("key", ["distortion", "distortion_coeffs", "dist", "k1"])
def test_lens_distortion_is_refused(key: str, writer) -> None:
    path = edited(writer.agent("s", "641", "000001"), lambda content: content["camera2"].update({key: [0.1, 0, 0]}))
    with pytest.raises(MetadataError, match=f"camera2.{key}' tells of lens distortion.*Undistort"):
        read_agent(path)


@pytest.mark.parametrize("value", [[0, 0.0, 0, 0, 0], None, 0, "none"])
def test_no_distortion_is_no_distortion(value: object, writer, caplog: pytest.LogCaptureFixture) -> None:
    def add(content: dict) -> None:
        content["camera2"]["distortion"] = value

    read_agent(edited(writer.agent("s", "641", "000001"), add))
    assert not caplog.records
