"""MapAnything and its parts."""

from coopmap.models.checkpoints import load_weights
from coopmap.models.mapanything import MapAnything

__all__ = ["MapAnything", "load_weights"]
