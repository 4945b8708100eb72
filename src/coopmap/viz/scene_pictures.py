"""A scene as pictures: the panels of a view, its points from behind and above, all agents from above."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8

from coopmap.report.palette import BLUE, ORANGE, VERMILLION
from coopmap.viz.canvas import with_alpha
from coopmap.viz.from_above import rgb
from coopmap.viz.overview import color_depth, depth_limits
from coopmap.viz.panels import enlarged
from coopmap.viz.scene import Scene, SceneView
from coopmap.viz.scene_cloud import Cloud, placed

PANELS = {"image": "input", "depth": "predicted range", "depth_true": "true range", "error": "error", "mask": "mask"}
"""Names of files, with what pages call them."""
MASK_COLORS = {"model and cameras": BLUE, "the model alone": VERMILLION, "cameras alone": ORANGE}
NEUTRAL = (203, 206, 210)
SMALLEST_LIMIT_M = 0.5
"""Ends of the scale of errors are no closer."""
SKY = (24, 27, 32)
CLOUD_SIZE = 540, 960
"""Height and width in pixels."""


def error_limit(scene: Scene) -> float:
    """End of the scale of errors of all views: their 90th percentile as a round number, meters."""
    errors = [np.abs(view.error[view.kept]) for view in scene.views if view.error is not None]
    known = np.concatenate([error[np.isfinite(error)] for error in errors]) if errors else np.zeros(0)
    wanted = max(float(np.percentile(known, 90)), SMALLEST_LIMIT_M) if len(known) else 1.0
    decade = 10.0 ** np.floor(np.log10(wanted))
    return float(next(digit * decade for digit in (1, 2, 5, 10) if digit * decade >= 0.999 * wanted))


def error_scale() -> UInt8[np.ndarray, "256 3"]:
    """From too near (blue) over right (light gray) to too far (vermillion), in 255 steps; 0 is unknown."""
    share = np.linspace(-1, 1, 255)[:, None]
    ends = np.where(share < 0, np.array(rgb(BLUE)), np.array(rgb(VERMILLION)))
    colors = (1 - np.abs(share)) * np.array(NEUTRAL) + np.abs(share) * ends
    return np.concatenate([np.array([[110, 114, 120]]), np.rint(colors)]).astype(np.uint8)


def error_levels(error: Float[np.ndarray, "*n"], limit: float) -> UInt8[np.ndarray, "*n"]:
    """Rows of :func:`error_scale`."""
    level = np.rint(np.clip(np.nan_to_num(error) / limit, -1, 1) * 127) + 128
    return np.where(np.isfinite(error), level, 0).astype(np.uint8)


def scene_limits(scene: Scene) -> tuple[float, float]:
    """Near and far end of the color scale of ranges: of the truth where there is any."""
    known = [view.true_depth[view.true_depth > 0] for view in scene.views if view.true_depth is not None]
    if not sum(map(len, known)):
        known = [view.depth[view.kept] for view in scene.views]
    return depth_limits(np.concatenate(known) if known else np.zeros(0))


def draw_panels(view: SceneView, limits: tuple[float, float], limit: float) -> dict[str, UInt8[np.ndarray, "h w 4"]]:
    """RGBA panels by the names of :data:`PANELS`, see-through where there is nothing.

    Args:
        view: to draw; what is unknown of it is left out.
        limits: of ranges, see :func:`scene_limits`.
        limit: of errors, see :func:`error_limit`.
    """
    seen = np.ones(view.size, bool) if view.covered is None else view.covered
    panels = {"image": with_alpha(view.image, seen)}
    panels["depth"] = with_alpha(color_depth(view.depth, *limits), seen)
    if view.true_depth is not None and view.error is not None:
        reach = truth_reach(view)
        true = np.where(seen, enlarged(view.true_depth, reach), 0)
        panels["depth_true"] = with_alpha(color_depth(true, *limits), true > 0)
        error = view.error if reach == 0 else np.where(true > 0, view.depth - true, np.nan)
        panels["error"] = with_alpha(error_scale()[error_levels(error, limit)], np.isfinite(error) & seen)
    if view.mask is not None:
        colors = [rgb(color) for color in MASK_COLORS.values()]
        both, model, cameras = view.mask & seen, view.mask & ~seen, seen & ~view.mask
        picture = np.select([both[..., None], model[..., None]], [np.array(colors[0]), np.array(colors[1])], colors[2])
        panels["mask"] = with_alpha(picture.astype(np.uint8), both | model | cameras)
    return panels


def truth_reach(view: SceneView) -> int:
    """Pixels by which known ranges are drawn larger on every side, so that sparse ones can be seen."""
    if view.true_depth is None:
        return 0
    share = float((view.true_depth > 0).mean())
    return 0 if share > 0.4 else 1 if share > 0.02 else 2


def draw_cloud(scene: Scene, clouds: Sequence[Cloud], source: str, agent: int = 0) -> UInt8[np.ndarray, "h w 3"]:
    """Points from behind and above an agent, RGB on a dark ground; the nearest in front.

    Args:
        scene: that the clouds are of.
        clouds: to draw.
        source: of poses.
        agent: whose frame is looked from.
    """
    points = placed(scene, clouds, source)
    colors = np.concatenate([cloud.colors for cloud in clouds]) if clouds else np.zeros((0, 3), np.uint8)
    camera_from_scene = _view_from_behind(scene.agents[agent].pose.get(source, np.eye(4)))
    x, y, z = (points @ camera_from_scene[:3, :3].T + camera_from_scene[:3, 3]).T
    height, width = CLOUD_SIZE
    focal = 0.75 * width
    z = np.where(z > 0.5, z, np.inf)  # infinitely far: drawn nowhere
    column, row = focal * x / z + width / 2, focal * y / z + 0.42 * height
    inside = np.isfinite(z) & (column >= 0) & (column < width - 1) & (row >= 0) & (row < height - 1)
    order = np.flatnonzero(inside)[np.argsort(-z[inside], kind="stable")]  # far ones first: later ones cover them
    canvas = np.full((height, width, 3), SKY, np.uint8)
    rows, columns = row[order].astype(int), column[order].astype(int)
    for down, right in ((1, 1), (1, 0), (0, 1), (0, 0)):  # two pixels wide
        canvas[rows + down, columns + right] = colors[order]
    return canvas


def _view_from_behind(scene_from_agent: Float[np.ndarray, "4 4"]) -> Float[np.ndarray, "4 4"]:
    """``T_camera_scene`` of a camera 16 m behind and 11 m above an agent that looks down by 24 degrees."""
    pitch = np.deg2rad(24)
    agent_from_camera = np.eye(4)
    agent_from_camera[:3, :3] = [[1, 0, 0], [0, np.cos(pitch), np.sin(pitch)], [0, -np.sin(pitch), np.cos(pitch)]]
    agent_from_camera[:3, 3] = [0, -11, -16]
    return np.linalg.inv(scene_from_agent @ agent_from_camera)


def flattened(picture: UInt8[np.ndarray, "h w 4"], ground: int = 255) -> UInt8[np.ndarray, "h w 3"]:
    """RGB on a gray ground."""
    shown = picture[..., 3:] > 0
    return np.where(shown, picture[..., :3], np.uint8(ground))
