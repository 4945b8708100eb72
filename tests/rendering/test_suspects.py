"""What is suspected, from numbers of which the cause is known."""

from typing import Any

import pytest

from coopmap.rendering.suspects import NOTHING, suspects

GOOD = {
    "trans_m_mean": 0.5,
    "rot_deg_mean": 1.0,
    "scale_ratio": 1.02,
    "depth_abs_rel": 0.05,
    "rays_deg_median": 2.0,
    "chamfer_m_pred_poses": 0.4,
    "chamfer_m_gt_poses": 0.3,
}


def lines(mask: float = 0.7, distance: float = 30.0, rays_from: str = "prediction", **errors: Any) -> list[str]:
    pred, true = {"mask_mean": mask}, {"mask_mean": 0.73, "distance_m_mean": distance}
    return suspects({"pred": pred, "gt": true, "errors": GOOD | errors, "rays_from": rays_from})


def test_a_good_prediction_is_not_suspected() -> None:
    assert lines() == [NOTHING]
    assert lines(distance=100.0, trans_m_mean=8.0) == [NOTHING]  # within a tenth of the distance


CAUSES = [
    ({"mask": 0.01}, "Mask or training"),
    ({"mask": 0.33}, "Mask: its mean is 0.33"),
    ({"scale_ratio": 0.6}, "Scale: predicted lengths are 0.60 times"),
    ({"trans_m_mean": 9.0}, "suspect the pose loss, the pose head, or model.pose_from, not depth"),
    ({"trans_m_mean": 9.0, "chamfer_m_gt_poses": 6.0}, "suspect training as a whole, or depth first"),
    (
        {"trans_m_mean": 9.0, "chamfer_m_gt_poses": float("inf")},
        "nothing tells whether the points fit with the true poses (Chamfer cannot be measured: no predicted point is "
        "near)",
    ),
    ({"trans_m_mean": float("nan")}, "not finite"),
    ({"rot_deg_mean": 170.0}, "Headings"),
    ({"depth_abs_rel": 0.6}, "Depth: off by 60%"),
    ({"rays_deg_median": 65.0}, "Rays: predicted ones are off by 65 degrees in the median; points are off with them."),
    (
        {"rays_deg_median": 65.0, "rays_from": "calibration"},
        "Rays: predicted ones are off by 65 degrees in the median; points are shown on the calibrated ones",
    ),
    ({"depth_abs_rel": float("inf"), "scale_ratio": float("inf")}, "Depth: the model gives none"),
    ({"depth_abs_rel": float("nan"), "scale_ratio": float("nan")}, "No true depth is known"),
]


@pytest.mark.parametrize(("changes", "words"), CAUSES)
def test_each_cause_is_named_alone(changes: dict[str, Any], words: str) -> None:
    (line,) = lines(**changes)
    assert words in line


def test_a_single_agent_has_no_pose_to_suspect() -> None:
    assert lines(trans_m_mean=None, rot_deg_mean=None) == [NOTHING]
