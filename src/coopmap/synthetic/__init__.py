"""A procedural town, ray-cast and written in OPV2V's layout."""

from coopmap.synthetic.dataset import read_config, render_town
from coopmap.synthetic.scene import build_scene
from coopmap.synthetic.town import Town, town_of

__all__ = ["Town", "build_scene", "read_config", "render_town", "town_of"]
