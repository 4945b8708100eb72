"""Poses, camera models, rigs and the panorama warp (numpy and torch only)."""

from typing import TYPE_CHECKING, Any

from coopmap.geometry.carla import (
    carla_from_pose,
    points_cv_from_ue,
    points_ue_from_cv,
    pose_cv_from_ue,
    pose_from_carla,
    pose_ue_from_cv,
)

if TYPE_CHECKING:
    from coopmap.geometry.se3 import (
        invert,
        nearest_rotation,
        pose_from_quat_trans,
        quat_trans_from_pose,
        relative_pose,
        rotate,
        rotation_angle,
        transform_points,
    )

__all__ = [
    "carla_from_pose",
    "invert",
    "nearest_rotation",
    "points_cv_from_ue",
    "points_ue_from_cv",
    "pose_cv_from_ue",
    "pose_from_carla",
    "pose_from_quat_trans",
    "pose_ue_from_cv",
    "quat_trans_from_pose",
    "relative_pose",
    "rotate",
    "rotation_angle",
    "transform_points",
]


def __getattr__(name: str) -> Any:
    """Load the torch half on first use: the town's renderers run without torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from coopmap.geometry import se3

    return getattr(se3, name)
