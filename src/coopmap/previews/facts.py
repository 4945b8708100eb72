"""What stands above the pictures: where the agents are, and how much is known of what they see."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from coopmap.config.data import DataConfig
from coopmap.geometry.poses import heading_deg
from coopmap.geometry.se3_numpy import relative_pose
from coopmap.previews.frame import PreviewFrame
from coopmap.previews.views import ON_PANORAMA
from coopmap.report.numbers import fixed, percent, signed
from coopmap.report.tables import Column, Row, Section, Table, names

DIRECTIONS = ("ahead", "ahead right", "right", "behind right", "behind", "behind left", "left", "ahead left")


def facts(frame: PreviewFrame, config: DataConfig, depth_source: str, augment: bool) -> dict[str, str]:
    """Of the sample as a whole, by label."""
    target = frame.sample.target
    panorama = config.panorama
    height, width = target.depth.shape[-2:]
    radius = "" if panorama.surface == "infinite" else f", {panorama.radius_m:g} m"
    found = {
        "scenario": frame.ref.scenario,
        "frame": frame.ref.frame,
        "agents": str(len(frame.agents)),
        "layout": f"{config.layout}, {width} x {height}",
        "surface": f"{panorama.surface}{radius}; targets: {panorama.geometry}",
        "depth": depth_source.removeprefix("depth: "),
        "coverage": percent(float(target.non_ambiguous.float().mean())),
        "valid depth": percent(float(target.valid.float().mean())),
        "augmented": "as training has it" if augment else "no",
    }
    if config.layout not in ON_PANORAMA:  # the lines of sight of cameras need none
        del found["surface"]
    if frame.unheard:
        found["not in the sample"] = ", ".join(
            f"{agent} ({distance:.0f} m)" if distance == distance else f"{agent} (unreadable)"
            for agent, distance in frame.unheard.items()
        )
    return found


def agents_table(frame: PreviewFrame, layout: str) -> Table:
    """A row per agent: where it is and looks, seen from the reference, and shares of its pixels.

    Of mosaics no angle between content and rays: these are exact lines of sight, seen from the cameras.
    """
    columns = [
        names("agent"),
        Column("distance", "m", fixed(1)),
        Column("lies", align="left", missing="reference"),
        Column("bearing", "°", signed(0, plus=True)),
        Column("heading", "°", signed(0, plus=True)),
        Column("coverage", form=_share),
        Column("valid depth", form=_share),
        Column("median range", "m", fixed(1)),
    ]
    note = (
        "Distance, bearing and heading in the reference agent's frame; positive angles are to the right. Shares are "
        "of all pixels."
    )
    rows = [_cells(frame, agent) for agent in range(len(frame.agents))]
    if layout != "mosaic":
        columns.append(Column("content off nominal rays", "°", fixed(2)))
        note += " Content off nominal rays: mean angle between what pixels show and where they nominally look."
        rows = [[*row, _off_rays(frame, agent)] for agent, row in enumerate(rows)]
    return Table("", columns, [Section([Row(row) for row in rows])], note)


def _cells(frame: PreviewFrame, agent: int) -> list[Any]:
    relative = relative_pose(frame.poses[0], frame.poses[agent])
    x, z = relative[0, 3], relative[2, 3]
    bearing = float(np.rad2deg(np.arctan2(x, z)))
    is_other = agent > 0
    return [
        frame.agents[agent],
        float(np.linalg.norm(relative[:3, 3])) if is_other else None,
        DIRECTIONS[round(bearing / 45) % 8] if is_other else None,
        bearing if is_other else None,
        float(heading_deg(relative)) if is_other else None,
        *_shares(frame, agent),
    ]


def _shares(frame: PreviewFrame, agent: int) -> Sequence[float | None]:
    """Coverage, share of valid depth, median range."""
    target, views = frame.sample.target, _views_of(frame, agent)
    valid = target.valid[views]
    median = float(target.depth[views][valid].median()) if valid.any() else None
    return [float(target.non_ambiguous[views].float().mean()), float(valid.float().mean()), median]


def _off_rays(frame: PreviewFrame, agent: int) -> float | None:
    """Mean angle between content and nominal rays, degrees."""
    target, views = frame.sample.target, _views_of(frame, agent)
    valid = target.valid[views]
    if not valid.any():
        return None
    chord = (target.rays[views][valid] - frame.sample.observation.rays[views][valid]).double().norm(dim=-1)
    return float(np.rad2deg(2 * np.arcsin(chord.numpy() / 2).mean()))


def _views_of(frame: PreviewFrame, agent: int) -> slice:
    return slice(agent * frame.views_per_agent, (agent + 1) * frame.views_per_agent)


def _share(value: float) -> str:
    return f"{value:.1%}"
