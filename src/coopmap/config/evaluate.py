"""Options of an evaluation."""

from __future__ import annotations

from dataclasses import dataclass, field

from coopmap.config.checks import ConfigError, require_choice
from coopmap.config.formats import EXPORTS
from coopmap.config.stored import ModelChoice

PROBES = ("other_street", "alone", "seam", "blind", "moving")
SPLITS = ("val", "test", "train", "test_culvercity")

BASELINES = ("mean", "gps", "icp", "bound", "matching")
DEFAULT_BASELINES = ("mean", "gps", "icp", "bound")


@dataclass
class EvaluateConfig(ModelChoice):
    """Keys of ``coopmap evaluate`` besides those of the configuration.

    Attributes:
        split: to evaluate on; null is ``val``. ``train`` is without augmentation.
        frames: JSON list of frames to evaluate on instead of a split.
        output: folder for the results; results of an earlier evaluation in it are replaced.
        refine: also average the predictions with each agent in turn as the reference; of a model that matches, also
            take the one whose reference is expected to share most with the others.
        probe: one name or a list: also ask whether the model takes shortcuts. With the other agents' images from
            another scenario (``other_street``), blank (``alone``) or turned by half a turn (``seam``); whether matches
            lie where no camera looks (``blind``); without the cells on moving vehicles (``moving``).
        baselines: what to compare with: ``mean`` (the training set's mean pose), ``gps``, ``icp`` (LiDAR sweeps
            registered from GPS), ``bound`` (true matches through the model's own solver), ``matching`` (SIFT, and
            XFeat where it is installed, in the camera images; seconds to a minute per frame). ``[]``: nothing.
        export: poses for other tools: ``tum``, ``kitti`` (trajectories), ``colmap`` (the cameras, a model per
            scenario), ``heal`` (pose cache of cooperative perception).
    """

    split: str | None = None
    frames: str | None = None
    output: str | None = None
    refine: bool = False
    probe: list[str] = field(default_factory=list)
    baselines: list[str] = field(default_factory=lambda: list(DEFAULT_BASELINES))
    export: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        require_choice("split", self.split, SPLITS)
        for name in (None, *self.probe):  # with none too, so that help and completion know the choices
            require_choice("probe", name, PROBES)
        super().__post_init__()
        for name in self.baselines:
            require_choice("baselines", name, BASELINES)
        for name in self.export:
            require_choice("export", name, EXPORTS)
        if self.split is not None and self.frames is not None:
            raise ConfigError(f"split={self.split} and frames={self.frames}: give only one of them")
