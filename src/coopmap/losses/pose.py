"""Pose terms: poses in view 0's frame and relative poses of all ordered pairs of views."""

from __future__ import annotations

import roma
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from coopmap.config.loss import LossConfig
from coopmap.losses.normalised import Geometry
from coopmap.losses.reduce import weighted_mean
from coopmap.losses.robust import robust_loss


def pairwise_poses(
    quat: Float[Tensor, "b v 4"], trans: Float[Tensor, "b v 3"]
) -> tuple[Float[Tensor, "b v v 4"], Float[Tensor, "b v v 3"]]:
    """Rotation and translation of ``T_i_j`` at ``[:, i, j]``; quaternions need not be exactly unit."""
    inverse = roma.quat_inverse(quat)[:, :, None]
    return roma.quat_product(inverse, quat[:, None]), roma.quat_action(inverse, trans[:, None] - trans[:, :, None])


def _quat_loss(prediction: Float[Tensor, "*b 4"], truth: Float[Tensor, "*b 4"], cfg: LossConfig) -> Float[Tensor, "*b"]:
    """Robust loss to the nearer of ``q`` and ``-q``, which are the same rotation."""
    return torch.minimum(
        robust_loss(prediction, truth, cfg.robust_alpha, cfg.robust_c),
        robust_loss(prediction, -truth, cfg.robust_alpha, cfg.robust_c),
    )


def pose_losses(
    prediction: Geometry, truth: Geometry, view_valid: Bool[Tensor, "b v"], cfg: LossConfig
) -> tuple[Float[Tensor, " v"], Float[Tensor, " v"]]:
    """Rotation and translation loss of each view, averaged over samples and, with pairs, over its partners.

    With ``pose_terms=both`` a view's own pose weighs as much as one of its pairs (upstream
    ``compute_absolute_pose_loss`` and ``compute_pairwise_relative_pose_loss`` together). Translations count only
    between views with some known depth, since their unit comes from it.
    """
    quats, quat_weights, transs, trans_weights = [], [], [], []
    if cfg.pose_terms != "pairwise":
        quats.append(_quat_loss(prediction.quat, truth.quat, cfg)[..., None])
        quat_weights.append(torch.ones_like(quats[-1]))
        transs.append(robust_loss(prediction.trans, truth.trans, cfg.robust_alpha, cfg.robust_c)[..., None])
        trans_weights.append(view_valid[..., None].to(transs[-1]))
    if cfg.pose_terms != "absolute":
        predicted_quat, predicted_trans = pairwise_poses(prediction.quat, prediction.trans)
        true_quat, true_trans = pairwise_poses(truth.quat, truth.trans)
        quats.append(_quat_loss(predicted_quat, true_quat, cfg))
        others = 1.0 - torch.eye(quats[-1].shape[-1], dtype=quats[-1].dtype, device=quats[-1].device)
        quat_weights.append(others.expand_as(quats[-1]))
        transs.append(robust_loss(predicted_trans, true_trans, cfg.robust_alpha, cfg.robust_c))
        trans_weights.append(others * (view_valid[:, :, None] & view_valid[:, None]))
    return (
        weighted_mean(torch.cat(quats, -1), torch.cat(quat_weights, -1), dim=(0, 2)),
        weighted_mean(torch.cat(transs, -1), torch.cat(trans_weights, -1), dim=(0, 2)),
    )
