"""MapAnything (Keetha et al., arXiv 2509.13414): metric geometry of several views in one pass.

Images become patch tokens (DINOv2); features of the geometric inputs are added; a multi-view transformer shares
information between views; heads read rays, depth, confidence and mask per pixel, a pose per view and one metric scale
per sample. Parameter names and numbers are those of the public implementation, so its weights load as they are.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from coopmap.config.model import ModelConfig
from coopmap.models.decoding import decode
from coopmap.models.dinov2 import DinoV2Encoder, EncoderOutput
from coopmap.models.fusion import build_fusion, build_injection, group_cameras
from coopmap.models.heads import DenseHead, DPTFeature, DPTRegressor, PoseHead, ScaleHead
from coopmap.models.info_sharing import AlternatingAttention
from coopmap.models.initialization import initialize_from_scratch
from coopmap.models.layers import LayerNorm
from coopmap.models.pose_correction import PoseCorrection
from coopmap.models.pose_update import PoseUpdate
from coopmap.models.priors import (
    POSE_NUMBERS,
    DenseEncoder,
    GlobalEncoder,
    encode_poses,
    normalize_depth,
    normalize_translations,
    pose_in_view0,
)
from coopmap.models.rig import constrain_to_rig
from coopmap.models.spherical import SphericalEncoding
from coopmap.models.view_embedding import ViewEmbedding
from coopmap.types import Observation, Prediction


class MapAnything(nn.Module):
    """The model. See :class:`~coopmap.config.model.ModelConfig` for its options."""

    def __init__(self, cfg: ModelConfig) -> None:
        super().__init__()
        self.cfg = cfg
        dim, patch_size = cfg.encoder.dim, cfg.encoder.patch_size
        self.encoder = DinoV2Encoder(cfg.encoder, cfg.checkpointing.encoder)
        if cfg.inputs.rays:
            self.ray_dirs_encoder = DenseEncoder(3, dim, patch_size)
        if cfg.inputs.depth:
            self.depth_encoder = DenseEncoder(1, dim, patch_size)
            self.depth_scale_encoder = GlobalEncoder(1, dim)
        self.encodes_poses = cfg.inputs.pose and not cfg.pose_update
        if self.encodes_poses:
            self.cam_rot_encoder = GlobalEncoder(4, dim)
            self.cam_trans_encoder = GlobalEncoder(3, dim)
            self.cam_trans_scale_encoder = GlobalEncoder(1, dim)
        self.fusion_norm_layer = LayerNorm(dim)
        self.scale_token = nn.Parameter(nn.init.trunc_normal_(torch.empty(dim), std=0.02))
        self.info_sharing = AlternatingAttention(cfg.info_sharing, dim, cfg.checkpointing.info_sharing)
        shared_dim, heads = cfg.info_sharing.dim, cfg.heads
        self.dpt_feature_head = DPTFeature(
            [dim, shared_dim, shared_dim, shared_dim],
            heads.layer_dims,
            heads.feature_dim,
            cfg.checkpointing.heads,
            heads.circular,
        )
        self.dpt_regressor_head = DPTRegressor(heads.feature_dim, cfg.checkpointing.heads, heads.circular)
        self.dense_head = DenseHead(self.dpt_feature_head, self.dpt_regressor_head)
        self.pose_head = PoseHead(shared_dim, heads.pose_dim)
        self.scale_head = ScaleHead(shared_dim, heads.scale_dim)
        if cfg.initialization == "scratch":
            initialize_from_scratch(self.encoder.model, self.info_sharing, self.pose_head)
        nn.init.constant_(self.scale_head.output_proj.bias, math.log(heads.initial_scale_m))
        # Drawn last: the initial weights of everything else do not depend on what is added here.
        self.fusion = build_fusion(cfg.fusion, dim, patch_size)
        self.view_embedding = ViewEmbedding(dim) if cfg.view_embedding else None
        if cfg.spherical_encoding:
            self.spherical_encoding = SphericalEncoding(dim, patch_size)
        if cfg.inputs.rig:
            self.rig_encoder = GlobalEncoder(POSE_NUMBERS, dim)
        if cfg.pose_correction:
            self.pose_correction = PoseCorrection(dim)
        if cfg.pose_update:
            self.pose_update = PoseUpdate(shared_dim)
        if self.fusion is not None:
            self.fusion.injection = build_injection(cfg.fusion, dim)

    def forward(self, observation: Observation) -> Prediction:
        """Predict the geometry of a batch.

        Rays, depth and pose priors are used only if ``cfg.inputs`` asks for them, and only of the views that they are
        given of.

        Raises:
            ValueError: if the image size is not a multiple of the patch size.
        """
        images = observation.images
        batch, num_views, height, width, _ = observation.rays.shape
        grid = self._patch_grid(height, width)
        encoded = self._encode(observation)
        patches = encoded.patches.unflatten(0, (batch, num_views))
        extra_tokens = None
        if self.cfg.info_sharing.encoder_tokens:
            extra_tokens = encoded.extra_tokens.unflatten(0, (batch, num_views))
        with torch.autocast(
            images.device.type, enabled=False
        ):  # norms of the prior encoders overflow in half precision
            fused = self.fusion_norm_layer(self._add_priors(patches, observation))
        tokens = fused
        if self.view_embedding is not None:
            view_features = self.view_embedding(observation)[:, :, None]
            tokens = tokens + view_features
            extra_tokens = None if extra_tokens is None else extra_tokens + view_features
        shared, scale_token = self.info_sharing(tokens, extra_tokens, self.scale_token.expand(batch, 1, -1))
        with torch.autocast(images.device.type, enabled=False):
            levels = [_as_maps(level, grid) for level in (fused, *shared)]
            dense = self.dense_head(levels, (height, width)).unflatten(0, (batch, num_views))
            trans, quat = (output.unflatten(0, (batch, num_views)) for output in self.pose_head(levels[-1]))
            prediction = decode(dense, trans, quat, self.scale_head(scale_token))
            if self.cfg.pose_update and (observation.pose_prior is not None or self.training):
                features = levels[-1].mean(dim=(-2, -1)).unflatten(0, (batch, num_views))
                prediction = self.pose_update(prediction, observation, features)
            return constrain_to_rig(prediction, observation) if self.cfg.rig_constraint else prediction

    def _encode(self, observation: Observation) -> EncoderOutput:
        """Patch features of all views, one after the other."""
        if self.fusion is None:
            if observation.images.ndim != 5:
                raise ValueError(
                    f"images of shape {tuple(observation.images.shape)}: a model without fusion works on one image per "
                    f"view (data.layout=panorama or cameras); choose model/fusion=mean, concat, ..."
                )
            return self.encoder(observation.images.flatten(0, 1))
        cameras = group_cameras(observation, self.fusion.layout)
        tokens = self.fusion(cameras, self.encoder.model, self.encoder.checkpointing)
        return self.encoder.resume(tokens, self.fusion.first_block)

    def _patch_grid(self, height: int, width: int) -> tuple[int, int]:
        patch_size = self.cfg.encoder.patch_size
        if height % patch_size or width % patch_size:
            raise ValueError(
                f"images are {height} x {width} pixels; both must be multiples of the patch size {patch_size}"
            )
        return height // patch_size, width // patch_size

    def _add_priors(self, patches: Float[Tensor, "b v n c"], observation: Observation) -> Float[Tensor, "b v n c"]:
        """Add the features of the geometric inputs to the image features, where they are given.

        In training an absent prior is encoded all the same and has no weight: every parameter then takes part in every
        step, which DDP needs.
        """
        inputs = self.cfg.inputs
        if self.fusion is not None and self.fusion.injection is not None:
            patches = patches + self.fusion.injection(observation, patches)
        if self.cfg.spherical_encoding:
            patches = patches + self.spherical_encoding(observation.rays)
        if inputs.rays:
            rays = self.ray_dirs_encoder(observation.rays.movedim(-1, -3))
            patches = patches + _where(observation.rays_given, rays)
        if inputs.depth and (observation.depth_prior is not None or self.training):
            patches = patches + self._depth_features(observation)
        if self.encodes_poses and (observation.pose_prior is not None or self.training):
            patches = patches + self._pose_features(observation, patches)[:, :, None]
        if inputs.rig and observation.rig_pose is not None:
            rig = self.rig_encoder(encode_poses(observation.rig_pose))
            patches = patches + _where(observation.rig_given, rig)[:, :, None]
        return patches

    def _depth_features(self, observation: Observation) -> Float[Tensor, "b v n c"]:
        depth = observation.depth_prior
        if depth is None:
            depth = torch.zeros_like(observation.rays[..., 0])
        given = _and(observation.depth_given, (depth > 0).any(dim=-1).any(dim=-1))
        depth, log_mean = normalize_depth(depth)
        scale = _where(observation.depth_is_metric, self.depth_scale_encoder(log_mean))
        return _where(given, self.depth_encoder(depth[:, :, None]) + scale[:, :, None])

    def _pose_features(self, observation: Observation, patches: Float[Tensor, "b v n c"]) -> Float[Tensor, "b v c"]:
        pose, given = observation.pose_prior, observation.pose_given
        if pose is None:
            pose = torch.eye(4, device=observation.images.device).expand(*observation.images.shape[:2], 4, 4)
            given = pose.new_zeros(pose.shape[:2], dtype=torch.bool)
        if self.cfg.pose_correction:
            pose = self.pose_correction(pose, patches)
        quat, trans = pose_in_view0(pose)
        trans, log_mean = normalize_translations(_where(given, trans))  # unknown ones must not count in the mean
        scale = _where(observation.pose_is_metric, self.cam_trans_scale_encoder(log_mean).expand(*quat.shape[:2], -1))
        return _where(given, self.cam_rot_encoder(quat) + self.cam_trans_encoder(trans) + scale)


def _as_maps(tokens: Float[Tensor, "b v n c"], grid: tuple[int, int]) -> Float[Tensor, "bv c h w"]:
    return tokens.float().flatten(0, 1).unflatten(1, grid).permute(0, 3, 1, 2)


def _where(given: Bool[Tensor, "b v"] | None, features: Float[Tensor, "b v *c"]) -> Float[Tensor, "b v *c"]:
    """Zero the features of views that something is not given of."""
    if given is None:
        return features
    return features * given.reshape(*given.shape, *[1] * (features.ndim - given.ndim))


def _and(given: Bool[Tensor, "b v"] | None, known: Bool[Tensor, "b v"]) -> Bool[Tensor, "b v"]:
    return known if given is None else given & known
