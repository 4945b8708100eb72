"""Which world a scenario takes place in: the town that all share, or a street of its own."""

from __future__ import annotations

from collections.abc import Sequence

from coopmap.config.synth import TownConfig
from coopmap.synthetic.cars import Car
from coopmap.synthetic.drives import plan_town_drive
from coopmap.synthetic.scenario import Drive
from coopmap.synthetic.shading import TownView
from coopmap.synthetic.street import Street, StreetView, plan_street_drive, street_of
from coopmap.synthetic.surface import merge
from coopmap.synthetic.town import Town, town_of
from coopmap.synthetic.view import View


def world_of(cfg: TownConfig, split: str, index: int) -> Town | Street:
    """What stands still in a scenario."""
    return street_of(cfg, split, index) if cfg.per_scenario else town_of(cfg)


def plan_drive(cfg: TownConfig, split: str, index: int) -> Drive:
    """Scenario ``index`` of a split; the same for the same configuration.

    Raises:
        RuntimeError: if no room was found for the agents.
    """
    return plan_street_drive(cfg, split, index) if cfg.per_scenario else plan_town_drive(cfg, split, index)


def view_of(world: Town | Street, cars: Sequence[Car]) -> View:
    """A world and moving cars, as one observer sees them."""
    if isinstance(world, Street):
        return StreetView(world, cars)
    return TownView(world, merge([car.surface() for car in cars]))
