"""What a check found, for people and for scripts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from coopmap.checks.facts import AgentFacts
from coopmap.checks.problems import KINDS, Problem
from coopmap.checks.runner import Checked
from coopmap.checks.surfaces import rigs_differ
from coopmap.checks.traffic import (
    OPV2V_DISTANCE_M,
    OPV2V_GPS,
    OPV2V_HEADINGS,
    PERCENTILES,
    heading_shares,
    pairs_within,
)
from coopmap.checks.view_masks import MAX_ANGLE_DEG, MIN_MASK, expected_views
from coopmap.config.data import DataConfig
from coopmap.report.files import write_json, write_text
from coopmap.report.numbers import DASH
from coopmap.report.tables import Column, Row, Section, Table, names

MIN_APART_M = 3.0
"""Cars are meters apart; cameras of one car, 1 to 2 m."""
SHOWN_PATHS = 3
NOT_MEASURED = "not measured"


def split_numbers(checked: Checked, split: str) -> dict[str, Any]:
    """All figures of a split, plain."""
    index, facts, data = checked.indices[split], checked.facts.get(split, []), checked.config.data
    batches = checked.batches[split]
    distance, heading = pairs_within(facts, data.communication_range_m)
    read = [item for item in facts if item.rig is not None]
    surfaces = _means([item.surfaces for item in facts if item.surfaces])
    present = index.num_agents
    gps = [(item.gps_error_m, item.gps_error_deg) for item in read]
    views = max((item.views or 0 for item in facts), default=0)
    return {
        "scenarios": len(np.unique(index.frame_scenario)),
        "frames": len(index),
        "agent_frames": len(index.frame_agents),
        "frames_read_whole": checked.whole_frames[split],
        "agents_per_frame": [int(present.min()), int(present.max())],
        "agents_per_sample": list(batches.agents),
        "views_per_sample": [count * views for count in batches.agents],
        "image_sizes": sorted({f"{r.image_size[1]} x {r.image_size[0]}" for r in map(_rig, read)}),
        "focal_px": sorted({round(float(_rig(item).intrinsics[0, 0, 0]), 2) for item in read}),
        "rigs": _num_rigs(read),
        "view_size": next((list(item.view_size) for item in facts if item.view_size), None),
        "depth": checked.sources[split],
        "non_ambiguous": _mean([item.coverage for item in facts]),
        "predicted_coverage": _mean([item.expected_coverage for item in facts]),
        "valid": _mean([item.valid for item in facts]),
        "least_valid": _mean([item.least_valid for item in facts]),
        "used": _mean([item.used for item in facts]),
        "lidar_points": _mean([item.num_points for item in facts]),
        "angle_deg": _mean([item.angle_deg for item in facts]),
        "angle_deg_by_surface": surfaces,
        "best_surface": min(surfaces, key=lambda name: surfaces[name]) if surfaces else None,
        "pairs": len(distance),
        "distance_m": _percentiles(distance),
        "headings": list(heading_shares(heading)) if len(heading) else None,
        "gps_error_m": _median_and_95([error for error, _ in gps]),
        "gps_error_deg": _median_and_95([error for _, error in gps]),
        "covisibility": _percentiles(np.array(checked.covisibility.get(split, []))),
        "ranks": batches.ranks,
        "steps": batches.steps,
        "batch_sizes": _by_agents(batches.sizes),
        "frames_by_agents": _by_agents(batches.frames) if batches.is_measured else None,
        "passes_per_epoch": _by_agents(batches.passes) if batches.is_measured else None,
    }


@dataclass(eq=False)
class Summary:
    """What a check found, as figures and tables.

    Attributes:
        checked: what it found.
        numbers: figures of each split, plain.
        tables: contents, geometry, traffic, batches, and the checklist; none if there is no split.
    """

    checked: Checked

    @cached_property
    def numbers(self) -> dict[str, dict[str, Any]]:
        """See the class."""
        return {split: split_numbers(self.checked, split) for split in self.checked.indices}

    @cached_property
    def tables(self) -> list[Table]:
        """See the class."""
        numbers = self.numbers
        if not numbers:
            return []
        evidence, verdicts = _evidence(self.checked), checklist(self.checked, numbers)
        return [_contents(numbers), _traffic(numbers), _batches(numbers), evidence, verdicts]

    def as_json(self) -> dict[str, Any]:
        """For scripts."""
        return {
            "ok": self.checked.ok,
            "problems": [{"kind": p.kind, "path": p.path, "detail": p.detail} for p in self.checked.problems],
            "splits": self.numbers,
            "notes": self.checked.notes,
        }

    def write(self, folder: Path, fix_list: str | None) -> list[Path]:
        """Write ``check.json``, ``check.md`` and the list of frames to leave out."""
        files = [folder / "check.json", folder / "check.md"]
        write_json(self.as_json(), files[0])
        parts = [table.markdown() for table in self.tables]
        parts += ["## Problems\n", *problem_lines(self.checked, None)]
        write_text("\n".join(parts) + "\n", files[1])
        if fix_list is not None:
            files.append(Path(fix_list).expanduser())
            entries = sorted({key.entry for problem in self.checked.problems for key in problem.keys})
            lines = ["# Agents in frames to leave out (data.exclude), found by coopmap check.", *entries]
            write_text("\n".join(lines) + "\n", files[-1])
        return files


def problem_lines(checked: Checked, most: int | None = SHOWN_PATHS) -> list[str]:
    """Problems by kind, of each kind so many."""
    by_kind: dict[str, list[Problem]] = defaultdict(list)
    for problem in checked.problems:
        by_kind[problem.kind].append(problem)
    lines = []
    for kind, found in by_kind.items():
        lines.append(f"{kind} ({len(found)}): {KINDS[kind]}")
        shown = found if most is None else found[:most]
        lines += [f"    {problem.path}: {problem.detail}" for problem in shown]
        if len(found) > len(shown):
            lines.append(f"    and {len(found) - len(shown)} more, see check.json")
    return lines


def _by_split(title: str, numbers: dict[str, dict[str, Any]], rows: Sequence[tuple[str, Any]], *more: Column) -> Table:
    columns = [names(""), *(Column(split, align="left") for split in numbers), *more]
    return Table(title, columns, [Section([Row([label, *cells]) for label, cells in rows])])


def _contents(numbers: dict[str, dict[str, Any]]) -> Table:
    def row(label: str, show: Any) -> tuple[str, list[Any]]:
        return label, [show(values) for values in numbers.values()]

    rows = [
        row("scenarios", lambda n: n["scenarios"]),
        row("frames (read whole)", lambda n: f"{n['frames']} ({n['frames_read_whole']})"),
        row("agents per frame", lambda n: _range(n["agents_per_frame"])),
        row("views per sample", lambda n: _range(n["views_per_sample"])),
        row("images", lambda n: ", ".join(n["image_sizes"]) or None),
        row("focal length (px)", lambda n: ", ".join(f"{f:g}" for f in n["focal_px"]) or None),
        row("rigs", lambda n: n["rigs"]),
        row("LiDAR points", lambda n: n["lidar_points"]),
        row("covered / predicted", lambda n: f"{_text(n['non_ambiguous'])} / {_text(n['predicted_coverage'])}"),
        row("valid", lambda n: _text(n["valid"])),
        row("points or covered pixels used", lambda n: _text(n["used"])),
        row("angle, rays to content (deg)", lambda n: _text(n["angle_deg"])),
        row("best surface", _best_surface),
    ]
    return _by_split("Data", numbers, rows)


def _best_surface(n: dict[str, Any]) -> str | None:
    best = n["best_surface"]
    return None if best is None else f"{best}, {n['angle_deg_by_surface'][best]:.2f} deg"


def _traffic(numbers: dict[str, dict[str, Any]]) -> Table:
    def cells(show: Any, opv2v: Any) -> list[Any]:
        return [*(show(values) for values in numbers.values()), opv2v]

    shares = " / ".join(f"{share:.0%}" for share in OPV2V_HEADINGS)
    rows = [
        ("pairs in range", cells(lambda n: n["pairs"], None)),
        (f"distance (m), percentiles {', '.join(map(str, PERCENTILES))}",
         cells(lambda n: _joined(n["distance_m"]), _joined(OPV2V_DISTANCE_M))),
        ("headings same / crossing / opposite",
         cells(lambda n: n["headings"] and " / ".join(f"{s:.0%}" for s in n["headings"]), shares)),
        ("GPS error (m), median, 95 %", cells(lambda n: _joined(n["gps_error_m"], 3), _joined(OPV2V_GPS[:2], 3))),
        ("GPS error (deg), median, 95 %", cells(lambda n: _joined(n["gps_error_deg"], 3), _joined(OPV2V_GPS[2:], 3))),
        ("co-visibility, percentiles", cells(lambda n: _joined(n["covisibility"], 2), None)),
    ]  # fmt: skip
    return _by_split("Agents", numbers, rows, Column("OPV2V Culver City", align="left"))


def _batches(numbers: dict[str, dict[str, Any]]) -> Table:
    rows = [
        ("batches per rank and epoch", [n["steps"] for n in numbers.values()]),
        ("ranks", [n["ranks"] for n in numbers.values()]),
        ("samples per batch, by agents", [_mapping(n["batch_sizes"]) for n in numbers.values()]),
        ("frames, by agents", [_mapping(n["frames_by_agents"]) for n in numbers.values()]),
        ("passes over them per epoch", [_mapping(n["passes_per_epoch"]) for n in numbers.values()]),
    ]
    return _by_split("Batches on this machine", numbers, rows)


def _evidence(checked: Checked) -> Table:
    rows = [Row([label, text]) for label, text in checked.notes.items()]
    return Table("Axes, depth, cameras and time", [names(""), Column("found", align="left")], [Section(rows)])


def checklist(checked: Checked, numbers: dict[str, dict[str, Any]]) -> Table:
    """The lines that users of the method know, each with its verdict."""
    has_rays = all(problem.kind != "rays" for problem in checked.problems)
    rows = []
    for split, figures in numbers.items():
        for label, found, expected, holds in _checklist_lines(checked.config.data, figures, has_rays):
            verdict = NOT_MEASURED if holds is None else "ok" if holds else "WRONG"
            rows.append(Row([f"{label}, {split}", found, expected, verdict], marked=() if holds else (3,)))
    columns = [names(""), *(Column(label, align="left") for label in ("found", "expected", "verdict"))]
    return Table("Checklist", columns, [Section(rows)])


def _checklist_lines(
    data: DataConfig, n: dict[str, Any], has_rays: bool
) -> Iterator[tuple[str, str, str, bool | None]]:
    """What, found, expected, and whether it holds (``None`` = not measured)."""
    per_agent, size = expected_views(data)
    is_read = n["view_size"] is not None
    least, most = data.min_agents * per_agent, data.max_agents * per_agent
    fewest, largest = n["views_per_sample"]
    holds = least <= fewest and largest <= most
    yield "views per sample", _range(n["views_per_sample"]), f"{least} to {most}", holds if is_read else None
    found, expected = (" x ".join(map(str, value or [DASH])) for value in (n["view_size"], size))
    yield "size of a view", found, expected, found == expected if is_read and size else None
    for mask, limit in (("non_ambiguous", MIN_MASK), ("valid", n["least_valid"] or MIN_MASK)):
        yield f"mean of {mask}", _text(n[mask]), f">= {limit:.2g}", n[mask] >= limit if is_read else None
    apart = n["distance_m"] and n["distance_m"][2]
    found = f"{apart:.1f} m" if apart else DASH
    yield "between agents, median", found, f"meters: > {MIN_APART_M:g}", apart > MIN_APART_M if apart else None
    found = f"{_text(n['angle_deg'])} deg" if is_read else DASH
    yield "rays against content", found, f"unit vectors, < {MAX_ANGLE_DEG:g} deg", has_rays if is_read else None


def _rig(item: AgentFacts) -> Any:
    return item.rig


def _num_rigs(items: Sequence[AgentFacts]) -> int:
    """Kinds of rigs that are really different."""
    kinds: list[Any] = []
    for item in items:
        if not any(not rigs_differ(kind, item.rig) for kind in kinds if item.rig is not None):
            kinds.append(item.rig)
        if len(kinds) > 20:
            break
    return len(kinds)


def _means(maps: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([values[name] for values in maps])) for name in (maps[0] if maps else {})}


def _mean(values: Sequence[float | int | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _percentiles(values: np.ndarray) -> list[float] | None:
    known = values[np.isfinite(values)]
    return np.percentile(known, PERCENTILES).tolist() if len(known) else None


def _median_and_95(values: Sequence[float | None]) -> list[float] | None:
    known = [value for value in values if value is not None]
    return np.percentile(known, (50, 95)).tolist() if known else None


def _range(values: Sequence[int]) -> str:
    low, high = values
    return str(low) if low == high else f"{low} to {high}"


def _text(value: float | None) -> str:
    return DASH if value is None else f"{value:.3f}"


def _joined(values: Sequence[float] | None, decimals: int = 1) -> str | None:
    return None if values is None else ", ".join(f"{value:.{decimals}f}" for value in values)


def _by_agents(values: Mapping[int, float]) -> dict[str, float]:
    return {str(count): value for count, value in values.items()}


def _mapping(values: dict[str, float] | None) -> str:
    return NOT_MEASURED if values is None else ", ".join(f"{key}: {value:.3g}" for key, value in values.items())
