"""MapAnything's factored objective."""

from coopmap.losses.criterion import Criterion, build_loss

__all__ = ["Criterion", "build_loss"]
