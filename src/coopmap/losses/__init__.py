"""MapAnything's factored objective."""

from coopmap.losses.criterion import Criterion

__all__ = ["Criterion"]
