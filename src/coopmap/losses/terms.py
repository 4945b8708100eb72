"""All terms of the objective: name, weight, and how their values are reduced."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from coopmap.config.loss import LossConfig
from coopmap.losses import geometry, matching, pose, regularizers, surface
from coopmap.losses.inputs import LossInputs


@dataclass(frozen=True)
class Term:
    """One term.

    Attributes:
        key: its weight is ``loss.weights.{key}``.
        compute: loss of each pixel ``(b, v, h, w)``, each view ``(v,)`` or of the batch ``()``. Pixels are reduced over
            those with known depth: weighted by the confidence, or without the largest errors on measured samples.
        needs: fields of the target that it requires.
        by_confidence: in training its pixels are weighted by the predicted confidence.
        logs_weight: whether logged values include the weight.
        recompute: recompute its activations in the backward pass (:func:`coopmap.losses.inputs.recomputed`); pose terms
            have nothing to save, and the normal term does so itself.
    """

    key: str
    compute: Callable[[LossInputs], Tensor]
    needs: tuple[str, ...] = ()
    by_confidence: bool = False
    logs_weight: bool = True
    recompute: bool = True

    def name(self, cfg: LossConfig) -> str:
        """Name in the log: upstream's, without class prefixes."""
        return geometry.DEPTH_NAMES[cfg.depth] if self.key == "depth" else self.key


TERMS = (
    Term("pts3d", geometry.world_point_loss, by_confidence=True),
    Term("cam_pts3d", geometry.view_point_loss),
    Term("depth", geometry.depth_loss),
    Term("ray_directions", geometry.ray_loss),
    Term("pose_quats", pose.quat_loss, recompute=False),
    Term("pose_trans", pose.trans_loss, recompute=False),
    Term("normal", surface.normal_loss, recompute=False),
    Term("gradient_matching", surface.gradient_loss),
    Term("scale", geometry.scale_loss, recompute=False),
    Term("mask", geometry.mask_loss, logs_weight=False),
    Term("scale_distillation", regularizers.scale_distillation_loss, recompute=False),
    Term("rig", regularizers.rig_loss, needs=("agent", "rig_pose"), recompute=False),
    Term("range", matching.range_loss),
    Term("matching", matching.matching_loss, recompute=False),
    Term("alignment", matching.alignment_loss, recompute=False),
    Term("covisibility", matching.covisibility_loss, recompute=False),
    Term("confidence", matching.confidence_loss, recompute=False),
    Term("height", regularizers.height_loss, needs=("ground_height_m",)),
)
