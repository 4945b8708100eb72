"""MapAnything (Keetha et al., arXiv 2509.13414): metric geometry of several views in one pass.

Images become patch tokens (DINOv2); encodings of the given geometry are added; a multi-view transformer shares
information between views; heads read rays, depth, confidence and mask per pixel, a pose per view and one metric scale
per sample. Parameter names and numbers are those of the public implementation, so its weights load as they are.
``docs/model.md`` has a diagram. Everything beyond the paper is in :mod:`coopmap.models.addons` and, for
agents whose cameras are fused inside the model, in :mod:`coopmap.models.fusion`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Collection

import torch
from jaxtyping import Float
from torch import Tensor, nn

from coopmap.config.model import ModelConfig
from coopmap.models.addons import AddOn, Trunk, build_addons
from coopmap.models.addons.circular import join_edges
from coopmap.models.decoding import decode
from coopmap.models.dinov2 import DinoV2Encoder, EncoderOutput
from coopmap.models.fusion import build_fusion, build_injection, group_cameras
from coopmap.models.heads import DenseHead, DPTFeature, DPTRegressor, PoseHead, ScaleHead
from coopmap.models.info_sharing import AlternatingAttention
from coopmap.models.initialization import initialize_from_scratch
from coopmap.models.layers import LayerNorm
from coopmap.models.priors import DenseEncoder, GlobalEncoder, depth_features, given_poses, pose_features, where_given
from coopmap.types import Observation, Prediction, prediction_in_view0

logger = logging.getLogger(__name__)

NUM_LEVELS = 4
"""Maps that the dense head reads: the tokens that enter the multi-view transformer, and those after three blocks."""


class MapAnything(nn.Module):
    """The model. See :class:`~coopmap.config.model.ModelConfig` for its options."""

    def __init__(self, cfg: ModelConfig) -> None:
        super().__init__()
        self.cfg = cfg
        dim, shared_dim, patch_size = cfg.encoder.dim, cfg.info_sharing.dim, cfg.encoder.patch_size
        reads_rings = cfg.encoder.circular and cfg.fusion.layouts != ("grouped",)  # whose stem reads single cameras
        self.encoder = DinoV2Encoder(cfg.encoder, cfg.checkpointing.encoder, reads_rings)
        if cfg.inputs.rays:
            self.ray_dirs_encoder = DenseEncoder(3, dim, patch_size, cfg.inputs.map_dims)
        if cfg.inputs.depth:
            self.depth_encoder = DenseEncoder(1, dim, patch_size, cfg.inputs.map_dims)
            self.depth_scale_encoder = GlobalEncoder(1, dim)
        self.encodes_poses = cfg.inputs.pose and not (cfg.pose_update or cfg.matching.prior)
        if self.encodes_poses:
            self.cam_rot_encoder = GlobalEncoder(4, dim)
            self.cam_trans_encoder = GlobalEncoder(3, dim)
            self.cam_trans_scale_encoder = GlobalEncoder(1, dim)
        self.fusion_norm_layer = LayerNorm(dim)
        self.scale_token = nn.Parameter(nn.init.trunc_normal_(torch.empty(dim), std=0.02))
        self.info_sharing = AlternatingAttention(cfg.info_sharing, dim, cfg.checkpointing.info_sharing)
        heads, level_dims = cfg.heads, [dim, shared_dim, shared_dim, shared_dim]
        self.dpt_feature_head = DPTFeature(level_dims, heads.layer_dims, heads.feature_dim, cfg.checkpointing.heads)
        self.dpt_regressor_head = DPTRegressor(heads.feature_dim, cfg.checkpointing.heads)
        self.dense_head = DenseHead(self.dpt_feature_head, self.dpt_regressor_head)
        self.pose_head = PoseHead(shared_dim, heads.pose_dim)
        self.scale_head = ScaleHead(shared_dim, heads.scale_dim)
        if cfg.initialization == "scratch":
            initialize_from_scratch(self.encoder.model, self.info_sharing, self.pose_head, ring=cfg.encoder.circular)
        nn.init.constant_(self.scale_head.output_proj.bias, math.log(heads.initial_scale_m))
        self._extend(cfg)

    def _extend(self, cfg: ModelConfig) -> None:
        """Add everything beyond the paper; last, so that the initial weights of the rest do not depend on it."""
        if cfg.heads.circular:
            join_edges(self.dense_head)
        self.fusion = build_fusion(cfg.fusion, cfg.encoder.dim, cfg.encoder.patch_size)
        for name, addon in build_addons(cfg).items():
            self.add_module(name, addon)
        if self.fusion is not None:
            self.fusion.injection = build_injection(cfg.fusion, cfg.encoder.dim)

    @property
    def addons(self) -> list[AddOn]:
        """The add-ons of this model, in the order of their hooks."""
        return [module for module in self.children() if isinstance(module, AddOn)]

    def answer_with(self, lacking: Collection[str]) -> None:
        """Be ready to answer with weights that lack some parts.

        Without a matching head, poses are the regressed ones: what one finds that was never trained is noise.

        Args:
            lacking: parts of the model (:class:`~coopmap.models.checkpoints.LoadedWeights`).
        """
        if "matching" in lacking:
            logger.info("these weights do not match agents: poses are the regressed ones")
            del self.matching
            self.cfg.matching.enabled, self.cfg.pose_from = False, "head"

    def forward(self, observation: Observation) -> Prediction:
        """Predict the geometry of a batch.

        Rays, depth and pose priors are used only if ``cfg.inputs`` enables them, and only for the views where they are
        given.

        Raises:
            ValueError: if the image size is not a multiple of the patch size.
        """
        height, width = observation.rays.shape[2:4]
        grid, device = self._patch_grid(height, width), observation.images.device.type
        encoded = self._encode_images(observation)
        with torch.autocast(device, enabled=False):  # norms of the prior encoders overflow in half precision
            tokens = self.fusion_norm_layer(self._add_geometry(encoded.patches, observation))
        trunk, scale_token = self._share(encoded, tokens, observation, grid)
        with torch.autocast(device, enabled=False):
            prediction, features = self._predict(trunk, scale_token, (height, width))
            trunk = trunk._replace(features=features)
            for addon in self.addons:
                prediction = addon.after_decoding(prediction, trunk, observation)
        return prediction

    def _patch_grid(self, height: int, width: int) -> tuple[int, int]:
        patch_size = self.cfg.encoder.patch_size
        if height % patch_size or width % patch_size:
            raise ValueError(
                f"images are {height} x {width} pixels; both must be multiples of the patch size {patch_size}"
            )
        return height // patch_size, width // patch_size

    def _encode_images(self, observation: Observation) -> EncoderOutput:
        """Patch tokens ``b v n c`` of all views, and class and register tokens ``b v t c``."""
        if self.fusion is not None:
            cameras = group_cameras(observation, self.fusion.layout)
            tokens = self.fusion(cameras, self.encoder.model, self.encoder.checkpointing)
            encoded = self.encoder.resume(tokens, self.fusion.first_block)
        elif observation.images.ndim == 5:
            encoded = self.encoder(observation.images.flatten(0, 1))
        else:
            raise ValueError(
                f"images of shape {tuple(observation.images.shape)}: a model without fusion works on one image per "
                f"view (data.layout=panorama, mosaic or cameras); choose model/fusion=mean, concat, ..."
            )
        return EncoderOutput(*(tokens.unflatten(0, observation.rays.shape[:2]) for tokens in encoded))

    def _add_geometry(self, patches: Float[Tensor, "b v n c"], observation: Observation) -> Float[Tensor, "b v n c"]:
        """Add the encodings of the given geometry to the patch tokens.

        In training absent depth and poses are encoded too, with weight 0, so that every parameter takes part in every
        step, as DDP requires.
        """
        inputs = self.cfg.inputs
        if self.fusion is not None and self.fusion.injection is not None:
            patches = patches + self.fusion.injection(observation, patches)
        for addon in self.addons:
            patches = addon.after_encoder(patches, observation)
        if inputs.rays:
            rays = self.ray_dirs_encoder(observation.rays.movedim(-1, -3))
            patches = patches + where_given(observation.rays_given, rays)
        if inputs.depth and (observation.depth_prior is not None or self.training):
            patches = patches + depth_features(self.depth_encoder, self.depth_scale_encoder, observation)
        if self.encodes_poses and (observation.pose_prior is not None or self.training):
            patches = patches + self._encode_poses(observation, patches)[:, :, None]
        for addon in self.addons:
            patches = addon.after_geometry(patches, observation)
        return patches

    def _encode_poses(self, observation: Observation, patches: Float[Tensor, "b v n c"]) -> Float[Tensor, "b v c"]:
        pose, given = given_poses(observation)
        for addon in self.addons:
            pose = addon.correct_pose(pose, patches)
        encoders = self.cam_rot_encoder, self.cam_trans_encoder, self.cam_trans_scale_encoder
        return pose_features(*encoders, pose, given, observation.pose_is_metric)

    def _share(
        self,
        encoded: EncoderOutput,
        tokens: Float[Tensor, "b v n c"],
        observation: Observation,
        grid: tuple[int, int],
    ) -> tuple[Trunk, Float[Tensor, "b d"]]:
        """Multi-view attention: returns maps for the heads, and the scale token."""
        cfg, patches = self.cfg.info_sharing, tokens
        extra_tokens = encoded.extra_tokens if cfg.encoder_tokens else None
        for addon in self.addons:
            patches, extra_tokens = addon.before_sharing(patches, extra_tokens, observation)
        asked_for = sorted({layer for addon in self.addons for layer in addon.layers})
        layers = [*cfg.intermediate_layers, cfg.depth - 1, *asked_for]
        scale_token = self.scale_token.expand(len(tokens), 1, -1)
        shared, scale_token = self.info_sharing(patches, extra_tokens, scale_token, layers)
        levels = [_as_maps(each, grid) for each in (tokens, *shared[: NUM_LEVELS - 1])]
        others = dict(zip(asked_for, shared[NUM_LEVELS - 1 :], strict=True))
        return Trunk(encoded.patches, levels, others, grid), scale_token

    def _predict(
        self, trunk: Trunk, scale_token: Float[Tensor, "b d"], image_size: tuple[int, int]
    ) -> tuple[Prediction, Float[Tensor, "bv *kept"] | None]:
        """Read geometry per pixel, a pose per view and the metric scale; and what an add-on keeps of the dense head."""
        views = trunk.encoded.shape[:2]
        keep = next((addon.keep for addon in self.addons if addon.keep is not None), None)
        dense, features = self.dense_head(trunk.levels, image_size, keep)
        dense = dense.unflatten(0, views)
        trans, quat = (output.unflatten(0, views) for output in self.pose_head(trunk.levels[-1]))
        prediction = decode(dense, trans, quat, self.scale_head(scale_token))
        prediction = prediction if self.cfg.info_sharing.mark_reference else prediction_in_view0(prediction)
        return prediction, features


def _as_maps(tokens: Float[Tensor, "b v n c"], grid: tuple[int, int]) -> Float[Tensor, "bv c h w"]:
    return tokens.float().flatten(0, 1).unflatten(1, grid).permute(0, 3, 1, 2)
