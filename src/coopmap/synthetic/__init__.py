"""A procedural town, or a street for every scenario, ray-cast and written in OPV2V's layout."""

from coopmap.synthetic.dataset import missing_scenarios, render_town
from coopmap.synthetic.record import holds_metadata_alone, read_config
from coopmap.synthetic.town import Town, town_of

__all__ = ["Town", "holds_metadata_alone", "missing_scenarios", "read_config", "render_town", "town_of"]
