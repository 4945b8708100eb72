"""Relative pose between agents."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from coopmap.geometry import pose_from_quat_trans, relative_pose, rotation_angle
from coopmap.geometry.pairs import pair_ends
from coopmap.metrics.reduce import Values, mean_where, or_infinite
from coopmap.types import Prediction

RECALLS_M_DEG = ((1, 2), (1, 5), (2, 5), (3, 5), (5, 10))
AUC_LIMIT_DEG = 30
AUC_NAME = f"auc_{AUC_LIMIT_DEG}"


def predicted_pose(prediction: Prediction) -> Float[Tensor, "b v 4 4"]:
    """Predicted ``T_view0_view`` in single precision."""
    return pose_from_quat_trans(prediction.pose_quat.detach().float(), prediction.pose_trans.detach().float())


def pair_errors(
    pose_pred: Float[Tensor, "b v 4 4"], pose_true: Float[Tensor, "b v 4 4"]
) -> dict[str, Float[Tensor, "b p"]]:
    """Errors of the relative poses ``T_i_j`` of all pairs of views ``i < j``; no alignment is needed or done.

    Args:
        pose_pred: in any frame common to the views of a sample.
        pose_true: likewise, not necessarily the same frame.

    Returns:
        ``i`` and ``j``; ``distance_m``, the true distance; ``heading_deg``, the angle of the true rotation;
        ``trans_m``, the length of the difference of the translations, both in i's frame; ``rot_deg``, the angle between
        the rotations; ``direction_deg``, the angle between the translations up to sign. Errors of predictions that are
        not finite are infinite. Pairs are ordered 01, 02, ..., 12, ...; none for a single view.
    """
    batch, num_views = pose_true.shape[:2]
    first, second = pair_ends(num_views, pose_true.device)
    pose_pred, pose_true = pose_pred.detach().double(), pose_true.detach().double()
    predicted = relative_pose(pose_pred[:, first], pose_pred[:, second])
    true = relative_pose(pose_true[:, first], pose_true[:, second])
    known = true.isfinite().flatten(-2).all(dim=-1)
    errors = {
        "trans_m": torch.linalg.vector_norm(predicted[..., :3, 3] - true[..., :3, 3], dim=-1),
        "rot_deg": torch.rad2deg(rotation_angle(predicted[..., :3, :3].mT @ true[..., :3, :3])),
        "direction_deg": direction_error_deg(predicted[..., :3, 3], true[..., :3, 3]),
    }
    return {
        "i": first.expand(batch, -1),
        "j": second.expand(batch, -1),
        "distance_m": torch.linalg.vector_norm(true[..., :3, 3], dim=-1),
        "heading_deg": torch.rad2deg(rotation_angle(true[..., :3, :3])),
        **{name: or_infinite(values, known) for name, values in errors.items()},
    }


def recall_name(meters: int, degrees: int) -> str:
    """Name of the share of pairs within both thresholds."""
    return f"recall_{meters}m_{degrees}deg"


def recall_label(meters: int, degrees: int) -> str:
    """The same for readers."""
    return f"{meters} m, {degrees}°"


def recalls(trans_m: Values, rot_deg: Values) -> dict[str, Values]:
    """Which pairs are within both thresholds (inclusive), for each pair of thresholds; no infinite or NaN error is."""
    return {
        recall_name(meters, degrees): (trans_m <= meters) & (rot_deg <= degrees) for meters, degrees in RECALLS_M_DEG
    }


def pose_figures(pairs: Mapping[str, Float[Tensor, "b p"]]) -> dict[str, Float[Tensor, " b"]]:
    """Per sample: means over all pairs and over the pairs with the reference agent, recalls, AUC.

    Args:
        pairs: of :func:`pair_errors`; all metrics are NaN without a pair.
    """
    with_reference = pairs["i"] == 0
    figures = {
        "trans_m": pairs["trans_m"].mean(dim=1),
        "rot_deg": pairs["rot_deg"].mean(dim=1),
        "trans_to_reference_m": mean_where(pairs["trans_m"], with_reference),
        "rot_to_reference_deg": mean_where(pairs["rot_deg"], with_reference),
    }
    within = recalls(pairs["trans_m"], pairs["rot_deg"])
    figures |= {name: inside.double().mean(dim=1) for name, inside in within.items()}
    return figures | {AUC_NAME: area_under_curve(torch.maximum(pairs["rot_deg"], pairs["direction_deg"]))}


def direction_error_deg(predicted: Float[Tensor, "*b 3"], true: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b"]:
    """Angle between two translations up to sign, [0, 90] degrees; 90 where one is zero.

    Upstream ``translation_angle``.
    """
    cross = torch.linalg.vector_norm(torch.linalg.cross(predicted, true), dim=-1)
    dot = (predicted * true).sum(-1).abs()
    return torch.where((cross == 0) & (dot == 0), 90.0, torch.rad2deg(torch.atan2(cross, dot)))


def area_under_curve(error_deg: Float[Tensor, "b pair"]) -> Float[Tensor, " b"]:
    """Area under the accuracy curve up to 30 degrees, from 1-degree bins (upstream ``calculate_auc_np``, after VGGT).

    The mean over the thresholds 1, 2, ..., 30 degrees of the share of pairs below the threshold (up to and including
    the last).
    """
    limits = torch.arange(1, AUC_LIMIT_DEG + 1, dtype=error_deg.dtype, device=error_deg.device)
    below = error_deg[..., None] < limits
    below[..., -1] |= error_deg == AUC_LIMIT_DEG
    return below.to(error_deg).mean(dim=(-1, -2))
