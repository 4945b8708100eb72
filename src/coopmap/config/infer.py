"""Options of an inference."""

from __future__ import annotations

from dataclasses import dataclass, field

from coopmap.config.checks import ConfigError, require, require_choice
from coopmap.config.formats import EXPORTS
from coopmap.config.groups import group_choices
from coopmap.config.stored import ModelChoice

CAMERA_MODELS = ("pinhole", "cyl")
"""Of images that come alone."""
VIEW_MODELS = (*CAMERA_MODELS, "mosaic")
PRECISIONS = ("auto", "fp32", "bf16")
PATCH = 14
LARGEST_SIZE = 4096
"""Four times the longest side that models are trained on; attention takes the square of the number of patches."""


@dataclass
class InferenceOptions:
    """How to run a model and which of its pixels to keep.

    Attributes:
        camera_model: ``pinhole`` (perspective views), ``cyl`` (360-degree panoramas) or ``mosaic`` (the cameras of a
            car side by side).
        precision: ``fp32``, ``bf16`` (autocast; heads stay in float32) or ``auto``: bf16 on a GPU that has it.
        edges: leave out flying pixels between foreground and background.
        edge_depth_ratio: relative spread of depth within 3 x 3 pixels that counts as an edge, if the normals agree; in
            a view where it is more nearly everywhere, twice the median.
        edge_normal_deg: angle between neighboring normals that counts as an edge, if depth agrees.
        confidence_percentile: leave out this share of each view's pixels, the least confident; 0 = none.
    """

    camera_model: str = "pinhole"
    precision: str = "auto"
    edges: bool = True
    edge_depth_ratio: float = 0.03
    edge_normal_deg: float = 5.0
    confidence_percentile: float = 0.0

    def __post_init__(self) -> None:
        known = self.camera_model in VIEW_MODELS
        require(known, "camera_model", self.camera_model, f"one of {', '.join(VIEW_MODELS)}")
        require_choice("precision", self.precision, PRECISIONS)
        require(self.edge_depth_ratio > 0, "edge_depth_ratio", self.edge_depth_ratio, "a ratio above 0")
        require(0 < self.edge_normal_deg < 180, "edge_normal_deg", self.edge_normal_deg, "degrees between 0 and 180")
        percentile = self.confidence_percentile
        require(0 <= percentile < 100, "confidence_percentile", percentile, "at least 0 and below 100")


@dataclass
class InferConfig(InferenceOptions, ModelChoice):
    """Keys of ``coopmap infer`` besides those of the configuration.

    Attributes:
        model: architecture of ``weights``, a choice of conf/model; null: what the weights say, or mapanything_v1.
        images: folder of JPEG and PNG images, the reference view first in natural order.
        frame: frame of an OPV2V-layout dataset, ``ROOT/test/SCENARIO/FRAME``.
        agents: agents of the frame, as in ``agents=641,650``, the reference first; without, as in evaluation.
        output: folder for predictions.npz, points.ply, cameras.json, overview.png and scene.html.
        camera_model: of the images: ``pinhole`` (perspective) or ``cyl`` (360-degree panoramas, 4 times as wide as
            high); views of a frame are what the model was trained on in any case.
        size: longest side of the images in pixels; null: 518, or the width of the model's panoramas.
        max_points: points of the point cloud.
        export: poses for other tools: ``tum``, ``kitti``, ``colmap`` (cameras and points), ``heal`` (pose cache of
            cooperative perception; of a frame).
        device: ``auto`` (a GPU if there is one), ``cpu``, ``cuda`` or ``cuda:1``.
    """

    model: str | None = None
    images: str | None = None
    frame: str | None = None
    agents: list[str] = field(default_factory=list)
    output: str | None = None
    size: int | None = None
    max_points: int = 500_000
    export: list[str] = field(default_factory=list)
    device: str = "auto"

    def __post_init__(self) -> None:
        require_choice("camera_model", self.camera_model, CAMERA_MODELS)
        InferenceOptions.__post_init__(self)
        require_choice("model", self.model, group_choices("model"))
        ModelChoice.__post_init__(self)
        if self.model is not None and self.weights is None:
            raise ConfigError(f"model={self.model}: goes with weights=...; a checkpoint knows its model")
        if (self.images is None) == (self.frame is None):
            raise ConfigError("give either images=FOLDER or frame=ROOT/SPLIT/SCENARIO/FRAME")
        if self.agents and self.frame is None:
            raise ConfigError(f"agents={','.join(self.agents)}: goes with frame=... only")
        if self.size is not None and self.images is None:
            raise ConfigError(f"size={self.size}: goes with images=... only")
        if self.output is None:
            raise ConfigError("give output=FOLDER for the results")
        if self.size is not None:
            fits = PATCH <= self.size <= LARGEST_SIZE
            require(fits, "size", self.size, f"{PATCH} (one patch) to {LARGEST_SIZE:,} pixels; 518 and 1008 are usual")
        require(self.max_points >= 1, "max_points", self.max_points, "at least 1")
        self._check_export()

    def _check_export(self) -> None:
        for name in self.export:
            require_choice("export", name, EXPORTS)
        if self.images is None:
            return
        if "heal" in self.export:
            raise ConfigError(
                "export=[heal]: images have no cars and no scenario; give frame=ROOT/SPLIT/SCENARIO/FRAME"
            )
        if "colmap" in self.export and self.camera_model != "pinhole":
            raise ConfigError(
                "export=[colmap]: COLMAP has no panoramas; give frame=..., whose cars have cameras, or leave it out"
            )
