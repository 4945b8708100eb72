"""A frame as one picture, to follow over a training: what agents saw, predicted and true range, poses from above."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import UInt8

from coopmap.viz.canvas import WHITE, at_width, text_strip
from coopmap.viz.from_above import draw_plan
from coopmap.viz.scene import PRED, TRUE, Scene, SceneView
from coopmap.viz.scene_cloud import placed, predicted_clouds
from coopmap.viz.scene_pictures import draw_panels, flattened, scene_limits

PANEL_WIDTH, PLAN_SIZE, GAP, LABEL_HEIGHT = 400, 400, 8, 22
PLAN_POINTS = 20_000
KINDS = ("image", "depth", "depth_true")


def draw_frame(scene: Scene, caption: str) -> UInt8[np.ndarray, "h w 3"]:
    """A row per agent with input, predicted and true range, beside the plan; RGB.

    Args:
        scene: to draw.
        caption: a line above.
    """
    limits = scene_limits(scene)
    panels = {view: draw_panels(view, limits, 1.0) for view in scene.views}
    rows = [text_strip(LABEL_HEIGHT, 3 * PANEL_WIDTH + 2 * GAP, caption)]
    for number, agent in enumerate(scene.agents):
        views = [view for view in scene.views if view.agent == number]
        shown = [_side_by_side(views, [panels[view].get(what) for view in views]) for what in KINDS]
        label = f"{number}: agent {agent.name}: input, predicted range, true range{_error(scene, number)}"
        rows += [text_strip(LABEL_HEIGHT, 3 * PANEL_WIDTH + 2 * GAP, label), _row(shown)]
    left = np.concatenate(rows)
    points = placed(scene, predicted_clouds(scene), PRED)
    plan = draw_plan(scene, [points[:: max(1, len(points) // PLAN_POINTS)]], (max(len(left), PLAN_SIZE), PLAN_SIZE))
    left = cv2.copyMakeBorder(left, 0, len(plan) - len(left), 0, GAP, cv2.BORDER_CONSTANT, value=(WHITE,) * 3)
    both = np.concatenate([left, plan], axis=1)
    return cv2.copyMakeBorder(both, GAP, GAP, GAP, GAP, cv2.BORDER_CONSTANT, value=(WHITE,) * 3)


def _error(scene: Scene, number: int) -> str:
    """Of the position, for the label."""
    pose = scene.agents[number].pose
    if number == 0 or PRED not in pose or TRUE not in pose:
        return ""
    return f"; {np.linalg.norm(pose[PRED][:3, 3] - pose[TRUE][:3, 3]):.2f} m off"


def _side_by_side(
    views: Sequence[SceneView], pictures: Sequence[UInt8[np.ndarray, "h w 4"] | None]
) -> UInt8[np.ndarray, "h w 3"]:
    """Pictures of the views of an agent, at the width of a panel together; gray where there is none."""
    width = PANEL_WIDTH // len(views)
    parts = [
        np.full((round(width * view.size[0] / view.size[1]), width, 3), 235, np.uint8)
        if shown is None
        else at_width(flattened(shown, 235), width)
        for view, shown in zip(views, pictures, strict=True)
    ]
    joined = np.concatenate(parts, axis=1)
    return cv2.copyMakeBorder(joined, 0, 0, 0, PANEL_WIDTH - joined.shape[1], cv2.BORDER_CONSTANT, value=(WHITE,) * 3)


def _row(panels: list[UInt8[np.ndarray, "h w 3"]]) -> UInt8[np.ndarray, "h w 3"]:
    gap = np.full((len(panels[0]), GAP, 3), WHITE, np.uint8)
    return np.concatenate([part for panel in panels for part in (gap, panel)][1:], axis=1)
