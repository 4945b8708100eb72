"""A procedural town, or a street for every scenario, ray-cast and written in OPV2V's layout."""

from coopmap.synthetic.dataset import missing_scenarios, read_config, render_town
from coopmap.synthetic.town import Town, town_of

__all__ = ["Town", "missing_scenarios", "read_config", "render_town", "town_of"]
