"""Pose terms: poses in view 0's frame and relative poses of ordered pairs of views."""

from __future__ import annotations

import roma
import torch
from jaxtyping import Float
from torch import Tensor

from coopmap.config.loss import LossConfig
from coopmap.losses.inputs import LossInputs
from coopmap.losses.reduce import weighted_mean
from coopmap.losses.robust import robust_loss


def pairwise_quats(quat: Float[Tensor, "b v 4"]) -> Float[Tensor, "b v v 4"]:
    """Rotation of ``T_i_j`` at ``[:, i, j]``; quaternions need not be exactly unit."""
    return roma.quat_product(roma.quat_inverse(quat)[:, :, None], quat[:, None])


def pairwise_trans(quat: Float[Tensor, "b v 4"], trans: Float[Tensor, "b v 3"]) -> Float[Tensor, "b v v 3"]:
    """Translation of ``T_i_j`` at ``[:, i, j]``."""
    return roma.quat_action(roma.quat_inverse(quat)[:, :, None], trans[:, None] - trans[:, :, None])


def compared_pairs(inputs: LossInputs) -> Float[Tensor, "b v v"]:
    """1 for the ordered pairs of different views that count (``loss.pairs``)."""
    batch, num_views = inputs.weight.shape[:2]
    pairs = ~torch.eye(num_views, dtype=torch.bool, device=inputs.weight.device).expand(batch, -1, -1)
    if inputs.cfg.pairs == "between_agents" and (agent := inputs.target.agent) is not None:
        pairs = pairs & (agent[:, :, None] != agent[:, None])
    return pairs.to(inputs.weight)


def quat_loss(inputs: LossInputs) -> Float[Tensor, " v"]:
    """Rotation loss of each view, averaged over samples and, with pairs, over its partners.

    With ``pose_terms=both`` a view's own pose has the same weight as one of its pairs (upstream
    ``compute_absolute_pose_loss`` and ``compute_pairwise_relative_pose_loss`` together).
    """
    prediction, truth, cfg = inputs.pair.prediction.quat, inputs.pair.truth.quat, inputs.cfg
    losses, weights = [], []
    if cfg.pose_terms != "pairwise":
        losses.append(_nearer_sign_loss(prediction, truth, cfg)[..., None])
        weights.append(torch.ones_like(losses[-1]))
    if cfg.pose_terms != "absolute":
        losses.append(_nearer_sign_loss(pairwise_quats(prediction), pairwise_quats(truth), cfg))
        weights.append(compared_pairs(inputs))
    return weighted_mean(torch.cat(losses, -1), torch.cat(weights, -1), dim=(0, 2))


def trans_loss(inputs: LossInputs) -> Float[Tensor, " v"]:
    """Translation loss of each view, averaged as :func:`quat_loss` is.

    Translations count only between views with some known depth, since their unit comes from it.
    """
    prediction, truth, cfg = inputs.pair.prediction, inputs.pair.truth, inputs.cfg
    has_unit = inputs.valid.flatten(2).any(-1)
    losses, weights = [], []
    if cfg.pose_terms != "pairwise":
        losses.append(robust_loss(prediction.trans, truth.trans, cfg)[..., None])
        weights.append(has_unit[..., None].to(losses[-1]))
    if cfg.pose_terms != "absolute":
        predicted_pairs = pairwise_trans(prediction.quat, prediction.trans)
        losses.append(robust_loss(predicted_pairs, pairwise_trans(truth.quat, truth.trans), cfg))
        weights.append(compared_pairs(inputs) * (has_unit[:, :, None] & has_unit[:, None]))
    return weighted_mean(torch.cat(losses, -1), torch.cat(weights, -1), dim=(0, 2))


def _nearer_sign_loss(
    prediction: Float[Tensor, "*b 4"], truth: Float[Tensor, "*b 4"], cfg: LossConfig
) -> Float[Tensor, "*b"]:
    """Robust loss to the nearer of ``q`` and ``-q``, which are the same rotation."""
    return torch.minimum(robust_loss(prediction, truth, cfg), robust_loss(prediction, -truth, cfg))
