"""Options of an export."""

from __future__ import annotations

from dataclasses import dataclass

from coopmap.config.checks import ConfigError
from coopmap.config.stored import RunChoice


@dataclass
class ExportConfig(RunChoice):
    """Keys of ``coopmap export``.

    Attributes:
        output: folder to write; must not exist or be empty.
        weights: weights (path or hub id) that provide the encoders of geometric inputs which the model was trained
            without.
        without_matching: leave out the matching head, which upstream's model lacks: the result regresses poses.
        license: of the result, for the model card; null: that of the weights that the run started from.
    """

    output: str | None = None
    weights: str | None = None
    without_matching: bool = False
    license: str | None = None

    def __post_init__(self) -> None:
        if (self.run is None) == (self.checkpoint is None):
            raise ConfigError("give either run=RUN or checkpoint=FILE")
        if self.output is None:
            raise ConfigError("give output=FOLDER")
