"""The report: one self-contained page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from coopmap.evaluation.charts import as_html, error_by_circumstance, error_distribution
from coopmap.evaluation.data import EvaluationData
from coopmap.evaluation.pictures import panorama_uri, top_down
from coopmap.evaluation.records import METHODS, PAIR_ERRORS, SampleRecord
from coopmap.evaluation.statistics import STATISTICS
from coopmap.evaluation.style import STYLE
from coopmap.evaluation.summary import Conditions
from coopmap.evaluation.tables import number
from coopmap.metrics.pose import RECALLS_M_DEG
from coopmap.types import Sample

SHOWN_SAMPLES = 4
"""Of the worst, and of the best."""
MAX_VIEWS = 8
ALIGNED = ("_se3", "_sim3")
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
) -> None:
    """Write the page, by way of a temporary file.

    Args:
        file: to write.
        name: of what was measured.
        records: of all samples.
        summary: of these.
        conditions: of the measurement.
        data: where samples can be read again for pictures.
    """
    parts = [_header(name, summary, conditions), _comparison(summary)]
    if any(record.pairs["i"] for record in records):
        parts += [
            _section(
                "How the errors are distributed",
                "Share of pairs of agents whose error is at most what the axis says; unaligned.",
                as_html(error_distribution(records), with_library=True),
            ),
            _section(
                "Where the model is right and wrong",
                "Errors of the model by the true distance of a pair, by the number of agents in the sample, and by "
                "how much of what one agent sees the other sees too. n: number of pairs.",
                as_html(error_by_circumstance(summary["breakdown"]), with_library=False),
            ),
        ]
    parts += [*_samples(records, data), _all_figures(summary["figures"])]
    title = escape(f"Evaluation: {name}")
    page = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head>'
        f"<body><main>{''.join(parts)}</main></body></html>\n"
    )
    temporary = file.with_suffix(".tmp")
    temporary.write_text(page, encoding="utf-8")
    temporary.replace(file)


def _section(title: str, lead: str, content: str) -> str:
    return f"<section><h2>{escape(title)}</h2><p class='lead'>{escape(lead)}</p>{content}</section>"


def _header(name: str, summary: Mapping[str, Any], conditions: Conditions) -> str:
    images_only = summary["inputs"] == "images"
    badge = "images only" if images_only else summary["inputs"]
    frames = conditions.frames
    asked, usable = conditions.num_requested, conditions.num_available
    rest = f" (the split has {usable})" if usable > asked else ""
    facts = {
        "measured on": (
            f"split {summary['split']}" if frames is None else f"{frames.name} ({frames.file}, {frames.sha256[:12]})"
        ),
        "samples": f"{summary['samples']} of {asked}{rest}",
        "pairs of agents": summary["pairs"],
        "inputs asked for": summary["inputs_asked_for"],
        **{label: summary[key] for key, label in ORIGIN_LABELS.items() if summary.get(key) not in (None, [], "")},
    }
    cells = "".join(f"<div><dt>{escape(label)}</dt><dd>{_value(value)}</dd></div>" for label, value in facts.items())
    return (
        f"<header><p class='kind'>coopmap evaluation</p><h1>{escape(name)}</h1>"
        f"<p>The model received: <span class='badge {'plain' if images_only else 'priors'}'>{escape(badge)}</span></p>"
        f"<dl>{cells}</dl>{_unreadable(conditions.unreadable)}</header>"
    )


def _value(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(f"<code>{escape(str(item))}</code>" for item in value)
    text = f"{value:,}".replace(",", "&#8239;") if isinstance(value, int) else escape(str(value))
    return f"<code>{text}</code>" if len(text) > 40 else text


def _unreadable(files: Sequence[str]) -> str:
    if not files:
        return ""
    items = "".join(f"<li><code>{escape(line)}</code></li>" for line in files[:20])
    more = f"<li>and {len(files) - 20} more</li>" if len(files) > 20 else ""
    return f"<div class='warning'><b>{len(files)} unreadable</b>, not among the samples:<ul>{items}{more}</ul></div>"


def _comparison(summary: Mapping[str, Any]) -> str:
    limits = "".join(f"<th>{meters} m, {degrees}&deg;</th>" for meters, degrees in RECALLS_M_DEG)
    head = (
        "<tr><th rowspan=2></th><th colspan=3 class='group'>translation error (m)</th>"
        f"<th colspan=3 class='group'>rotation error (deg)</th><th colspan={len(RECALLS_M_DEG)} class='group'>"
        f"share of pairs within</th></tr><tr>{'<th>mean</th><th>median</th><th>90th&nbsp;%</th>' * 2}{limits}</tr>"
    )
    bootstrap = summary["bootstrap"]
    lead = (
        "Relative poses of all pairs of agents as they are: in meters and degrees, nothing aligned or scaled to the "
        f"truth. Below each value its {bootstrap['level']:.0%} bootstrap interval ({bootstrap['resamples']} resamples "
        f"of whole {bootstrap['drawn']})."
    )
    rows = [_method_row(method, label, summary) for method, label in METHODS.items()]
    rows += [_published_row(line) for line in summary["published"]]
    conditions = summary.get("published_conditions")
    note = f"<p class='note'>Published figures: {escape(conditions)}.</p>" if conditions else ""
    table = (
        f"<div class='scroll'><table class='methods'><thead>{head}</thead><tbody>{''.join(rows)}</tbody></table></div>"
    )
    return _section("Where the agents are, unaligned", lead, table + note)


def _method_row(method: str, label: str, summary: Mapping[str, Any]) -> str:
    figures = summary["methods"].get(method)
    note = summary["notes"].get(method)
    if figures is None:
        cell = f"<td colspan={6 + len(RECALLS_M_DEG)}>{escape(note or '')}</td>"
        return f"<tr class='absent'><th>{escape(label)}</th>{cell}</tr>" if note else ""
    cells = [_cell(figures[name], statistic) for name in PAIR_ERRORS for statistic in STATISTICS]
    cells += [_cell(figures[f"recall_{meters}m_{degrees}deg"], "mean", share=True) for meters, degrees in RECALLS_M_DEG]
    hint = f"<small>{escape(note)}</small>" if note else ""
    return f"<tr class='{method}'><th>{escape(label)}{hint}</th>{''.join(cells)}</tr>"


def _cell(figure: Mapping[str, Any], statistic: str, share: bool = False) -> str:
    def text(value: float | None) -> str:
        return "&ndash;" if value is None else f"{value:.0%}" if share else number(value)

    bounds = figure.get(f"{statistic}_ci95")
    interval = (
        f"<small>{text(bounds[0])} &ndash; {text(bounds[1])}</small>" if bounds and bounds[0] != bounds[1] else ""
    )
    return f"<td>{text(figure[statistic])}{interval}</td>"


def _published_row(line: Mapping[str, Any]) -> str:
    rest = "<td colspan=2></td>"
    return (
        f"<tr class='published'><th>published: {escape(line['name'])}</th><td>{number(line['trans_m'])}</td>{rest}"
        f"<td>{number(line['rot_deg'])}</td>{rest}<td colspan={len(RECALLS_M_DEG)}></td></tr>"
    )


def _all_figures(figures: Mapping[str, Mapping[str, Any]]) -> str:
    aligned = [name for name in figures if any(part in name for part in ALIGNED)]
    unaligned = [name for name in figures if name not in aligned]
    content = "<h3>Unaligned</h3>" + _figure_table(figures, unaligned)
    if aligned:
        content += "<h3>After alignment to the truth (which one, the name says)</h3>" + _figure_table(figures, aligned)
    return _section(
        "All figures over samples",
        "Means over samples (the table above: over pairs). Definitions and units: docs/measures.md.",
        content,
    )


def _figure_table(figures: Mapping[str, Mapping[str, Any]], names: Iterable[str]) -> str:
    """Two columns of figures."""
    rows = [
        f"<tr><th><code>{escape(name)}</code></th>"
        f"{''.join(_cell(figures[name], statistic) for statistic in STATISTICS)}"
        f"<td>{figures[name]['count']}</td></tr>"
        for name in names
        if figures[name]["count"]
    ]
    head = "<tr><th></th><th>mean</th><th>median</th><th>90th&nbsp;%</th><th>samples</th></tr>"
    half = -(-len(rows) // 2)
    tables = (
        f"<table class='figures'><thead>{head}</thead><tbody>{''.join(part)}</tbody></table>"
        for part in (rows[:half], rows[half:])
        if part
    )
    return f"<div class='columns'>{''.join(tables)}</div>"


def _samples(records: Sequence[SampleRecord], data: EvaluationData) -> list[str]:
    ranked = sorted(
        (record for record in records if record.figures["trans_m"] == record.figures["trans_m"]),
        key=lambda record: record.figures["trans_m"],
        reverse=True,
    )
    if not ranked:
        return []
    if len(ranked) <= 2 * SHOWN_SAMPLES:
        groups = {"All samples, the worst first": ranked}
    else:
        groups = {"Worst samples": ranked[:SHOWN_SAMPLES], "Best samples": ranked[::-1][:SHOWN_SAMPLES]}
    key = (
        "Seen from above, in the frame of agent 0, which looks up the page. Black: the truth. Blue: the model, joined "
        "to the truth. Purple outlines: refined."
    )
    return [
        _section(title, key, "".join(_sample(record, data) for record in chosen)) for title, chosen in groups.items()
    ]


def _sample(record: SampleRecord, data: EvaluationData) -> str:
    read = data.read_again(record.meta)
    images = list(read.observation.images) if isinstance(read, Sample) else []
    views = "".join(
        f"<figure><img src='{panorama_uri(_single(image))}' alt='view {view}'>"
        f"<figcaption>{view}: agent {escape(agent)}</figcaption></figure>"
        for view, (image, agent) in enumerate(zip(images, record.meta.agents, strict=False))
        if view < MAX_VIEWS
    )
    figures = record.figures
    text = (
        f"<b>{number(figures['trans_m'])} m, {number(figures['rot_deg'])}&deg;</b> mean over pairs"
        + (f" &middot; refined {number(figures['refined_trans_m'])} m" if "refined_trans_m" in figures else "")
        + f" &middot; co-visibility {figures['covisibility']:.0%}"
    )
    where = f"{escape(record.meta.scenario)} / {escape(record.meta.frame)}"
    beside = f"<div class='views'><p>{where}<br>{text}</p>{views}</div>"
    return f"<article><div>{top_down(record.poses)}</div>{beside}</article>"


def _single(image: Any) -> Any:
    """One picture of a view; of fused cameras the first."""
    return image[0] if image.ndim == 4 else image
