"""A scene as one self-contained page: points, poses and boxes in three dimensions, and linked panels.

The page draws with WebGL itself instead of with Plotly: a point takes 11 bytes instead of 30, Plotly's script alone is
a third of the size that a page may have, and points that are stored in the frames of their views move with one matrix
each when other poses are chosen.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from coopmap.geometry.rig import OPV2V_LIDAR_HEIGHT_M
from coopmap.report.pages import write_page
from coopmap.report.palette import COLORS
from coopmap.report.tables import Table
from coopmap.viz.from_above import rgb
from coopmap.viz.matches import confidence_colors
from coopmap.viz.packing import pack, range_levels, range_step
from coopmap.viz.preview_page import range_legend
from coopmap.viz.scene import PRED, TRUE, Scene, SceneView
from coopmap.viz.scene_cloud import Cloud, one_per_voxel, predicted_clouds, thinned, true_clouds
from coopmap.viz.scene_pictures import (
    MASK_COLORS,
    PANELS,
    draw_panels,
    error_levels,
    error_limit,
    error_scale,
    scene_limits,
    truth_reach,
)

PAGE_POINTS = 250_000
"""Predicted points on a page, and as many true ones at most."""
SWEEP_POINTS = 80_000
CONFIDENCE_SCALE = confidence_colors(np.linspace(0, 1, 256))
FRUSTUM_M = 2.0
"""Length at which frusta of cameras are drawn."""
SOURCES = {PRED: "predicted", TRUE: "true"}
NOTE = "Frame of the reference agent; boxes are where the vehicles truly are."


@dataclass(frozen=True, eq=False)
class ScenePage:
    """What a page says beside the scene.

    Attributes:
        kind: line above the title.
        facts: by label.
        tables: below the points.
        source: of poses that the page opens with.
        points: predicted ones at most.
        with_panels: show the views.
    """

    kind: str = "coopmap render"
    facts: Mapping[str, str] = field(default_factory=dict)
    tables: Sequence[Table] = ()
    source: str = PRED
    points: int = PAGE_POINTS
    with_panels: bool = True


def write_scene(file: Path, scene: Scene, page: ScenePage | None = None) -> None:
    """Write the page; it needs nothing else, network included."""
    page = page or ScenePage()
    limit, limits = error_limit(scene), scene_limits(scene)
    packed = _packed_scene(scene, page, limit)
    groups, numbers = _panels(scene, limits, limit) if page.with_panels else ([], [])
    write_page(
        file,
        "scene.html",
        kind=page.kind,
        title=scene.title,
        warnings=[*scene.warnings, *_unplaced(scene)],
        facts=page.facts,
        tables=page.tables,
        source=packed["source"],
        sources={name: SOURCES[name] for name in scene.sources},
        colors=_color_choices(scene),
        layers=_layers(scene),
        agents=packed["agents"],
        note=NOTE if scene.boxes is not None else "Frame of the reference agent.",
        error_limit=limit,
        error_bar=_bar(error_scale()[1:]),
        confidence_limits=packed["confidence_limits"],
        confidence_bar=_bar(CONFIDENCE_SCALE),
        legend=range_legend(*limits),
        has_truth=scene.has_truth,
        mask_colors=MASK_COLORS if any(view.mask is not None for view in scene.views) else {},
        groups=groups,
        numbers=numbers,
        scene=packed,
    )


def _color_choices(scene: Scene) -> dict[str, str]:
    choices = {"image": "image", "agent": "agent"}
    if scene.has_truth:
        choices["error"] = "error"
    if any(view.confidence is not None for view in scene.views):
        choices["confidence"] = "confidence"
    return choices


def _layers(scene: Scene) -> dict[str, tuple[str, bool]]:
    """What can be switched: label, and whether it is shown at first."""
    sources = {source for agent in scene.agents for source in agent.pose}
    known = {
        "points": ("points", True, True),
        "truth": ("true points", False, scene.has_truth),
        "sweep": ("LiDAR", False, any(agent.sweep is not None for agent in scene.agents)),
        "boxes": ("boxes", True, scene.boxes is not None),
        "cameras": ("cameras", False, any(agent.frusta is not None for agent in scene.agents)),
        "pred": ("predicted poses (filled)", True, PRED in sources),
        "gt": ("true poses (outlined)", True, TRUE in sources),
        "gps": ("GPS (crosses)", True, "gps" in sources),
        "names": ("names", True, True),
        "grid": ("grid of 10 m", True, True),
    }
    return {name: (label, shown) for name, (label, shown, exists) in known.items() if exists}


def _packed_scene(scene: Scene, page: ScenePage, limit: float) -> dict[str, Any]:
    """What the script reads."""
    everything = predicted_clouds(scene)
    total = sum(len(cloud.points) for cloud in everything)
    clouds, voxel = thinned(everything, page.points)
    truth, _ = thinned(true_clouds(scene), page.points)
    confidence = _confidence_limits(clouds)
    packed = [_packed(scene, cloud, "points", limit, confidence) for cloud in clouds]
    packed += [{**_packed(scene, cloud, "truth", limit, confidence), "fixed": TRUE} for cloud in truth]
    shown = sum(len(cloud.points) for cloud in clouds)
    text = f"{shown:,} of {total:,} predicted points are on this page"
    if voxel:
        text += f", one per voxel of {100 * voxel:.0f} cm"
    return {
        "source": page.source if page.source in scene.sources else scene.sources[0],
        "agents": [_agent(scene, number) for number in range(len(scene.agents))],
        "clouds": packed + _packed_sweeps(scene),
        "boxes": [] if scene.boxes is None else np.round(scene.boxes.corners, 3).tolist(),
        "scales": {"error": error_scale().tolist(), "confidence": CONFIDENCE_SCALE.tolist()},
        "error_limit": limit,
        "confidence_limits": list(confidence),
        "voxel": voxel,
        "ground_m": OPV2V_LIDAR_HEIGHT_M,
        "count_text": text,
    }


def _confidence_limits(clouds: Sequence[Cloud]) -> tuple[float, float]:
    """Ends of the scale of confidences."""
    known = np.concatenate([cloud.confidence for cloud in clouds if cloud.confidence is not None] or [np.zeros(0)])
    known = known[np.isfinite(known)]
    low, high = np.percentile(known, [2, 98]).tolist() if len(known) else (0.0, 1.0)
    return low, max(high, low * 1.01 + 1e-6)


def _agent(scene: Scene, number: int) -> dict[str, Any]:
    agent, color = scene.agents[number], COLORS[number % len(COLORS)]
    frusta = None if agent.frusta is None else np.round(_sized(agent.frusta), 4).tolist()
    poses = _poses(agent.pose)
    return {"name": agent.name, "color": color, "rgb": list(rgb(color)), "pose": poses, "frusta": frusta}


def _sized(frusta: Float[np.ndarray, "k 5 3"]) -> Float[np.ndarray, "k 5 3"]:
    """Frusta of a length that can be seen."""
    return frusta[:, :1] + FRUSTUM_M * (frusta - frusta[:, :1])


def _poses(known: Mapping[str, Float[np.ndarray, "4 4"]]) -> dict[str, list[float]]:
    """Row-major, by source, without those that are not finite."""
    return {
        source: np.round(pose.astype(np.float64), 6).ravel().tolist()
        for source, pose in known.items()
        if np.isfinite(pose).all()
    }


def _unplaced(scene: Scene) -> list[str]:
    """A line for agents whose predicted pose is no number, so that their points have no place among the others."""
    views = [view for view in scene.views if PRED in view.pose and not np.isfinite(view.pose[PRED]).all()]
    names = dict.fromkeys(scene.agents[view.agent].name for view in views)
    return [f"Not finite, so that points are missing: predicted poses of agents {', '.join(names)}."] if names else []


def _packed(scene: Scene, cloud: Cloud, layer: str, limit: float, confidence: tuple[float, float]) -> dict[str, Any]:
    """A cloud as the script reads it."""
    view = scene.views[cloud.view]
    parts = {"rgb": cloud.colors}
    if cloud.error is not None:
        parts["error"] = error_levels(cloud.error, limit)
    if cloud.confidence is not None:
        low, high = confidence
        share = np.clip(np.nan_to_num((cloud.confidence - low) / (high - low)), 0, 1)  # NaN is no confidence at all
        parts["confidence"] = np.rint(255 * share).astype(np.uint8)
    common = {"agent": view.agent, "layer": layer, "title": scene.view_title(view)}
    return common | {"pose": _poses(view.pose)} | pack_points(cloud.points, parts)


def _packed_sweeps(scene: Scene) -> list[dict[str, Any]]:
    """LiDAR sweeps, thinned."""
    known = [(number, agent) for number, agent in enumerate(scene.agents) if agent.sweep is not None]
    packed = []
    for number, agent in known:
        assert agent.sweep is not None
        points, voxel = agent.sweep, 0.1
        while len(points) > SWEEP_POINTS // max(1, len(known)):
            points = points[one_per_voxel(points, voxel)]
            voxel *= 1.3
        poses = _poses({source: pose for source, pose in agent.pose.items() if source in SOURCES})
        common = {"agent": number, "layer": "sweep", "title": f"LiDAR of agent {agent.name}", "pose": poses}
        packed.append(common | pack_points(points, {}))
    return packed


def pack_points(points: Float[np.ndarray, "n 3"], parts: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Points in 65,536 steps of their extent along each axis, and bytes that belong to them, deflated.

    Coordinate by coordinate, all low bytes and then all high ones; then the parts, in their order.
    """
    low, high = (points.min(axis=0), points.max(axis=0)) if len(points) else (np.zeros(3), np.zeros(3))
    span = np.maximum(high - low, 1e-3)
    steps = np.rint((points - low) / span * 65535).astype(np.uint16)
    halves = [half.astype(np.uint8).tobytes() for axis in steps.T for half in (axis & 0xFF, axis >> 8)]
    data = b"".join([*halves, *(np.ascontiguousarray(part).tobytes() for part in parts.values())])
    return {
        "count": len(points),
        "low": low.astype(float).tolist(),
        "span": span.astype(float).tolist(),
        "has": list(parts),
        "data": base64.b64encode(zlib.compress(data, 6)).decode(),
    }


def _panels(
    scene: Scene, limits: tuple[float, float], limit: float
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of panels by agent, and the numbers that their script reads."""
    groups: list[dict[str, Any]] = [{"agent": agent.name, "rows": []} for agent in scene.agents]
    numbers = []
    for number, view in enumerate(scene.views):
        height, width = view.size
        row: dict[str, Any] = {"is_wide": width > 2 * height, "width": width, "height": height, "panels": []}
        for what, picture in draw_panels(view, limits, limit).items():
            uri = webp_uri(picture, quality=85 if what == "image" else 101)
            row["panels"].append({"what": PANELS[what], "view": number, "name": view.name, "picture": uri})
        groups[view.agent]["rows"].append(row)
        numbers.append(_numbers(scene, view))
    return groups, numbers


def _numbers(scene: Scene, view: SceneView) -> dict[str, Any]:
    """What the script reads under the pointer."""
    height, width = view.size
    truth = np.zeros(view.size, np.float32) if view.true_depth is None else view.true_depth
    kept = view.kept & np.isfinite(view.depth)
    step = range_step(np.stack([truth, np.where(kept, view.depth, 0)]))
    seen = np.ones(view.size, bool) if view.covered is None else view.covered
    flags = seen + 2 * (seen if view.mask is None else view.mask) + 4 * kept
    return {
        "title": scene.view_title(view),
        "height": height,
        "width": width,
        "reach": truth_reach(view),
        "has_truth": view.true_depth is not None,
        "has_mask": view.mask is not None,
        "range_step": step,
        "range": pack(range_levels(np.where(np.isfinite(view.depth), view.depth, 0), step)),
        "truth": pack(range_levels(truth, step)),
        "flags": pack(flags.astype(np.uint16)),
    }


def webp_uri(picture: UInt8[np.ndarray, "h w c"], quality: int = 101) -> str:
    """A picture as an address that carries it; without loss from a quality of 101 on."""
    order = cv2.COLOR_RGBA2BGRA if picture.shape[-1] == 4 else cv2.COLOR_RGB2BGR
    _, encoded = cv2.imencode(".webp", cv2.cvtColor(picture, order), [cv2.IMWRITE_WEBP_QUALITY, quality])
    return "data:image/webp;base64," + base64.b64encode(encoded.tobytes()).decode()


def _bar(colors: UInt8[np.ndarray, "n 3"]) -> str:
    """A scale as a background of CSS."""
    stops = [f"rgb({r},{g},{b})" for r, g, b in colors[:: max(1, len(colors) // 16)].tolist()]
    return f"linear-gradient(90deg, {', '.join(stops)})"
