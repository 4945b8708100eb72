"""The objective: terms, their reduction, their names."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from coopmap.config.loss import PUBLISHED_ROBUST_ALPHA, PUBLISHED_ROBUST_C, LossConfig
from coopmap.losses.mask import mask_loss
from coopmap.losses.normalised import NormalisedPair, normalise
from coopmap.losses.pose import pose_losses
from coopmap.losses.reduce import lowest_share_weights, name_views, weighted_mean
from coopmap.losses.robust import log_length, robust_loss
from coopmap.losses.surface import dense_pixels, gradient_matching_loss, normal_loss
from coopmap.types import Prediction, Target


class Criterion(nn.Module):
    """Factored geometry, scale, surface and mask terms of MapAnything (arXiv 2509.13414, section 3.2).

    Upstream ``FactoredGeometryScaleRegr3DPlusNormalGMLoss`` and ``NonAmbiguousMaskLoss``. In training mode world points
    are weighted by the predicted confidence; in evaluation mode they lose their largest errors on measured data
    instead, as camera points and depth do in both modes (upstream ``ConfAndExcludeTopNPercentPixelLoss`` and
    ``ExcludeTopNPercentPixelLoss``).

    Nothing here waits for the device: masks are weights, and no control flow depends on a tensor's value.
    """

    def __init__(self, cfg: LossConfig) -> None:
        super().__init__()
        self._training_cfg = cfg
        self._evaluation_cfg = replace(cfg, robust_alpha=PUBLISHED_ROBUST_ALPHA, robust_c=PUBLISHED_ROBUST_C)

    @property
    def cfg(self) -> LossConfig:
        """Settings in the present mode: evaluation always compares as published, so that its figures compare."""
        return self._training_cfg if self.training else self._evaluation_cfg

    def forward(self, prediction: Prediction, target: Target) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
        """Total loss and every term, detached.

        Terms bear upstream's names without class prefixes: ``pts3d_avg``, ``pose_trans_view1``, ``scale``,
        ``pts3d_conf_loss_avg`` (training), ``cam_pts3d_bot95%_loss_avg``, ``mask_avg``. They contain their weight,
        ``mask`` excepted. Views without valid pixels count 0.
        """
        with torch.autocast(device_type=target.depth.device.type, enabled=False):
            return self._forward(prediction.map(Tensor.float), target)

    def _forward(self, prediction: Prediction, target: Target) -> tuple[Tensor, dict[str, Tensor]]:
        cfg, weights = self.cfg, self.cfg.weights
        pair = normalise(prediction, target)
        total, terms = self._pixel_terms(pair, prediction.confidence, target)

        per_view = self._view_terms(pair, target)
        for name, values in per_view.items():
            total = total + values.sum()
            terms |= name_views(name, values)
        if weights.scale > 0:
            scale = weights.scale * self._scale_loss(pair)
            total = total + scale
            terms["scale"] = scale.detach()
        if weights.mask > 0:
            mask = mask_loss(prediction.mask_logits, target.non_ambiguous, cfg)
            total = total + weights.mask * mask.sum()
            terms |= name_views("mask", mask)

        num_views = target.depth.shape[1]
        if self.training and cfg.view_scaling and num_views > 2:
            total = total * (2 / num_views)
        return total, terms

    def _compare(self, prediction: Float[Tensor, "*b c"], truth: Float[Tensor, "*b c"]) -> Float[Tensor, "*b"]:
        return robust_loss(prediction, truth, self.cfg.robust_alpha, self.cfg.robust_c)

    def _compare_log(self, prediction: Float[Tensor, "*b c"], truth: Float[Tensor, "*b c"]) -> Float[Tensor, "*b"]:
        return self._compare(log_length(prediction), log_length(truth))

    def _pixel_losses(self, pair: NormalisedPair) -> dict[str, Float[Tensor, "b v h w"]]:
        """Weighted loss of each pixel, for the terms that are reduced over valid pixels."""
        weights, prediction, truth = self.cfg.weights, pair.prediction, pair.truth
        losses = {}
        if weights.pts3d > 0:
            losses["pts3d"] = weights.pts3d * self._compare_log(prediction.points_world, truth.points_world)
        if weights.cam_pts3d > 0:
            losses["cam_pts3d"] = weights.cam_pts3d * self._compare_log(prediction.points_view, truth.points_view)
        if weights.depth > 0 and self.cfg.depth == "ray":
            depth = self._compare_log(prediction.depth[..., None], truth.depth[..., None])
            losses["depth_along_ray"] = weights.depth * depth
        elif weights.depth > 0:
            depth = self._compare_log(prediction.points_view[..., 2:], truth.points_view[..., 2:])
            losses["depth_z"] = weights.depth * depth
        return losses

    def _pixel_terms(
        self, pair: NormalisedPair, confidence: Float[Tensor, "b v h w"], target: Target
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Sum over views of the pixel terms: confidence-weighted or without the largest errors; and plain means."""
        cfg, pixels = self.cfg, (0, 2, 3)
        valid = pair.valid.to(confidence)
        kept = 100 - cfg.exclude_top_percent
        share = torch.where(target.is_synthetic, 1.0, kept / 100)
        total = confidence.new_zeros(())
        reduced_terms: dict[str, Tensor] = {}
        plain_terms: dict[str, Tensor] = {}
        for name, loss in self._pixel_losses(pair).items():
            if name == "pts3d" and self.training:
                suffix, counted = "conf_loss", valid
                reduced = weighted_mean(loss * confidence - cfg.confidence_alpha * confidence.log(), counted, pixels)
            else:
                suffix, counted = f"bot{kept:g}%_loss", lowest_share_weights(loss, pair.valid, share)
                reduced = weighted_mean(loss, counted, pixels)
            total = total + reduced.sum()
            reduced_terms |= name_views(f"{name}_{suffix}", reduced, counted.sum(pixels) > 0)
            plain_terms |= name_views(name, weighted_mean(loss.detach(), valid, pixels))
        return total, reduced_terms | plain_terms

    def _view_terms(self, pair: NormalisedPair, target: Target) -> dict[str, Float[Tensor, " v"]]:
        """Weighted loss of each view, for the terms that reduce themselves."""
        weights, prediction, truth = self.cfg.weights, pair.prediction, pair.truth
        terms = {}
        if weights.ray_directions > 0:
            rays = self._compare(prediction.rays, truth.rays).mean(dim=(0, 2, 3))
            terms["ray_directions"] = weights.ray_directions * rays
        if weights.pose_quats > 0 or weights.pose_trans > 0:
            quats, trans = pose_losses(prediction, truth, pair.valid.flatten(2).any(-1), self.cfg)
            if weights.pose_quats > 0:
                terms["pose_quats"] = weights.pose_quats * quats
            if weights.pose_trans > 0:
                terms["pose_trans"] = weights.pose_trans * trans
        if weights.normal > 0 or weights.gradient_matching > 0:
            mask = dense_pixels(target, self.cfg)
            if weights.normal > 0:
                terms["normal"] = weights.normal * normal_loss(prediction.points_view, truth.points_view, mask)
            if weights.gradient_matching > 0:
                gradients = gradient_matching_loss(prediction.points_view, truth.points_view, mask)
                terms["gradient_matching"] = weights.gradient_matching * gradients
        return terms

    def _scale_loss(self, pair: NormalisedPair) -> Float[Tensor, ""]:
        """Mean over metric samples; 0 when there is none."""
        loss = self._compare_log(pair.predicted_distance_m[:, None], pair.true_distance_m[:, None])
        return weighted_mean(loss, pair.has_metric_distance.to(loss), dim=0)
