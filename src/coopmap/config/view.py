"""What the interactive view is asked for."""

from __future__ import annotations

from dataclasses import dataclass

from coopmap.config.checks import require, require_choice
from coopmap.config.evaluate import SPLITS
from coopmap.config.stored import ModelChoice


@dataclass
class ViewConfig(ModelChoice):
    """Keys of ``coopmap view`` besides those of the configuration.

    Attributes:
        split: whose samples to browse; ``train`` is without augmentation.
        index: number of the sample to begin with.
        points: points of a frame at most; the fewer, the larger the voxels that keep one each.
        port: on this machine.
    """

    split: str = "val"
    index: int = 0
    points: int = 250_000
    port: int = 8080

    def __post_init__(self) -> None:
        require_choice("split", self.split, SPLITS)
        require(self.points >= 1000, "points", self.points, "at least 1000")
        require(0 < self.port < 65536, "port", self.port, "1 to 65535")
        super().__post_init__()
