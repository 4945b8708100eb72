"""The report: one self-contained page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from coopmap.evaluation.charts import confidence_charts, error_by_circumstance, error_distribution
from coopmap.evaluation.data import EvaluationData
from coopmap.evaluation.match_pictures import MatchPicture
from coopmap.evaluation.pictures import inline, top_down, view_uri
from coopmap.evaluation.records import SampleRecord
from coopmap.evaluation.summary import STREETS, Conditions
from coopmap.evaluation.tables import (
    abstaining_table,
    breakdown_tables,
    figure_tables,
    methods_table,
    overall_table,
    probe_tables,
    success_table,
)
from coopmap.geometry.rig import SLOTS
from coopmap.report.numbers import error_size, percent
from coopmap.report.pages import write_page
from coopmap.training.scenes import view_image
from coopmap.types import Sample

SHOWN_SAMPLES = 4
"""Number of the worst, and of the best."""
MAX_AGENTS = 8
"""Of a sample, whose views are shown."""
PANORAMA_WIDTH, CAMERA_WIDTH = 560, 280
"""Of pictures of views, pixels."""
ORIGIN_LABELS = {
    "checkpoint": "checkpoint",
    "weights": "weights",
    "step": "optimizer steps",
    "num_parameters": "parameters",
    "sha256": "SHA-256",
    "revision": "revision",
    "license": "license",
    "git_revision": "code revision",
    "trained_with": "trained with",
    "left_out": "parts of the weights left out",
    "started_from_source": "training started from",
    "started_from_revision": "of revision",
    "started_from_license": "of license",
    "overrides": "changed keys",
}


def write_report(
    file: Path,
    name: str,
    records: Sequence[SampleRecord],
    summary: Mapping[str, Any],
    conditions: Conditions,
    data: EvaluationData,
    matches: Sequence[MatchPicture] = (),
) -> None:
    """Write the page.

    Args:
        file: to write.
        name: of what was measured.
        records: of all samples.
        summary: of these.
        conditions: of the measurement.
        data: where samples can be read again for pictures.
        matches: pictures of pairs, of a model that matches.
    """
    has_pairs = any(record.pairs["i"] for record in records)
    samples = _sample_groups(records, data)
    write_page(
        file,
        "evaluation.html",
        title=f"Evaluation: {name}",
        name=name,
        images_only=summary["inputs"] == "images",
        inputs="images only" if summary["inputs"] == "images" else summary["inputs"],
        facts=_facts(summary, conditions),
        unreadable=conditions.unreadable,
        has_figures=has_pairs or bool(samples),
        methods=methods_table(summary, "Where the agents are, unaligned"),
        successes=success_table(summary),
        distribution=error_distribution(records) if has_pairs else None,
        circumstances=_circumstances(summary["breakdown"]) if has_pairs else [],
        overall=overall_table(summary) if has_pairs else None,
        kinds=breakdown_tables(summary) if has_pairs else [],
        confidence=confidence_charts(summary["confidence"]) if summary["confidence"] else None,
        calibration=summary["confidence"],
        abstaining=abstaining_table(summary),
        probes=probe_tables(summary),
        matches=[(picture.title, inline(picture.image)) for picture in matches],
        sample_groups=samples,
        is_refined="refined" in summary["methods"],
        all_figures=figure_tables(summary["figures"]),
    )


def _facts(summary: Mapping[str, Any], conditions: Conditions) -> dict[str, Any]:
    frames = conditions.frames
    asked, usable = conditions.num_requested, conditions.num_available
    rest = f" (the split has {usable})" if usable > asked else ""
    if conditions.num_too_few:
        few = f"fewer than data.min_agents={conditions.min_agents} agents are in range"
        rest += f"; in {conditions.num_too_few} more {few}"
    return {
        "measured on": (
            f"split {summary['split']}" if frames is None else f"{frames.name} ({frames.file}, {frames.sha256[:12]})"
        ),
        "samples": f"{summary['samples']} of {asked}{rest}",
        "pairs of agents": summary["pairs"],
        "inputs asked for": summary["inputs_asked_for"],
        **{label: summary[key] for key, label in ORIGIN_LABELS.items() if summary.get(key) not in (None, [], "")},
    }


def _circumstances(breakdown: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[go.Figure]:
    """Errors by properties of the pair; and by kind of street where there are several."""
    streets = {title: rows for title, rows in breakdown.items() if title in STREETS.values()}
    of_pairs = {title: rows for title, rows in breakdown.items() if title not in streets}
    return [error_by_circumstance(rows) for rows in (of_pairs, streets) if rows]


def _sample_groups(records: Sequence[SampleRecord], data: EvaluationData) -> dict[str, list[dict[str, Any]]]:
    """Samples to show, the worst and the best."""
    ranked = sorted(
        (record for record in records if record.figures["trans_m"] == record.figures["trans_m"]),
        key=lambda record: record.figures["trans_m"],
        reverse=True,
    )
    groups = {"All samples, the worst first": ranked}
    if len(ranked) > 2 * SHOWN_SAMPLES:
        groups = {"Worst samples": ranked[:SHOWN_SAMPLES], "Best samples": ranked[::-1][:SHOWN_SAMPLES]}
    return {title: [_sample(record, data) for record in chosen] for title, chosen in groups.items() if chosen}


def _sample(record: SampleRecord, data: EvaluationData) -> dict[str, Any]:
    """What the template shows of a sample."""
    read = data.read_again(record.meta)
    figures = record.figures
    return {
        "map": top_down(record.poses, record.agents),
        "scenario": record.meta.scenario,
        "frame": record.meta.frame,
        "views": _views(read)[:MAX_AGENTS] if isinstance(read, Sample) else [],
        "more": max(len(record.agents) - MAX_AGENTS, 0) if isinstance(read, Sample) else 0,
        "trans_m": error_size(figures["trans_m"]),
        "rot_deg": error_size(figures["rot_deg"]),
        "refined_trans_m": error_size(figures["refined_trans_m"]) if "refined_trans_m" in figures else None,
        "covisibility": percent(figures["covisibility"]),
    }


def _views(sample: Sample) -> list[list[tuple[str, str]]]:
    """Of each agent, what its views of the sample's own tick are called and show; numbers are those of the map."""
    observation = sample.observation.map(lambda values: values[None])
    slots, names = observation.slot, sample.meta.agents
    found = []
    for number, agent in enumerate(dict.fromkeys(names)):
        title, first = f"{number}: agent {agent}", names.index(agent)
        if slots is None:
            found.append([(title, view_uri(view_image(observation, first), PANORAMA_WIDTH))])
            continue
        found.append([
            (f"{title}, {SLOTS[int(slots[0, view])]}", view_uri(view_image(observation, view), CAMERA_WIDTH))
            for view in range(first, first + names.count(agent))
        ])  # fmt: skip
    return found
