"""All terms of the objective: name, weight, and how their values are reduced."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from coopmap.config.loss import LossConfig
from coopmap.losses import geometry, matching, pose, regularizers, surface
from coopmap.losses.inputs import LossInputs
from coopmap.losses.pixels import PixelLoss


@dataclass(frozen=True)
class Term:
    """One term.

    Attributes:
        key: its weight is ``loss.weights.{key}``.
        compute: loss of each pixel, each view ``(v,)`` or of the batch ``()``. Pixels are reduced over those with known
            depth: weighted by the confidence, or without the largest errors on measured samples.
        measured: which views of each sample (or which samples) hold anything to measure it on; by default those with
            known depth.
        needs: fields of the target that it requires.
        by_confidence: in training its pixels are weighted by the predicted confidence.
        logs_weight: whether logged values include the weight.
        of_pairs: a mean over pairs of agents, however many views an agent has.
        in_view0: compares points in view 0's frame, where foreign views have none.
        recompute: recompute its activations in the backward pass (:func:`coopmap.losses.inputs.recomputed`): where
            whole maps would be kept.
    """

    key: str
    compute: Callable[[LossInputs], Tensor | PixelLoss]
    measured: Callable[[LossInputs], Bool[Tensor, "b *v"]] = lambda inputs: inputs.has_depth
    needs: tuple[str, ...] = ()
    by_confidence: bool = False
    logs_weight: bool = True
    of_pairs: bool = False
    in_view0: bool = False
    recompute: bool = False

    def name(self, cfg: LossConfig) -> str:
        """Name in the log: upstream's, without class prefixes."""
        return geometry.DEPTH_NAMES[cfg.depth] if self.key == "depth" else self.key


def _any_pixel(inputs: LossInputs) -> Bool[Tensor, "b v"]:
    """Views whose pixels are not all excluded."""
    return inputs.factor.sum(dim=(2, 3)) > 0


def _every_view(inputs: LossInputs) -> Bool[Tensor, "b v"]:
    return torch.ones_like(inputs.has_depth)


def _every_sample(inputs: LossInputs) -> Bool[Tensor, " b"]:
    return torch.ones_like(inputs.has_depth[:, 0])


TERMS = (
    Term("pts3d", geometry.world_point_loss, by_confidence=True, in_view0=True),
    Term("cam_pts3d", geometry.view_point_loss),
    Term("depth", geometry.depth_loss),
    Term("ray_directions", geometry.ray_loss, _any_pixel),
    Term("pose_quats", pose.quat_loss, pose.has_rotation),
    Term("pose_trans", pose.trans_loss, pose.has_trans),
    Term("normal", surface.normal_loss, surface.has_surface),
    Term("gradient_matching", surface.gradient_loss, surface.has_surface),
    Term("scale", geometry.scale_loss, geometry.has_scale),
    Term("mask", geometry.mask_loss, _every_view, logs_weight=False),
    Term("scale_distillation", regularizers.scale_distillation_loss, _every_sample),
    Term("rig", regularizers.rig_loss, regularizers.has_partner, needs=("agent", "rig_pose")),
    Term("range", matching.range_loss),
    Term("matching", matching.matching_loss, matching.has_cells, of_pairs=True),
    Term("alignment", matching.alignment_loss, matching.has_poses, of_pairs=True),
    Term("covisibility", matching.covisibility_loss, matching.has_covisibility, of_pairs=True),
    Term("confidence", matching.confidence_loss, matching.has_pairs, of_pairs=True),
    Term(
        "height", regularizers.height_loss, regularizers.has_unknown_depth, needs=("ground_height_m",), recompute=True
    ),
)
