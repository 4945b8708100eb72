"""Pose terms: poses in view 0's frame and relative poses of ordered pairs of views."""

from __future__ import annotations

import roma
import torch
from jaxtyping import Bool, Float
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
    losses = []
    if cfg.pose_terms != "pairwise":
        losses.append(_nearer_sign_loss(prediction, truth, cfg)[..., None])
    if cfg.pose_terms != "absolute":
        losses.append(_nearer_sign_loss(pairwise_quats(prediction), pairwise_quats(truth), cfg))
    return weighted_mean(torch.cat(losses, -1), _counted(inputs, torch.ones_like(prediction[..., 0])), dim=(0, 2))


def has_rotation(inputs: LossInputs) -> Bool[Tensor, "b v"]:
    """Views that :func:`quat_loss` measures: with pairs alone, those that are compared with another."""
    return _counted(inputs, torch.ones_like(inputs.pair.truth.quat[..., 0])).sum(dim=2) > 0


def trans_loss(inputs: LossInputs) -> Float[Tensor, " v"]:
    """Translation loss of each view, averaged as :func:`quat_loss` is.

    Translations count only between views with some known depth, since their unit comes from it.
    """
    prediction, truth, cfg = inputs.pair.prediction, inputs.pair.truth, inputs.cfg
    losses = []
    if cfg.pose_terms != "pairwise":
        losses.append(robust_loss(prediction.trans, truth.trans, cfg)[..., None])
    if cfg.pose_terms != "absolute":
        predicted_pairs = pairwise_trans(prediction.quat, prediction.trans)
        losses.append(robust_loss(predicted_pairs, pairwise_trans(truth.quat, truth.trans), cfg))
    return weighted_mean(torch.cat(losses, -1), _counted(inputs, _has_unit(inputs)), dim=(0, 2))


def has_trans(inputs: LossInputs) -> Bool[Tensor, "b v"]:
    """Views that :func:`trans_loss` measures."""
    return _counted(inputs, _has_unit(inputs)).sum(dim=2) > 0


def _has_unit(inputs: LossInputs) -> Float[Tensor, "b v"]:
    return inputs.has_depth.to(inputs.weight)


def _counted(inputs: LossInputs, usable: Float[Tensor, "b v"]) -> Float[Tensor, "b v n"]:
    """Weights of a view's own pose and of its pairs, as far as ``pose_terms`` and ``pairs`` ask for them.

    They are 1 between usable views; foreign ones are not.
    """
    if (foreign := inputs.target.foreign) is not None:
        usable = usable * ~foreign
    weights = []
    if inputs.cfg.pose_terms != "pairwise":
        weights.append(usable[..., None])
    if inputs.cfg.pose_terms != "absolute":
        weights.append(compared_pairs(inputs) * usable[:, :, None] * usable[:, None])
    return torch.cat(weights, -1)


def _nearer_sign_loss(
    prediction: Float[Tensor, "*b 4"], truth: Float[Tensor, "*b 4"], cfg: LossConfig
) -> Float[Tensor, "*b"]:
    """Robust loss to the nearer of ``q`` and ``-q``, which are the same rotation."""
    return torch.minimum(robust_loss(prediction, truth, cfg), robust_loss(prediction, -truth, cfg))
