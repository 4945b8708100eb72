"""Streets of their own for every scenario: roads, what stands beside them, light and cameras, drawn from a seed."""

from coopmap.synthetic.street.drive import plan_street_drive
from coopmap.synthetic.street.view import StreetView
from coopmap.synthetic.street.world import Street, street_of, street_seed

__all__ = ["Street", "StreetView", "plan_street_drive", "street_of", "street_seed"]
