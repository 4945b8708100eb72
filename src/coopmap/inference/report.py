"""What the command prints."""

from __future__ import annotations

import sys

import numpy as np
import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from coopmap.geometry.calibration import PinholeCalibration
from coopmap.geometry.se3 import relative_pose, rotation_angle
from coopmap.inference.inputs import Views
from coopmap.inference.runner import Inference


def print_result(views: Views, result: Inference, origin: str) -> None:
    """Poses relative to the reference, their errors where the truth is known, and cameras, as tables."""
    print(f"{views.title}\nmodel: {origin}")
    console = Console(width=None if sys.stdout.isatty() else 110)
    console.print(pose_table(views, result))
    console.print(camera_table(views, result))


def pose_table(views: Views, result: Inference) -> Table:
    """Position of every view in the reference's frame, how it is turned, and errors."""
    table = Table(title=f"views relative to {escape(views.names[0])}", title_justify="left")
    columns = ["view", "right (m)", "down (m)", "forward (m)", "distance (m)", "yaw (deg)", "rotation (deg)"]
    truth = views.true_pose
    if truth is not None:
        columns += ["error (m)", "error (deg)"]
    for column in columns:
        table.add_column(column, justify="left" if column == "view" else "right")
    pose = result.pose
    angle = torch.rad2deg(rotation_angle(pose[:, :3, :3]))
    yaw = torch.rad2deg(torch.atan2(pose[:, 0, 2], pose[:, 2, 2]))  # of the forward axis, positive to the right
    for i, name in enumerate(views.names):
        place = pose[i, :3, 3]
        figures = [*place.tolist(), float(place.norm()), float(yaw[i]), float(angle[i])]
        if truth is not None:
            distance = float((place - truth[i, :3, 3]).norm())
            turned = float(torch.rad2deg(rotation_angle(relative_pose(truth[i], pose[i])[:3, :3])))
            figures += [distance, turned]
        if i == 0:
            table.add_row(escape(name), *["reference", *[""] * (len(figures) - 1)])
        else:
            table.add_row(escape(name), *(f"{figure:.2f}" for figure in figures))
    return table


def camera_table(views: Views, result: Inference) -> Table:
    """Recovered camera parameters and the share of pixels kept."""
    height, width = views.images.shape[1:3]
    table = Table(title=f"cameras recovered from the rays ({width} x {height} pixels)", title_justify="left")
    camera = result.camera
    is_pinhole = isinstance(camera, PinholeCalibration)
    own = ["fx", "fy", "cx", "cy"] if is_pinhole else ["projection", "v_fov (deg)", "elevation (deg)", "yaw (deg)"]
    for column in ["view", *own, "ray residual (deg)", "median depth (m)", "kept"]:
        table.add_column(column, justify="left" if column == "view" else "right")
    for i, name in enumerate(views.names):
        if isinstance(camera, PinholeCalibration):
            matrix = camera.intrinsics[i]
            parameters = [f"{value:.1f}" for value in (matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2])]
        else:
            angles = np.rad2deg([camera.v_fov[i], camera.elevation_center[i], camera.yaw[i]])
            parameters = [camera.projection[i], *(f"{value:.2f}" for value in angles)]
        mask = result.mask[i]
        depth = f"{float(result.depth[i][mask].median()):.1f}" if mask.any() else ""
        residual = f"{np.rad2deg(camera.residual[i]):.2f}"
        cells = [text.replace("nan", "no fit") for text in (*parameters, residual)]
        table.add_row(escape(name), *cells, depth, f"{float(mask.float().mean()):.0%}")
    return table
