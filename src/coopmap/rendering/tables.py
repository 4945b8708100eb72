"""The table of a rendering's page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from coopmap.rendering.suspects import chamfer_text
from coopmap.report.numbers import error_size, fixed, percent, signed, significant
from coopmap.report.tables import Column, Row, Section, Table, names

POSE = ("right_m", "ahead_m", "heading_deg")


def agents_table(summary: Mapping[str, Any]) -> Table:
    """A row per agent, and one for the sample: poses, depth, scale and masks, predicted beside true."""
    columns = [names("agent")]
    for group, unit in (("right", "m"), ("ahead", "m"), ("heading", "°")):
        columns += [Column(side, unit, signed(1), group=group) for side in ("predicted", "true")]
    columns += [
        Column("translation", "m", error_size, group="error of pose", missing="reference"),
        Column("rotation", "°", error_size, group="error of pose", missing="reference"),
    ]
    columns += [Column(side, "m", fixed(1), group="mean range") for side in ("predicted", "true")]
    columns += [Column("RMSE", "m", error_size, group="range"), Column("AbsRel", form=significant(3), group="range")]
    columns += [Column(side, form=percent, group="mask") for side in ("predicted", "true")]
    rows = [_agent_row(summary, name) for name in summary["agents"]]
    errors = summary["errors"]
    note = (
        f"Frame of the reference agent; positive headings are to the right. Predicted lengths are "
        f"{errors['scale_ratio']:.3f} times the true ones. Chamfer distance of predicted and true points: "
        f"{chamfer_text(errors['chamfer_m_pred_poses'])}; of those placed by the true poses: "
        f"{chamfer_text(errors['chamfer_m_gt_poses'])}."
    )
    return Table("Predicted and true", columns, [Section([*rows, _sample_row(summary)])], note)


def _agent_row(summary: Mapping[str, Any], name: str) -> Row:
    pred, true = (summary[side]["agents"][name] for side in ("pred", "gt"))
    errors = summary["errors"]["agents"][name]
    poses = [side[key] for key in POSE for side in (pred, true)]
    return Row([name, *poses, errors.get("trans_m"), errors.get("rot_deg"), *_depth_and_mask(pred, true, errors)])


def _sample_row(summary: Mapping[str, Any]) -> Row:
    errors = summary["errors"]
    poses = [None] * (2 * len(POSE))
    pose_errors = [errors["trans_m_mean"], errors["rot_deg_mean"]]
    return Row(["all", *poses, *pose_errors, *_depth_and_mask(summary["pred"], summary["gt"], errors)], kind="model")


def _depth_and_mask(pred: Mapping[str, Any], true: Mapping[str, Any], errors: Mapping[str, Any]) -> list[Any]:
    depth = [pred["depth_m_mean"], true["depth_m_mean"], errors["depth_m_rmse"], errors["depth_abs_rel"]]
    return [*depth, pred["mask_mean"], true["mask_mean"]]
