"""What the command prints."""

from __future__ import annotations

import numpy as np
import torch

from coopmap.geometry.calibration import PinholeCalibration
from coopmap.geometry.poses import heading_deg
from coopmap.geometry.se3 import relative_pose, rotation_angle
from coopmap.inference.inputs import Views
from coopmap.inference.pairs import describe_pairs, length
from coopmap.inference.runner import Inference
from coopmap.report.numbers import fixed, percent
from coopmap.report.tables import Column, Row, Section, Table, names
from coopmap.report.terminal import print_table

NO_FIT = "no fit"
"""Shown where no camera model fits the rays."""


def print_result(views: Views, result: Inference, origin: str) -> None:
    """What was left out; as tables poses relative to the reference, their errors where truth is known, and cameras."""
    print(f"{views.title}\nmodel: {origin}")
    if views.left_out:
        print(f"left out: {len(views.left_out)}")
        print("\n".join(f"  {item}" for item in views.left_out))
    print_table(pose_table(views, result))
    if result.prediction.matches is not None:
        print_table(pair_table(views, result))
    print_table(camera_table(views, result))


def pose_table(views: Views, result: Inference) -> Table:
    """Position of every view in the reference's frame, its orientation, and errors."""
    truth, pose = views.true_pose, result.pose
    columns = [
        names("view"),
        *(Column(label, "m", fixed(2), missing="") for label in ("right", "down", "forward", "distance")),
        *(Column(label, "deg", fixed(2), missing="") for label in ("heading", "rotation")),
        *(Column("error", unit, fixed(2), missing="") for unit in ("m", "deg") if truth is not None),
    ]
    angle = torch.rad2deg(rotation_angle(pose[:, :3, :3]))
    heading = heading_deg(pose.numpy())
    rows = [Row([views.names[0], "reference", *[None] * (len(columns) - 2)])]
    for i, name in enumerate(views.names[1:], start=1):
        place = pose[i, :3, 3]
        figures = [*place.tolist(), float(place.norm()), float(heading[i]), float(angle[i])]
        if truth is not None:
            turned = torch.rad2deg(rotation_angle(relative_pose(truth[i], pose[i])[:3, :3]))
            figures += [float((place - truth[i, :3, 3]).norm()), float(turned)]
        rows.append(Row([name, *figures]))
    return Table(f"views relative to {views.names[0]}", columns, [Section(rows)])


def pair_table(views: Views, result: Inference) -> Table:
    """Of every pair of agents, what the model expects and how well its matches determine its pose."""
    columns = [
        names("pair"),
        Column("confidence", form=percent),
        Column("co-visibility", form=percent),
        Column("position +-", "m", fixed(2), nan="none"),
        Column("rotation +-", "deg", fixed(2), nan="none"),
    ]
    rows = [
        Row(
            [
                " - ".join(pair["agents"]),
                pair["confidence"],
                pair["covisibility"],
                length(pair["sigma_m"]),
                length(pair["sigma_deg"]),
            ]
        )
        for pair in describe_pairs(views, result) or []
    ]
    return Table("pairs of agents; standard deviations if the matches are right", columns, [Section(rows)])


def camera_table(views: Views, result: Inference) -> Table:
    """Recovered camera parameters and the share of pixels kept."""
    height, width = views.images.shape[1:3]
    camera = result.camera
    parameters, own, kinds = np.empty((len(views.names), 0)), [], ""
    if isinstance(camera, PinholeCalibration):
        matrices = camera.intrinsics
        parameters = np.stack([matrices[:, 0, 0], matrices[:, 1, 1], matrices[:, 0, 2], matrices[:, 1, 2]], axis=1)
        own = [Column(label, "px", fixed(1), nan=NO_FIT) for label in ("fx", "fy", "cx", "cy")]
    elif camera is not None:
        parameters = np.rad2deg(np.stack([camera.v_fov, camera.elevation_center, camera.yaw], axis=1))
        own = [Column(label, "deg", fixed(2), nan=NO_FIT) for label in ("v_fov", "elevation", "yaw")]
        kinds = f", {', '.join(dict.fromkeys(camera.projection))}"
    if camera is not None:
        parameters = np.column_stack([parameters, np.rad2deg(camera.residual)])
        own.append(Column("ray residual", "deg", fixed(2), nan=NO_FIT))
    columns = [
        names("view"),
        *own,
        Column("median depth", "m", fixed(1)),
        Column("kept", form=percent),
    ]
    rows = []
    for i, name in enumerate(views.names):
        mask = result.mask[i]
        depth = float(result.depth[i][mask].median()) if mask.any() else None
        rows.append(Row([name, *map(float, parameters[i]), depth, float(mask.float().mean())]))
    rays = "calibrated rays" if result.rays_from == "calibration" else "rays"
    what = f"cameras recovered from the {rays}" if camera is not None else "mosaics of cameras"
    title = f"{what} ({width} x {height} pixels{kinds})"
    return Table(title, columns, [Section(rows)])
