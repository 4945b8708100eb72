"""What a rendering is asked for."""

from __future__ import annotations

from dataclasses import dataclass

from coopmap.config.checks import ConfigError, require, require_choice
from coopmap.config.evaluate import SPLITS
from coopmap.config.stored import ModelChoice

POSE_SOURCES = ("pred", "gt")


@dataclass
class RenderConfig(ModelChoice):
    """Keys of ``coopmap render`` besides those of the configuration.

    Attributes:
        split: that the sample is of; ``train`` is without augmentation.
        index: number of the sample, as in Python: -1 is the last.
        pose_source: poses that place the points: ``pred`` (the model's) or ``gt`` (the true ones). The page can switch
            between them; ``cloud.ply``, ``cloud.glb`` and pictures have the poses chosen here.
        points: predicted points on the page at most; the fewer, the larger the voxels that keep one each.
        output: folder for the files; null: beside the run.
    """

    split: str = "val"
    index: int = 0
    pose_source: str = "pred"
    points: int = 250_000
    output: str | None = None

    def __post_init__(self) -> None:
        require_choice("split", self.split, SPLITS)
        require_choice("pose_source", self.pose_source, POSE_SOURCES)
        require(self.points >= 1000, "points", self.points, "at least 1000")
        super().__post_init__()

    def position(self, count: int) -> int:
        """The sample, of ``count``.

        Raises:
            ConfigError: there is none.
        """
        if not -count <= self.index < count:
            raise ConfigError(f"index={self.index}: split {self.split} has samples 0 to {count - 1}")
        return self.index % count
