"""MapAnything and its parts."""

from coopmap.models.build import build_model, build_model_and_record
from coopmap.models.checkpoints import load_weights
from coopmap.models.mapanything import MapAnything

__all__ = ["MapAnything", "build_model", "build_model_and_record", "load_weights"]
