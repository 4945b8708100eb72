"""What a scenario's ``data_protocol.yaml`` says of its street; ``coopmap synth towns=per_scenario`` writes it there."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from coopmap.data.opv2v.errors import FrameError
from coopmap.data.opv2v.yaml_file import load_metadata

log = logging.getLogger(__name__)

FILE = "data_protocol.yaml"
STREET_FACTS = ("style", "hard")
"""What is read, of all that is said."""


def read_street(scenario: Path) -> dict[str, str]:
    """Style of a scenario's street, and what makes it hard; empty where nothing is said, as in OPV2V.

    Args:
        scenario: its folder.
    """
    file = scenario / FILE
    if not file.is_file():
        return {}
    try:
        content = load_metadata(file)
    except FrameError as error:
        log.warning("%s. What kind of street it is stays unknown", error)
        return {}
    world = content.get("world")
    street = world.get("street") if isinstance(world, Mapping) else None
    said = street if isinstance(street, Mapping) else {}
    return {name: said[name] for name in STREET_FACTS if isinstance(said.get(name), str)}
