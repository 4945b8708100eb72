"""What a dashboard shows, in order; the page and the W&B workspace have the same panels."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace

from coopmap.runs.summary import HEADLINES

MAIN = "val/pose_trans_avg"
ALL = "all"
"""What the curve is called that sums up the others of its panel."""
SUCCESSES = {f"pairs within {meters} m and 5° (share)": f"val/recall_{meters}m_5deg" for meters in (1, 2, 3)}
"""Metrics by the title of their panel."""
GPS_OF = {
    "val/trans_m_mean": ("trans_m", "mean"),
    "val/trans_m_median": ("trans_m", "median"),
    "val/rot_deg_mean": ("rot_deg", "mean"),
    "val/rot_deg_median": ("rot_deg", "median"),
}
"""Error and statistic of an evaluation's methods that a metric compares with. ``pose_trans_avg`` has none: its
translations are divided by the distances of the model's own points, which GPS does not have."""


@dataclass(frozen=True)
class Panel:
    """A plot over optimizer steps.

    Attributes:
        title: of its vertical axis.
        keys: metrics, by what they are called where there are several; the first is drawn solid.
        baseline: the same metric of the training mean.
        is_log: logarithmic axis.
    """

    title: str
    keys: dict[str, str]
    baseline: str | None = None
    is_log: bool = False


@dataclass(frozen=True)
class Section:
    """Panels that belong together."""

    title: str
    lead: str
    panels: list[Panel] = field(default_factory=list)


def sections(known: Collection[str]) -> list[Section]:
    """All sections and panels that have at least one known metric.

    Args:
        known: names of logged metrics.
    """
    found = []
    for section in _all_sections(known):
        panels = [
            replace(
                panel,
                keys={name: key for name, key in panel.keys.items() if key in known},
                baseline=panel.baseline if panel.baseline in known else None,
            )
            for panel in section.panels
        ]
        if panels := [panel for panel in panels if panel.keys]:
            found.append(replace(section, panels=panels))
    return found


def _all_sections(known: Collection[str]) -> Iterator[Section]:
    headlines = [Panel(label, {"validation": name}, baseline) for label, name, baseline in HEADLINES]
    yield Section(
        "Is it learning?",
        "The metric that checkpoints are chosen by. It is normalized and weighted, not in meters.",
        [panel for panel in headlines if MAIN in panel.keys.values()],
    )
    success = [Panel(label, {"validation": name}) for label, name in SUCCESSES.items()]
    yield Section(
        "Meters and degrees",
        "Relative poses of all pairs of agents, unaligned.",
        [*(panel for panel in headlines if MAIN not in panel.keys.values()), *success],
    )
    yield Section(
        "Scale, depth and masks",
        "A predicted mask that falls below 0.05 means that the mask, or training as a whole, has failed.",
        [
            Panel("mean of the mask", {"predicted": "val/mask_pred_mean", "true": "val/mask_true_mean"}),
            Panel("scale, predicted / true", {"median": "val/scale_ratio_median"}),
            Panel("depth error, relative", {"validation": "val/depth_abs_rel"}),
        ],
    )
    yield Section(
        "Losses by term",
        "As weighted in the objective.",
        [Panel(term, {"training": f"train/{term}", "validation": f"val/{term}"}) for term in loss_terms(known)],
    )
    yield Section(
        "Throughput",
        "Waiting for data is part of the time per step.",
        [
            Panel("time (s)", {"step": "time/step_s", "waiting for data": "time/data_s"}),
            Panel("samples per second", {"training": "time/samples_per_s"}),
        ],
    )
    parts = sorted(name for name in known if name.startswith(("lr/", "grad_norm/")))
    rates, norms = ([name for name in parts if name.startswith(prefix)] for prefix in ("lr/", "grad_norm/"))
    yield Section(
        "System and optimizer",
        "",
        [
            Panel("memory, peak (GB)", {"device": "memory/device_gb", "host": "memory/host_gb"}),
            Panel("memory of loader processes (GB)", {"now": "memory/loaders_gb"}),
            Panel("learning rate", {_part(name): name for name in rates}, is_log=True),
            Panel(
                "norm of the gradient", {**{_part(name): name for name in norms}, ALL: "train/grad_norm"}, is_log=True
            ),
        ],
    )


def loss_terms(known: Collection[str]) -> list[str]:
    """Terms of the objective that were logged, the sum first, without their parts by view and by rank of error."""
    terms = [name.removeprefix("train/") for name in known if name.startswith("train/")]
    terms = [term for term in terms if (term.endswith("_avg") or term in ("loss", "scale")) and "%" not in term]
    return sorted(terms, key=lambda term: (term != "loss", not term.startswith("pose"), term))


def _part(name: str) -> str:
    return name.partition("/")[2]
