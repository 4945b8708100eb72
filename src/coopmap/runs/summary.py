"""Summary of a run: metrics, table, curves."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from coopmap.report.tables import Column, Table, names
from coopmap.report.terminal import print_table

log = logging.getLogger(__name__)

HEADLINES = (
    ("pose_trans_avg", "val/pose_trans_avg", None),
    ("translation error, mean (m)", "val/trans_m_mean", "val/baseline_trans_m_mean"),
    ("translation error, median (m)", "val/trans_m_median", "val/baseline_trans_m_median"),
    ("rotation error, mean (deg)", "val/rot_deg_mean", "val/baseline_rot_deg_mean"),
    ("rotation error, median (deg)", "val/rot_deg_median", "val/baseline_rot_deg_median"),
    ("co-visible pairs: translation, median (m)", "val/covisible_trans_m_median", None),
    ("co-visible pairs: rotation, median (deg)", "val/covisible_rot_deg_median", None),
)
"""Label, name of the metric, name of the same metric of the training-mean baseline."""
WHEN_WORSE = "lower optim.lr, train longer, or freeze parts with optim.lr_of"
"""What helps a run that makes its model worse."""


def summarize(entries: Sequence[Mapping[str, float]], best: Mapping[str, float]) -> dict[str, Any]:
    """First, last and best of the headline metrics, and all metrics of these three validations."""
    if not entries:
        return {}
    first, last = dict(entries[0]), dict(entries[-1])
    headline = {}
    for _, name, baseline in HEADLINES:
        key = name.removeprefix("val/")
        headline[key] = {"first": first.get(name), "last": last.get(name), "best": best.get(name)}
        if baseline is not None:
            headline[key]["training_mean"] = last.get(baseline)
    return {**headline, "validations": {"first": first, "last": last, "best": dict(best)}}


def print_summary(summary: Mapping[str, Any], title: str) -> None:
    """A table of :func:`summarize`."""
    stages = ("first", "last", "best", "training mean")
    columns = [names("validation"), *(Column(stage, key=stage.replace(" ", "_")) for stage in stages)]
    records = [{"validation": label, **summary.get(name.removeprefix("val/"), {})} for label, name, _ in HEADLINES]
    print_table(Table.of_records(title, columns, records))


def warn_if_worse_than_at_first(summary: Mapping[str, Any]) -> None:
    """Warn if training made the model worse than before the first step."""
    figures = summary.get("pose_trans_avg", {})
    first, best = figures.get("first"), figures.get("best")
    if first is not None and best is not None and best > first:
        log.warning(
            "validation pose_trans_avg was %.4g before training and never better than %.4g after: %s",
            first,
            best,
            WHEN_WORSE,
        )
