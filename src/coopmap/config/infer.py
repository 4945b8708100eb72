"""What an inference is asked for."""

from __future__ import annotations

from dataclasses import dataclass

from coopmap.config.checks import ConfigError, require, require_choice

CAMERA_MODELS = ("pinhole", "cyl")
PRECISIONS = ("auto", "fp32", "bf16")
PATCH = 14


@dataclass
class InferenceOptions:
    """How to run a model and which of its pixels to keep.

    Attributes:
        camera_model: ``pinhole`` (perspective views) or ``cyl`` (360-degree panoramas).
        precision: ``fp32``, ``bf16`` (autocast; heads stay in float32) or ``auto``: bf16 on a GPU that has it.
        edges: leave out pixels that float between a front and a back surface.
        edge_depth_ratio: relative spread of depth within 3 x 3 pixels that makes an edge ...
        edge_normal_deg: ... where neighboring normals also differ by this angle.
        confidence_percentile: leave out this share of each view's pixels, the least confident; 0 = none.
    """

    camera_model: str = "pinhole"
    precision: str = "auto"
    edges: bool = True
    edge_depth_ratio: float = 0.03
    edge_normal_deg: float = 5.0
    confidence_percentile: float = 0.0

    def __post_init__(self) -> None:
        require_choice("camera_model", self.camera_model, CAMERA_MODELS)
        require_choice("precision", self.precision, PRECISIONS)
        require(self.edge_depth_ratio > 0, "edge_depth_ratio", self.edge_depth_ratio, "a ratio above 0")
        require(0 < self.edge_normal_deg < 180, "edge_normal_deg", self.edge_normal_deg, "degrees between 0 and 180")
        percentile = self.confidence_percentile
        require(0 <= percentile < 100, "confidence_percentile", percentile, "at least 0 and below 100")


@dataclass
class InferConfig(InferenceOptions):
    """Keys of ``python -m coopmap.infer`` beside those of the configuration.

    Attributes:
        run: run folder; its best checkpoint is taken.
        checkpoint: checkpoint file of a run; it carries its configuration.
        weights: weights alone: hub id ``owner/name[@revision]``, file or folder; ``model`` says for which architecture.
        model: a choice of ``conf/model``, for ``weights`` only.
        images: folder of JPEG and PNG images.
        frame: frame of an OPV2V-layout dataset, ``ROOT/test/SCENARIO/FRAME``.
        agents: its agents, separated by commas, the reference first; default: as in evaluation.
        output: folder for the results.
        camera_model: see :class:`InferenceOptions`; a frame's panoramas are ``cyl`` in any case.
        size: longest side of folder images in pixels; default: 518, or the width of the model's panoramas.
        max_points: points of the point cloud.
        device: ``auto`` (a GPU if there is one), ``cpu``, ``cuda`` or ``cuda:1``.
    """

    run: str | None = None
    checkpoint: str | None = None
    weights: str | None = None
    model: str | None = None
    images: str | None = None
    frame: str | None = None
    agents: str | None = None
    output: str | None = None
    size: int | None = None
    max_points: int = 500_000
    device: str = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        if sum(value is not None for value in (self.run, self.checkpoint, self.weights)) != 1:
            raise ConfigError("give one of run=RUN_FOLDER, checkpoint=FILE and weights=HUB_ID|FILE|FOLDER")
        if self.model is not None and self.weights is None:
            raise ConfigError(f"model={self.model}: goes with weights=...; a checkpoint knows its model")
        if (self.images is None) == (self.frame is None):
            raise ConfigError("give either images=FOLDER or frame=ROOT/SPLIT/SCENARIO/FRAME")
        for key in ("agents",) if self.frame is None else ("size",):
            if (value := getattr(self, key)) is not None:
                raise ConfigError(f"{key}={value}: goes with {'frame' if key == 'agents' else 'images'}=... only")
        if self.output is None:
            raise ConfigError("give output=FOLDER for the results")
        if self.size is not None:
            require(self.size >= PATCH, "size", self.size, f"at least one patch of {PATCH} pixels")
        require(self.max_points >= 1, "max_points", self.max_points, "at least 1")
