"""Relative pose between agents."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric

from coopmap.geometry import pose_from_quat_trans, relative_pose, rotation_angle
from coopmap.metrics.states import gathered, median
from coopmap.types import Prediction

RECALLS_M_DEG = ((1, 2), (2, 5), (5, 10))
AUC_LIMIT_DEG = 30


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
        ``i`` and ``j``; ``distance_m``, the true distance; ``trans_m``, the length of the difference of the
        translations, both in i's frame; ``rot_deg``, the angle between the rotations; ``direction_deg``, the angle
        between the translations up to sign. Pairs are ordered 01, 02, ..., 12, ...; none for a single view.
    """
    batch, num_views = pose_true.shape[:2]
    first, second = torch.triu_indices(num_views, num_views, offset=1, device=pose_true.device)
    pose_pred, pose_true = pose_pred.detach().double(), pose_true.detach().double()
    predicted = relative_pose(pose_pred[:, first], pose_pred[:, second])
    true = relative_pose(pose_true[:, first], pose_true[:, second])
    return {
        "i": first.expand(batch, -1),
        "j": second.expand(batch, -1),
        "distance_m": torch.linalg.vector_norm(true[..., :3, 3], dim=-1),
        "trans_m": torch.linalg.vector_norm(predicted[..., :3, 3] - true[..., :3, 3], dim=-1),
        "rot_deg": torch.rad2deg(rotation_angle(predicted[..., :3, :3].mT @ true[..., :3, :3])),
        "direction_deg": direction_error_deg(predicted[..., :3, 3], true[..., :3, 3]),
    }


def pose_figures(
    pose_pred: Float[Tensor, "b v 4 4"], pose_true: Float[Tensor, "b v 4 4"]
) -> dict[str, Float[Tensor, " b"]]:
    """Per sample: means over all pairs and over the pairs with the reference agent, recalls, AUC.

    See :func:`pair_errors`; all are NaN for a single view.
    """
    pairs = pair_errors(pose_pred, pose_true)
    num_references = pose_true.shape[1] - 1  # the pairs 01, 02, ... come first
    figures = {
        "trans_m": pairs["trans_m"].mean(dim=1),
        "rot_deg": pairs["rot_deg"].mean(dim=1),
        "trans_to_reference_m": pairs["trans_m"][:, :num_references].mean(dim=1),
        "rot_to_reference_deg": pairs["rot_deg"][:, :num_references].mean(dim=1),
    }
    for meters, degrees in RECALLS_M_DEG:
        within = (pairs["trans_m"] <= meters) & (pairs["rot_deg"] <= degrees)
        figures[f"recall_{meters}m_{degrees}deg"] = within.double().mean(dim=1)
    worst_deg = torch.maximum(pairs["rot_deg"], pairs["direction_deg"])
    return figures | {f"auc_{AUC_LIMIT_DEG}": area_under_curve(worst_deg)}


class RelativePoseError(Metric):
    """Error of the relative poses ``T_i_j`` of all unordered pairs of agents, in meters and degrees, unaligned.

    ``compute`` returns ``trans_m_mean``, ``trans_m_median``, ``rot_deg_mean``, ``rot_deg_median``; recalls such as
    ``recall_1m_2deg``, the share of pairs within both limits; and ``auc_30``, in [0, 1]. Pairs of all samples are
    pooled, but for the AUC, which is averaged over samples, as upstream does. Without any pair, all are NaN.
    """

    full_state_update = False
    trans_m: list[Tensor]
    rot_deg: list[Tensor]
    auc_sum: Tensor
    num_samples: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("trans_m", default=[], dist_reduce_fx="cat")
        self.add_state("rot_deg", default=[], dist_reduce_fx="cat")
        self.add_state("auc_sum", default=torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("num_samples", default=torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, pose_pred: Float[Tensor, "b v 4 4"], pose_true: Float[Tensor, "b v 4 4"]) -> None:
        """Add a batch; each argument may be in any frame common to the views of a sample. Single views add nothing."""
        if pose_true.shape[1] < 2:
            return
        pairs = pair_errors(pose_pred, pose_true)
        self.trans_m.append(pairs["trans_m"].flatten().float())
        self.rot_deg.append(pairs["rot_deg"].flatten().float())
        self.auc_sum += area_under_curve(torch.maximum(pairs["rot_deg"], pairs["direction_deg"])).sum()
        self.num_samples += len(pose_true)

    def compute(self) -> dict[str, Tensor]:
        """Figures over everything added since the last reset."""
        trans_m, rot_deg = gathered(self.trans_m, self.device), gathered(self.rot_deg, self.device)
        figures = {
            "trans_m_mean": trans_m.mean(),
            "trans_m_median": median(trans_m),
            "rot_deg_mean": rot_deg.mean(),
            "rot_deg_median": median(rot_deg),
        }
        for meters, degrees in RECALLS_M_DEG:
            within = (trans_m <= meters) & (rot_deg <= degrees)
            figures[f"recall_{meters}m_{degrees}deg"] = within.float().mean()
        figures[f"auc_{AUC_LIMIT_DEG}"] = (self.auc_sum / self.num_samples).float()
        return figures


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
