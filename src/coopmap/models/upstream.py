"""The model in upstream's terms: configuration and weights that its own loader reads.

Upstream's ``MapAnything.from_pretrained(folder)`` builds the model from the constructor arguments in ``config.json``
and loads ``model.safetensors`` into it. The arguments are those of the public code's ``configs/model``; where it has
none, they are UniCeption's defaults.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from torch import Tensor

from coopmap.config.model import SUBMODULES, EncoderConfig, HeadsConfig, InfoSharingConfig, InputsConfig, ModelConfig
from coopmap.models.heads import DENSE_CHANNELS
from coopmap.models.hub import DINOV2_SIZES
from coopmap.models.mapanything import MapAnything
from coopmap.models.naming import canonical_names

DINOV2_HEADS = {"small": 6, "base": 12, "large": 16, "giant": 24}
MLP_NAMES = {"gelu": "mlp", "swiglu": "swiglufused"}
PARTS_OF_INPUT = {
    "rays": ("ray_dirs_encoder",),
    "depth": ("depth_encoder", "depth_scale_encoder"),
    "pose": ("cam_rot_encoder", "cam_trans_encoder", "cam_trans_scale_encoder"),
}
"""Parts that exist for each of ``model.inputs``; upstream builds them all."""


class NotUpstreamError(ValueError):
    """A model that upstream's code cannot build; the message lists why."""


def upstream_config(cfg: ModelConfig) -> dict[str, Any]:
    """Upstream's constructor arguments, as its released ``config.json`` has them.

    Infinite bounds are written as ``Infinity``, which Python's JSON reads.

    Raises:
        NotUpstreamError: if upstream has no such encoder or head.
    """
    if reasons := list(_obstacles(cfg)):
        raise NotUpstreamError(f"upstream cannot build model={cfg.name}:\n  " + "\n  ".join(reasons))
    return {
        "name": "mapanything",
        "encoder_config": _encoder(cfg.encoder),
        "info_sharing_config": _info_sharing(cfg.info_sharing),
        "pred_head_config": _heads(cfg.heads),
        "geometric_input_config": _inputs(cfg),
        "use_register_tokens_from_encoder": cfg.info_sharing.encoder_tokens,
        "info_sharing_mlp_layer_str": MLP_NAMES[cfg.info_sharing.mlp],
        "pretrained_checkpoint_path": None,
        "load_specific_pretrained_submodules": False,
        "specific_pretrained_submodules": [],
        "torch_hub_force_reload": False,
    }


def _obstacles(cfg: ModelConfig) -> Iterator[str]:
    """Settings that upstream's classes fix to other values."""
    encoder = cfg.encoder
    size = _dinov2_size(encoder.dim)
    if size is None:
        widths = ", ".join(f"{width} ({name})" for name, (_, width) in DINOV2_SIZES.items())
        yield f"model.encoder.dim={encoder.dim}: DINOv2 has {widths}"
    else:
        blocks = DINOV2_SIZES[size][0]
        if encoder.depth > blocks:
            yield f"model.encoder.depth={encoder.depth}: DINOv2 {size} has {blocks} blocks"
        if encoder.num_heads != DINOV2_HEADS[size]:
            yield f"model.encoder.num_heads={encoder.num_heads}: DINOv2 {size} has {DINOV2_HEADS[size]}"
        if (encoder.mlp == "swiglu") != (size == "giant"):
            yield f"model.encoder.mlp={encoder.mlp}: DINOv2 {size} has the other kind"
    fixed = {"mlp_ratio": 4.0, "patch_size": 14, "pos_embed_grid": 37}
    for key, value in fixed.items():
        if getattr(encoder, key) != value:
            yield f"model.encoder.{key}={getattr(encoder, key)}: DINOv2 has {value}"
    if encoder.layer_scale is None:
        yield "model.encoder.layer_scale=null: DINOv2 has LayerScale"
    if encoder.num_registers:
        yield f"model.encoder.num_registers={encoder.num_registers}: such models resize position embeddings otherwise"
    yield from _beyond_upstream(cfg)
    if cfg.heads.pose_dim != 4 * encoder.patch_size**2:
        yield f"model.heads.pose_dim={cfg.heads.pose_dim}: upstream has four times the squared patch size"


def _beyond_upstream(cfg: ModelConfig) -> Iterator[str]:
    """Settings that change the answer and that upstream lacks, whether they have parameters of their own or not.

    Without this, what has none would be exported as another model.
    """
    inputs = ("pose_correction", "pose_update", "plucker", "ground_range", "spherical_encoding")
    for key in (*inputs, "view_embedding", "rig_constraint"):
        if getattr(cfg, key):
            yield f"model.{key}=true: upstream has no such part"
    if cfg.heads.circular:
        yield "model.heads.circular=true: upstream's dense head does not join left and right"
    if cfg.encoder.circular:
        yield "model.encoder.circular=true: upstream's encoder does not join left and right"
    if cfg.encoder.stem != "patch":
        yield f"model.encoder.stem={cfg.encoder.stem}: DINOv2 has patch"
    if cfg.fusion.kind != "none":
        yield f"model.fusion.kind={cfg.fusion.kind}: upstream's views are single images, not the cameras of a car"
    if cfg.inputs.rig:
        yield "model.inputs.rig=true: upstream has no encoder for the rig"
    if cfg.matching.enabled:
        yield "model.matching.enabled=true: upstream does not match (without_matching=true exports the rest)"
    if cfg.pose_from not in (None, "head"):
        yield f"model.pose_from={cfg.pose_from}: upstream's poses are those of the head"


def _dinov2_size(width: int) -> str | None:
    return next((name for name, (_, dim) in DINOV2_SIZES.items() if dim == width), None)


def _encoder(cfg: EncoderConfig) -> dict[str, Any]:
    size = _dinov2_size(cfg.dim)
    assert size is not None
    config = {
        "encoder_str": "dinov2",
        "name": f"dinov2_{size}",
        "data_norm_type": "dinov2",
        "size": size,
        "with_registers": False,
        "uses_torch_hub": True,
        "gradient_checkpointing": False,
    }
    # Older versions of upstream know neither of these arguments, and the full encoders do without.
    if not cfg.final_norm:
        config["norm_returned_features"] = False
    if cfg.depth < DINOV2_SIZES[size][0]:
        config |= {"name": f"dinov2_{size}_{cfg.depth}_layers", "keep_first_n_layers": cfg.depth}
    return config


def _info_sharing(cfg: InfoSharingConfig) -> dict[str, Any]:
    module_args = {
        "name": f"aat_{cfg.depth}_layers_ifr",
        "indices": list(cfg.intermediate_layers),
        "norm_intermediate": True,
        "size": f"{cfg.depth}_layers",
        "depth": cfg.depth,
        "distinguish_ref_and_non_ref_views": cfg.mark_reference,
        "gradient_checkpointing": False,
        "dim": cfg.dim,
        "num_heads": cfg.num_heads,
        "mlp_ratio": cfg.mlp_ratio,
        "qkv_bias": True,
        "qk_norm": False,
        "init_values": cfg.layer_scale,
        "pretrained_checkpoint_path": None,
    }
    return {
        "model_type": "alternating_attention",
        "model_return_type": "intermediate_features",
        "custom_positional_encoding": None,
        "module_args": module_args,
    }


def _heads(cfg: HeadsConfig) -> dict[str, Any]:
    name = "raydirs+depth+pose+confidence+mask+scale"
    dense = {
        "name": name,
        "ray_directions_mode": "linear",
        "ray_directions_normalize_to_unit_sphere": True,
        "ray_directions_normalize_to_unit_image_plane": False,
        "ray_directions_vmin": -math.inf,
        "ray_directions_vmax": math.inf,
        "ray_directions_clamp_min_of_z_dir": False,
        "ray_directions_z_dir_min": -math.inf,
        "depth_mode": "exp",
        "depth_vmin": 0,
        "depth_vmax": math.inf,
        "confidence_type": "exp",
        "confidence_vmin": 1,
        "confidence_vmax": math.inf,
    }
    pose = {
        "name": name,
        "cam_trans_mode": "linear",
        "cam_trans_vmin": -math.inf,
        "cam_trans_vmax": math.inf,
        "quaternions_mode": "linear",
        "quaternions_normalize": True,
        "quaternions_vmin": -math.inf,
        "quaternions_vmax": math.inf,
    }
    scale = {"name": name, "mode": "exp", "vmin": 1e-8, "vmax": math.inf}
    adaptor_type = name.removesuffix("+scale")
    return {
        "type": "dpt+pose",
        "feature_head": {
            "feature_dim": cfg.feature_dim,
            "layer_dims": list(cfg.layer_dims),
            "hooks": [0, 1, 2, 3],
            "checkpoint_gradient": False,
        },
        "regressor_head": {"output_dim": sum(DENSE_CHANNELS), "checkpoint_gradient": False},
        "pose_head": {"num_resconv_block": 2, "rot_representation_dim": 4},
        "scale_head": {"output_dim": 1, "hidden_dim": cfg.scale_dim},
        "adaptor_type": adaptor_type,
        "dpt_adaptor": dense,
        "pose_adaptor": pose,
        "scale_adaptor": scale,
        # Repeated: upstream composes its own file from this, and other readers look here.
        "adaptor_config": {
            "input_dim": sum(DENSE_CHANNELS),
            "scene_rep_dim": 4,
            "type": adaptor_type,
            "scene_rep_type": "raydirs+depth+pose",
            "dense_pred_init_dict": dense,
            "pose_pred_init_dict": pose,
            "scale_pred_init_dict": scale,
        },
        "gradient_checkpointing": False,
    }


def _inputs(cfg: ModelConfig) -> dict[str, Any]:
    """Encoders of geometric inputs, and the probability of using each: 1 if the model was trained with it.

    Upstream's ``infer`` sets the probabilities itself.
    """
    inputs = cfg.inputs
    encoders = {
        f"{label}_encoder_config": {"name": name, "in_chans": channels, "encoder_str": f"{kind}_rep_encoder"}
        for label, name, channels, kind in (
            ("ray_dirs", "ray_dirs_encoder", 3, "dense"),
            ("depth", "depth_encoder", 1, "dense"),
            ("cam_rot", "cam_rot_quats_encoder", 4, "global"),
            ("cam_trans", "cam_trans_encoder", 3, "global"),
            ("scale", "scale_encoder", 1, "global"),
        )
    }
    for label in ("ray_dirs", "depth"):
        encoders[f"{label}_encoder_config"]["apply_pe"] = False
        if inputs.map_dims != InputsConfig().map_dims:  # released files leave it out
            encoders[f"{label}_encoder_config"]["intermediate_dims"] = list(inputs.map_dims)
    given = inputs.rays or inputs.depth or inputs.pose
    return {
        **encoders,
        "overall_prob": int(given),
        "dropout_prob": int(not given),
        "ray_dirs_prob": int(inputs.rays),
        "depth_prob": int(inputs.depth),
        "cam_prob": int(inputs.pose),
        "sparse_depth_prob": 0,
        "sparsification_removal_percent": 0,
        "depth_scale_norm_all_prob": 0,
        "pose_scale_norm_all_prob": 0,
    }


def absent_parts(cfg: ModelConfig) -> tuple[str, ...]:
    """Parts of upstream's model that this configuration leaves out."""
    return tuple(part for key, parts in PARTS_OF_INPUT.items() if not getattr(cfg.inputs, key) for part in parts)


def present_parts(cfg: ModelConfig) -> list[str]:
    """Parts of upstream's model that this one has."""
    return [part for part in SUBMODULES if part not in absent_parts(cfg)]


def released_tensors(model: MapAnything) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The state dict as released files hold it: each tensor once, under the alphabetically first of its names.

    Returns:
        The tensors, and the first name of every further one, which such files keep as their metadata.
    """
    state, canonical = model.state_dict(), canonical_names(model)
    aliases = {alias: name for alias, name in canonical.items() if alias != name}
    return {name: state[name] for name in sorted(set(canonical.values()))}, aliases
