"""Configuration of the model (group ``model``)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from coopmap.config.checks import require, require_choice
from coopmap.config.fusion import FusionConfig

MLP_KINDS = ("gelu", "swiglu")
INITIALIZATIONS = ("released", "scratch")
STEMS = ("patch", "conv")
MATCHED_RAYS = ("calibrated", "predicted")
POSE_SOURCES = ("head", "alignment", "both")
SUBMODULES = (
    "encoder",
    "ray_dirs_encoder",
    "depth_encoder",
    "depth_scale_encoder",
    "cam_rot_encoder",
    "cam_trans_encoder",
    "cam_trans_scale_encoder",
    "fusion_norm_layer",
    "scale_token",
    "info_sharing",
    "dense_head",
    "pose_head",
    "scale_head",
)


@dataclass
class TransformerConfig:
    """Shape of a stack of pre-norm transformer blocks.

    Attributes:
        dim: width.
        depth: number of blocks.
        num_heads: attention heads; must divide ``dim``.
        mlp_ratio: hidden width of the feed-forward layers relative to ``dim`` (SwiGLU uses 2/3 of it, in multiples of
            8).
        mlp: ``gelu`` or ``swiglu``.
        layer_scale: initial LayerScale; ``null`` builds none.
    """

    section: ClassVar[str]
    """Where the stack stands in a configuration."""
    dim: int = 1024
    depth: int = 24
    num_heads: int = 16
    mlp_ratio: float = 4.0
    mlp: str = "gelu"
    layer_scale: float | None = None

    def __post_init__(self) -> None:
        require(self.dim > 0 and self.dim % 4 == 0, f"{self.section}.dim", self.dim, "a positive multiple of 4")
        require(self.depth > 0, f"{self.section}.depth", self.depth, "at least one block")
        require(
            self.num_heads > 0 and self.dim % self.num_heads == 0,
            f"{self.section}.num_heads",
            self.num_heads,
            f"a divisor of dim={self.dim}",
        )
        require_choice(f"{self.section}.mlp", self.mlp, MLP_KINDS)


@dataclass
class EncoderConfig(TransformerConfig):
    """DINOv2 vision transformer; the defaults are ViT-L/14.

    Attributes:
        patch_size: side of a patch in pixels.
        pos_embed_grid: side of the square grid of learned position embeddings (37 for the official 518 px weights).
        num_registers: register tokens after the class token.
        final_norm: normalize the returned features; off where the multi-view transformer continues the encoder.
        stem: how a patch becomes a token: ``patch`` (linear, as published) or ``conv`` (a few strided convolutions,
            which learn sooner without pretrained weights; Xiao et al., arXiv 2106.14881); ``patch_size`` is then a
            power of 2.
        circular: circular padding in the stem, where it reads 360-degree panoramas or mosaics, and initial positions
            whose last column is next to the first.
    """

    section = "model.encoder"
    layer_scale: float | None = 1.0
    patch_size: int = 14
    pos_embed_grid: int = 37
    num_registers: int = 0
    final_norm: bool = True
    stem: str = "patch"
    circular: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require_choice("model.encoder.stem", self.stem, STEMS)
        size = self.patch_size
        powers = size >= 2 and size & (size - 1) == 0
        require(self.stem == "patch" or powers, "model.encoder.patch_size", size, "a power of 2 with stem=conv")
        require(self.stem == "conv" or not self.circular, "model.encoder.circular", True, "false without stem=conv")
        require(self.patch_size > 0, "model.encoder.patch_size", self.patch_size, "a positive number of pixels")
        require(self.pos_embed_grid > 0, "model.encoder.pos_embed_grid", self.pos_embed_grid, "a positive number")


@dataclass
class InfoSharingConfig(TransformerConfig):
    """Multi-view transformer with alternating global and per-view attention; the defaults are those of V1.

    Attributes:
        intermediate_layers: the two blocks whose outputs the dense head reads, in addition to the encoder's features
            and the last block's output.
        encoder_tokens: also pass on the encoder's class and register tokens, one set per view.
        mark_reference: tell the network which view is the reference; otherwise all views are interchangeable, and
            predictions are moved to view 0 by its own predicted pose (for ``loss=relative``).
    """

    section = "model.info_sharing"
    dim: int = 768
    num_heads: int = 12
    intermediate_layers: list[int] = field(default_factory=lambda: [11, 17])
    encoder_tokens: bool = False
    mark_reference: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        layers = list(self.intermediate_layers)
        require(
            len(layers) == 2 and 0 <= layers[0] < layers[1] < self.depth,
            "model.info_sharing.intermediate_layers",
            layers,
            f"two ascending block numbers below depth={self.depth}",
        )


@dataclass
class HeadsConfig:
    """Dense (DPT), pose and scale heads.

    Attributes:
        layer_dims: channels of the four DPT levels, finest first.
        feature_dim: channels in which the levels are fused.
        pose_dim: hidden width of the pose head (upstream: four times the squared patch size).
        scale_dim: hidden width of the scale head.
        initial_scale_m: metric scale that an untrained model predicts, in meters.
        circular: circular padding in the dense head; for 360-degree panoramas only.
    """

    layer_dims: list[int] = field(default_factory=lambda: [96, 192, 384, 768])
    feature_dim: int = 256
    pose_dim: int = 784
    scale_dim: int = 196
    initial_scale_m: float = 1.0
    circular: bool = False

    def __post_init__(self) -> None:
        require(len(self.layer_dims) == 4, "model.heads.layer_dims", list(self.layer_dims), "four numbers of channels")
        require(self.feature_dim % 2 == 0, "model.heads.feature_dim", self.feature_dim, "an even number of channels")
        require(self.initial_scale_m > 0, "model.heads.initial_scale_m", self.initial_scale_m, "meters above 0")


@dataclass
class InputsConfig:
    """Geometric inputs besides the images; an encoder that is off here is not built.

    Attributes:
        rays: calibrated rays.
        depth: measured depth (``Observation.depth_prior``).
        pose: pose priors (``Observation.pose_prior``).
        rig: calibrated pose of each view in its agent (``Observation.rig_pose``); not in released weights.
        map_dims: hidden widths of the encoders of rays and of depth, rising; 28 M parameters each as published.
    """

    rays: bool = False
    depth: bool = False
    pose: bool = False
    rig: bool = False
    map_dims: list[int] = field(default_factory=lambda: [588, 768, 1024])

    def __post_init__(self) -> None:
        dims = list(self.map_dims)
        rising = len(dims) == 3 and 0 < dims[0] < dims[1] < dims[2]  # equal ones have no shortcut to learn upstream
        require(rising, "model.inputs.map_dims", dims, "three rising widths")


@dataclass
class MatchingConfig:
    """Matches between the patches of agents, and poses from them (docs/matching.md).

    Attributes:
        enabled: build the matching head; null = where the objective teaches matches (``loss.weights.matching``), unless
            pose priors are encoded or moved, or an agent has several ticks.
        dim: width of a patch's descriptor.
        encoder: describe patches by the image encoder's features too, beside those of the multi-view transformer.
        layers: blocks of the multi-view transformer whose tokens describe patches; empty = its last.
        dense: describe the places within patches by the dense head's features too.
        rays: directions of a patch's own points: ``calibrated`` (those of the input) or ``predicted``.
        max_matches: a pair's most confident matches, which are aligned; at least 16: fewer leave its pose open.
        tilt_sigma_deg: standard deviation of an agent's roll and pitch relative to another's, about each axis; null =
            nothing is known. Synthetic streets have 0.7, the hilly town more; 0.95 of the pairs of OPV2V's Culver City
            drives are within 0.5.
        gravity: the inputs say where down is for each agent (``Observation.gravity``, an inertial sensor's roll and
            pitch); ``tilt_sigma_deg`` is then of what two agents' directions say of each other.
        prior: weigh matches and poses by pose priors, where there are any (``model.inputs.pose``); the network itself
            is not told them.
    """

    enabled: bool | None = None
    dim: int = 64
    encoder: bool = False
    layers: list[int] = field(default_factory=list)
    dense: bool = False
    rays: str = "calibrated"
    max_matches: int = 1024
    tilt_sigma_deg: float | None = 3.0
    gravity: bool = False
    prior: bool = False

    def __post_init__(self) -> None:
        require(self.dim > 0, "model.matching.dim", self.dim, "at least 1")
        require(self.max_matches >= 16, "model.matching.max_matches", self.max_matches, "at least 16")
        require_choice("model.matching.rays", self.rays, MATCHED_RAYS)
        sigma = self.tilt_sigma_deg
        require(sigma is None or sigma > 0, "model.matching.tilt_sigma_deg", sigma, "degrees above 0, or null")
        require(
            sigma is not None or not self.gravity,
            "model.matching.gravity",
            self.gravity,
            "false without model.matching.tilt_sigma_deg, which says how far directions of gravity count",
        )
        require(
            self.enabled is not False or not self.gravity,
            "model.matching.gravity",
            self.gravity,
            "false without model.matching.enabled: nothing is aligned",
        )


@dataclass
class CheckpointingConfig:
    """Parts whose blocks recompute activations in the backward pass, to save memory.

    Attributes:
        encoder: of the image encoder.
        info_sharing: of the multi-view transformer.
        heads: of the dense head.
    """

    encoder: bool = False
    info_sharing: bool = False
    heads: bool = False


@dataclass
class ModelConfig:
    """MapAnything; the defaults are the released V1 without geometric inputs.

    Attributes:
        name: label for logs and tables.
        matching: matches between agents, and poses from them.
        pose_from: where poses come from in evaluation: ``head`` (regressed, as published), ``alignment`` (matches and
            the network's own points) or ``both``, averaged by confidence; null = ``alignment`` where
            ``matching.enabled`` is left to the objective and it teaches matches, else ``head``.
        initialization: ``released`` (as the public code initializes) or ``scratch`` (learns faster without weights).
        pose_correction: correct pose priors by what the images show before they are encoded.
        pose_update: do not encode pose priors, but move them towards what the images say, by learned gains.
        spherical_encoding: tell each patch of a panorama in which direction it looks (zero at first).
        plucker: tell each patch of a mosaic where its camera is, by Plücker coordinates (zero at first).
        ground_range: tell each patch how far away the ground is in its direction, from the height of the cameras (zero
            at first).
        fusion: how a car's cameras become one panorama, where the data keeps them apart.
        rig_constraint: predict one pose per car and compose it with its calibrated rig, instead of one per camera
            (``data.layout=cameras``).
        view_embedding: encode for the multi-view transformer each view's slot and whether it is the reference agent's
            (``data.layout=cameras``).
        weights: start from these weights: path of a file or folder, or a hub id such as
            ``facebook/map-anything@<revision>``; ``null`` = from scratch.
        weights_only_submodules: load only these parts; empty = all.
        compile: train with compiled transformer blocks: faster steps on a GPU, after seconds to a minute of compilation
            at the start; as they are, with a line about it, without a C++ compiler that works.
    """

    name: str = "mapanything_v1"
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    info_sharing: InfoSharingConfig = field(default_factory=InfoSharingConfig)
    heads: HeadsConfig = field(default_factory=HeadsConfig)
    inputs: InputsConfig = field(default_factory=InputsConfig)
    checkpointing: CheckpointingConfig = field(default_factory=CheckpointingConfig)
    fusion: FusionConfig = field(default_factory=FusionConfig)
    rig_constraint: bool = False
    view_embedding: bool = False
    pose_correction: bool = False
    pose_update: bool = False
    spherical_encoding: bool = False
    plucker: bool = False
    ground_range: bool = False
    matching: MatchingConfig = field(default_factory=MatchingConfig)
    pose_from: str | None = None
    initialization: str = "released"
    weights: str | None = None
    weights_only_submodules: list[str] = field(default_factory=list)
    compile: bool = False

    def __post_init__(self) -> None:
        for key in ("pose_correction", "pose_update"):
            require(
                self.inputs.pose or not getattr(self, key),
                f"model.{key}",
                getattr(self, key),
                "false without model.inputs.pose: there is no pose prior",
            )
        require(
            not (self.pose_correction and self.pose_update),
            "model.pose_correction",
            self.pose_correction,
            "false with model.pose_update, which does not encode pose priors",
        )
        require(
            self.inputs.rays or not self.plucker,
            "model.plucker",
            self.plucker,
            "false without model.inputs.rays: it says where given rays start",
        )
        require(
            self.info_sharing.mark_reference or not self.view_embedding,
            "model.view_embedding",
            self.view_embedding,
            "false without model.info_sharing.mark_reference: it marks the cameras of the reference agent",
        )
        require_choice("model.initialization", self.initialization, INITIALIZATIONS)
        require(self.pose_from in (None, *POSE_SOURCES), "model.pose_from", self.pose_from, ", ".join(POSE_SOURCES))
        self.check_pose_source()
        require(
            (self.matching.enabled is not False and self.inputs.pose) or not self.matching.prior,
            "model.matching.prior",
            self.matching.prior,
            "false without model.matching.enabled (nothing to weigh) and model.inputs.pose (nothing to weigh by)",
        )
        for layer in self.matching.layers:
            require(
                0 <= layer < self.info_sharing.depth,
                "model.matching.layers",
                list(self.matching.layers),
                f"block numbers below model.info_sharing.depth={self.info_sharing.depth}",
            )
        require(
            self.fusion.shared_blocks <= self.encoder.depth,
            "model.fusion.shared_blocks",
            self.fusion.shared_blocks,
            f"at most model.encoder.depth={self.encoder.depth}",
        )
        for submodule in self.weights_only_submodules:
            require_choice("model.weights_only_submodules", submodule, SUBMODULES)

    def check_pose_source(self) -> None:
        """Poses come from matches only where there are any, or where that is still open (null).

        Raises:
            ConfigError: they cannot.
        """
        require(
            self.pose_from in (None, "head") or self.matching.enabled is not False,
            "model.pose_from",
            self.pose_from,
            "head without model.matching.enabled: there are no matches to align",
        )
