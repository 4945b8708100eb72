"""The files of a result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, UInt8

from coopmap.geometry.calibration import PinholeCalibration
from coopmap.inference.inputs import Views
from coopmap.inference.masks import masked_out
from coopmap.inference.pairs import SUPPORTING, agent_support, describe_pairs
from coopmap.inference.rays import describe_rays
from coopmap.inference.runner import Inference
from coopmap.report.files import write_bytes, write_json
from coopmap.runs.outputs import make_output_folder
from coopmap.viz.overview import draw_overview
from coopmap.viz.packing import png
from coopmap.viz.scene import PRED, TRUE, Scene, SceneAgent, SceneView
from coopmap.viz.scene_page import ScenePage, write_scene

PAGE_POINTS = 150_000
"""Points on the interactive page at most."""


def write_outputs(
    folder: Path | str, views: Views, result: Inference, max_points: int = 500_000, origin: str = ""
) -> list[Path]:
    """Write ``predictions.npz``, ``points.ply``, ``cameras.json``, ``overview.png`` and ``scene.html``.

    Args:
        folder: created if it does not exist.
        views: what went into the model.
        result: what came out.
        max_points: of the point cloud; a larger one is subsampled at random.
        origin: of the weights, recorded in the files.
    """
    folder = make_output_folder(folder)
    mask = result.mask.numpy()
    kept = thin_out(np.flatnonzero(mask), max_points)
    points = result.points_world.numpy().reshape(-1, 3)[kept]
    colors = views.images.reshape(-1, 3)[kept]
    files = [folder / name for name in ("predictions.npz", "points.ply", "cameras.json", "overview.png", "scene.html")]
    np.savez(files[0], **arrays(views, result))  # type: ignore[arg-type]
    view = (kept // mask[0].size).astype(np.uint8 if len(mask) < 256 else np.uint16)
    write_ply(files[1], points, colors, view, f"points in the frame of view 0 ({views.names[0]}), meters; {origin}")
    write_json(describe_cameras(views, result, origin), files[2])
    overview = draw_overview(views.images, result.depth.numpy(), mask, views.names)
    write_bytes(png(overview, effort=3), files[3])
    write_scene(
        files[4], scene_of_views(views, result), ScenePage("coopmap infer", points=PAGE_POINTS, with_panels=False)
    )
    return files


def scene_of_views(views: Views, result: Inference) -> Scene:
    """The views, each an agent of its own, in the frame of the first."""
    corners = result.rays.double().numpy()[:, [0, 0, -1, -1], [0, -1, -1, 0]]
    agents, shown = [], []
    for number, name in enumerate(views.names):
        pose = {PRED: result.pose[number].double().numpy()}
        if views.true_pose is not None:
            pose[TRUE] = views.true_pose[number].double().numpy()
        frusta = np.concatenate([np.zeros((1, 3)), corners[number]])[None] if views.camera_model == "pinhole" else None
        agents.append(SceneAgent(name, pose, frusta))
        shown.append(
            SceneView(
                agent=number,
                name="",
                pose=pose,
                image=views.images[number],
                rays=result.rays[number].numpy(),
                depth=result.depth[number].numpy(),
                kept=result.mask[number].numpy(),
                confidence=result.confidence[number].numpy(),
            )
        )
    return Scene(views.title, agents, shown, warnings=masked_out(views, result))


def arrays(views: Views, result: Inference) -> dict[str, np.ndarray]:
    """What ``predictions.npz`` holds; see ``docs/inference.md``."""
    content = {
        "rays": result.rays.numpy(),
        "depth": result.depth.numpy(),
        "points_world": result.points_world.numpy(),
        "pose": result.pose.numpy(),
        "confidence": result.confidence.numpy(),
        "mask": result.mask.numpy(),
        "non_ambiguous": result.non_ambiguous.numpy(),
        "scale": result.prediction.scale.numpy()[0],
        "images": views.images,
        "names": np.array(views.names),
    }
    camera = result.camera
    if isinstance(camera, PinholeCalibration):
        content |= {"intrinsics": camera.intrinsics}
    elif camera is not None:
        content |= {
            "v_fov": camera.v_fov,
            "elevation_center": camera.elevation_center,
            "yaw": camera.yaw,
            "projection": np.array(camera.projection),
        }
    if camera is not None:
        content["ray_residual"] = camera.residual
    if views.true_pose is not None:
        content["true_pose"] = views.true_pose.numpy()
    return content


def describe_cameras(views: Views, result: Inference, origin: str = "") -> dict[str, Any]:
    """What ``cameras.json`` holds: pose and parameters of every view, with units."""
    height, width = views.images.shape[1:3]
    return {
        "units": {"length": "meter", "angle": "degree", "image": "pixel, center of the first at (0.5, 0.5)"},
        "axes": "OpenCV: x right, y down, z forward",
        "pose": "T_view0_view: maps points of the view into the frame of view 0",
        "weights": origin,
        "camera_model": views.camera_model,
        "width": width,
        "height": height,
        "left_out": list(views.left_out),
        **describe_rays(views, result),
        "views": [
            {
                "name": name,
                "pose": result.pose[i].double().numpy().tolist(),
                **_parameters(views, result, i),
                "pixels_kept": round(float(result.mask[i].float().mean()), 4),
            }
            for i, name in enumerate(views.names)
        ],
        **_describe_support(views, result),
    }


def _describe_support(views: Views, result: Inference) -> dict[str, Any]:
    """What is known of pairs of agents, and which agents' poses no pair supports; nulls if the model does not match."""
    support = agent_support(views, result)
    unsupported = None if support is None else [name for name, value in support.items() if value < SUPPORTING]
    return {
        "pairs": describe_pairs(views, result),
        "support": support,
        "supporting_confidence": SUPPORTING,
        "unsupported": unsupported,
    }


def _parameters(views: Views, result: Inference, i: int) -> dict[str, Any]:
    """Camera parameters of a view; NaN (null in the file) where no camera of the model fits the rays.

    None of mosaics.
    """
    camera = result.camera
    if camera is None:
        return {}
    residual = {"ray_residual_deg": _degrees(camera.residual[i])}
    if isinstance(camera, PinholeCalibration):
        parameters = {"intrinsics": camera.intrinsics[i].tolist()}
        if views.source_from_view is not None:
            in_file = views.source_from_view[i] @ camera.intrinsics[i]
            parameters |= {"intrinsics_of_file": in_file.tolist()}
        return parameters | residual
    return residual | {
        "projection": camera.projection[i],
        "v_fov_deg": _degrees(camera.v_fov[i]),
        "elevation_center_deg": _degrees(camera.elevation_center[i]),
        "yaw_deg": _degrees(camera.yaw[i]),
    }


def _degrees(radians: float) -> float:
    return float(np.rad2deg(radians))


def thin_out(indices: np.ndarray, limit: int) -> np.ndarray:
    """At most ``limit`` of the indices, sampled with a fixed seed, in order."""
    if len(indices) <= limit:
        return indices
    return np.sort(np.random.default_rng(0).choice(indices, limit, replace=False, shuffle=False))


def write_ply(
    file: Path,
    points: Float[np.ndarray, "n 3"] | Float32[np.ndarray, "n 3"],
    colors: UInt8[np.ndarray, "n 3"],
    view: np.ndarray,
    comment: str = "",
) -> None:
    """Binary little-endian PLY with position, color and number of the view of every point."""
    vertices = np.empty(
        len(points),
        [("xyz", "<f4", 3), ("rgb", "u1", 3), ("view", view.dtype.newbyteorder("<"))],  # packed: no gaps
    )
    vertices["xyz"], vertices["rgb"], vertices["view"] = points, colors, view
    lines = ["ply", "format binary_little_endian 1.0"]
    lines += [f"comment {' '.join(comment.encode('ascii', 'replace').decode().split())}"] if comment else []
    lines += [f"element vertex {len(points)}", *(f"property float {axis}" for axis in "xyz")]
    lines += [f"property uchar {channel}" for channel in ("red", "green", "blue")]
    lines += [f"property {'uchar' if view.dtype.itemsize == 1 else 'ushort'} view", "end_header", ""]
    with file.open("wb") as stream:
        stream.write("\n".join(lines).encode())
        stream.write(vertices.tobytes())
