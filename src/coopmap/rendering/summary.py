"""Numbers of a rendering: what the model says and what is true, side by side, and what to suspect."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from coopmap.geometry.poses import heading_deg
from coopmap.geometry.se3 import transform_points
from coopmap.inference.rays import median_angle_deg
from coopmap.metrics import measure
from coopmap.metrics.cloud import cloud_figures
from coopmap.metrics.rows import slow_rows
from coopmap.rendering.suspects import suspects
from coopmap.types import Prediction, Target, mean_distance, truth_in_view0
from coopmap.viz.scene import PRED, TRUE, Scene, SceneView


def summarize(scene: Scene, prediction: Prediction, placed: Prediction, target: Target) -> dict[str, Any]:
    """``pred`` and ``gt`` with the same keys, ``errors`` between them, ``metrics`` as evaluation has them.

    Args:
        scene: of the sample.
        prediction: of a batch of the sample alone.
        placed: the same, its points as the scene has them; see :func:`~coopmap.models.placement.as_matched`.
        target: likewise.
    """
    rows = measure(prediction, target) | slow_rows(placed, target)
    metrics = {name: float(values[0]) for name, values in rows.samples.items()}
    names = [agent.name for agent in scene.agents]
    to_reference = [{key: float(rows.pairs[key][0, pair]) for key in ("trans_m", "rot_deg", "distance_m")}
                    for pair in range(len(names) - 1)]  # fmt: skip
    agents = {name: _errors(scene, number) for number, name in enumerate(names)}
    for name, errors in zip(names[1:], to_reference, strict=True):
        agents[name] |= errors
    summary = {
        "pred": _side(scene, PRED, float(mean_distance(prediction.points_world.float(), target.valid)[0])),
        "gt": _side(scene, TRUE, float(mean_distance(truth_in_view0(target).points_world, target.valid)[0])),
        "errors": {
            **_sample_errors(agents, metrics),
            "rays_deg_median": _rays_off_deg(prediction, target),
            "chamfer_m_pred_poses": metrics["chamfer_m"],
            "chamfer_m_gt_poses": _chamfer_with_true_poses(placed, target),
            "agents": agents,
        },
        "rays_from": "prediction" if placed is prediction else "calibration",
        "metrics": metrics,
    }
    return summary | {"suspect": suspects(summary)}


def _side(scene: Scene, source: str, distance: float) -> dict[str, Any]:
    """One side: the model's, or the truth."""
    agents = {}
    for number, agent in enumerate(scene.agents):
        views = [view for view in scene.views if view.agent == number]
        agents[agent.name] = _pose(agent.pose.get(source)) | {
            "depth_m_mean": _mean([_depths(view, source) for view in views]),
            "mask_mean": _mean([_mask(view, source) for view in views]),
        }
    positions = [agent.pose[source][:3, 3] for agent in scene.agents[1:] if source in agent.pose]
    return {
        "distance_m_mean": float(np.mean(np.linalg.norm(positions, axis=1))) if positions else None,
        "scale_m": distance,
        "depth_m_mean": _mean([_depths(view, source) for view in scene.views]),
        "mask_mean": _mean([_mask(view, source) for view in scene.views]),
        "agents": agents,
    }


def _pose(pose: Float[np.ndarray, "4 4"] | None) -> dict[str, Any]:
    """In the reference agent's frame; positive angles are to the right."""
    if pose is None:
        return dict.fromkeys(("right_m", "down_m", "ahead_m", "heading_deg"))
    right, down, ahead = pose[:3, 3].tolist()
    return {"right_m": right, "down_m": down, "ahead_m": ahead, "heading_deg": float(heading_deg(pose))}


def _depths(view: SceneView, source: str) -> np.ndarray:
    """Ranges of the pixels whose truth is known."""
    assert view.true_depth is not None
    known = view.true_depth > 0
    return (view.depth if source == PRED else view.true_depth)[known].astype(np.float64)


def _mask(view: SceneView, source: str) -> np.ndarray:
    mask = view.mask if source == PRED else view.covered
    assert mask is not None
    return mask.astype(np.float64)


def _mean(parts: list[np.ndarray]) -> float | None:
    values = np.concatenate([part.ravel() for part in parts]) if parts else np.zeros(0)
    return float(values.mean()) if len(values) else None


def _errors(scene: Scene, number: int) -> dict[str, Any]:
    """Of an agent's ranges, over the pixels of all its views whose truth is known."""
    views = [view for view in scene.views if view.agent == number]
    pred, true = (np.concatenate([_depths(view, source) for view in views]) for source in (PRED, TRUE))
    if not len(true):
        return dict.fromkeys(("depth_m_rmse", "depth_m_bias", "depth_abs_rel"))
    return {
        "depth_m_rmse": float(np.sqrt(np.mean((pred - true) ** 2))),
        "depth_m_bias": float(np.mean(pred - true)),
        "depth_abs_rel": float(np.mean(np.abs(pred - true) / true)),
    }


def _sample_errors(agents: dict[str, dict[str, Any]], metrics: dict[str, float]) -> dict[str, Any]:
    """Of the sample: those of poses over the pairs with the reference agent."""
    trans, rot, depth = (
        np.array([errors[key] for errors in agents.values() if errors.get(key) is not None])
        for key in ("trans_m", "rot_deg", "depth_m_rmse")
    )
    return {
        "trans_m_mean": float(trans.mean()) if len(trans) else None,
        "trans_m_rmse": _rms(trans),
        "rot_deg_mean": float(rot.mean()) if len(rot) else None,
        "rot_deg_rmse": _rms(rot),
        "depth_m_rmse": _rms(depth),
        "depth_abs_rel": metrics["depth_abs_rel"],
        "scale_ratio": metrics["scale_ratio"],
        "mask_iou": metrics["mask_iou"],
    }


def _rms(values: np.ndarray) -> float | None:
    return float(np.sqrt(np.mean(values**2))) if len(values) else None


def _rays_off_deg(prediction: Prediction, target: Target) -> float:
    """Median angle between predicted and true rays where a camera sees something; NaN where none does."""
    seen = target.non_ambiguous[0].flatten()[None]
    rays, true = (rays[0].flatten(0, 2)[None] for rays in (prediction.rays, target.rays))
    return median_angle_deg(rays, true, seen)[0]


def _chamfer_with_true_poses(prediction: Prediction, target: Target) -> float:
    """Distance of the predicted points from the true ones where the true poses put them."""
    moved = replace(prediction, points_world=_with_true_poses(prediction, target))
    return float(cloud_figures(moved, target)["chamfer_m"][0])


def _with_true_poses(prediction: Prediction, target: Target) -> Float[Tensor, "b v h w 3"]:
    pose = torch.linalg.inv(target.pose[:, :1].double()) @ target.pose.double()
    points = prediction.points_view.float()
    return transform_points(pose.float(), points.flatten(2, 3)).view_as(points)
