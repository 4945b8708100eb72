"""What an evaluation is asked for."""

from __future__ import annotations

from dataclasses import dataclass

from coopmap.config.checks import ConfigError, require_choice

SPLITS = ("val", "test", "train", "test_culvercity")


@dataclass
class EvaluateConfig:
    """Keys of ``python -m coopmap.evaluate`` beside those of the configuration.

    Attributes:
        run: run folder; its best checkpoint is taken.
        checkpoint: checkpoint file of a run; it carries its configuration.
        weights: weights alone: hub id ``owner/name[@revision]``, file or folder.
        split: ``val`` (default), ``test``, ``train`` (without augmentation) or ``test_culvercity``.
        frames: JSON list of frames to evaluate on instead of a split.
        output: folder for the results; what it holds of an earlier evaluation is replaced.
        refine: also average the predictions with each agent in turn as the reference.
        icp: register the LiDAR sweeps for the strongest baseline, where small_gicp is installed.
    """

    run: str | None = None
    checkpoint: str | None = None
    weights: str | None = None
    split: str | None = None
    frames: str | None = None
    output: str | None = None
    refine: bool = False
    icp: bool = True

    def __post_init__(self) -> None:
        if sum(value is not None for value in (self.run, self.checkpoint, self.weights)) != 1:
            raise ConfigError("give one of run=RUN_FOLDER, checkpoint=FILE and weights=HUB_ID|FILE|FOLDER")
        if self.split is not None:
            require_choice("split", self.split, SPLITS)
            if self.frames is not None:
                raise ConfigError(f"split={self.split} and frames={self.frames}: give one of them")
