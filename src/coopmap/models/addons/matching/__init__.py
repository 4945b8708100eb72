"""Matches between the patches of agents, and the poses that follow from them (``model.matching``; docs/matching.md).

``cells.py`` says what the cells of an agent are and where the network sees them, ``head.py`` describes and compares
them, ``poses.py`` turns matches into the relative pose of each pair and those into one pose per view.
"""

from coopmap.models.addons.matching.head import Matching

__all__ = ["Matching"]
