"""What probes found, as rows of figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from coopmap.evaluation.statistics import summarize


@dataclass(frozen=True)
class ProbeRow:
    """A row of a probe's table.

    Attributes:
        label: in words.
        of: columns of pairs by what they measure: ``trans_m`` and ``rot_deg`` (errors), ``confidence``,
            ``covisibility_pred`` and ``share`` (shares).
        minus: columns that are subtracted, pair by pair; where they are not finite there is no difference.
    """

    label: str
    of: Mapping[str, str]
    minus: Mapping[str, str] | None = None


ERRORS = ("trans_m", "rot_deg")
EXPECTED = ("confidence", "covisibility_pred")


def _columns(names: tuple[str, ...], prefix: str = "") -> dict[str, str]:
    return {name: prefix + name for name in names}


AS_THEY_ARE = ProbeRow("images as they are", _columns((*EXPECTED, *ERRORS)))
PROBE_ROWS: dict[str, dict[str, ProbeRow]] = {
    "other_street": {
        "as_they_are": ProbeRow("images as they are", _columns(EXPECTED)),
        "other_street": ProbeRow("the other agent in another street", _columns(EXPECTED, "other_street_")),
    },
    "alone": {
        "as_they_are": AS_THEY_ARE,
        "alone": ProbeRow("the other agent's images blank", _columns((*EXPECTED, *ERRORS), "alone_")),
        "training_mean": ProbeRow("training mean", _columns(ERRORS, "training_mean_")),
        "standing_still": ProbeRow("both agents at one place", {"trans_m": "distance_m", "rot_deg": "heading_deg"}),
        "difference": ProbeRow(
            "blank minus training mean", _columns(ERRORS, "alone_"), _columns(ERRORS, "training_mean_")
        ),
    },
    "seam": {
        "as_they_are": AS_THEY_ARE,
        "seam": ProbeRow("the others' panoramas turned by half", _columns((*EXPECTED, *ERRORS), "seam_")),
        "difference": ProbeRow("turned minus as they are", _columns(ERRORS, "seam_"), _columns(ERRORS)),
        "change": ProbeRow("how far the answer moves", {"trans_m": "seam_change_m", "rot_deg": "seam_change_deg"}),
    },
    "blind": {
        "cells": ProbeRow("cells", {"share": "blind_cells"}),
        "matches": ProbeRow("ends of confident matches", {"share": "blind_matches"}),
        "weight": ProbeRow("ends of all matches, by confidence", {"share": "blind_weight"}),
    },
    "moving": {
        "all_cells": ProbeRow("all cells", _columns(ERRORS)),
        "moving": ProbeRow("without cells on moving vehicles", _columns(ERRORS, "moving_")),
        "difference": ProbeRow("without minus all", _columns(ERRORS, "moving_"), _columns(ERRORS)),
        "cells": ProbeRow("cells left out", {"share": "moving_cells"}),
        "weight": ProbeRow("ends of matches there, by confidence", {"share": "moving_weight"}),
    },
}
"""Rows of each probe's table, by key. All are of the pairs that the probe asked about."""


def probe_summary(
    pairs: Mapping[str, Float[np.ndarray, " n"]], cluster: Int[np.ndarray, " n"], seed: int
) -> dict[str, dict[str, dict[str, Any]]]:
    """Entry of ``summary.json``: figures by probe, row and what is measured; empty without a probe.

    Args:
        pairs: columns of all pairs.
        cluster: of each pair, for intervals.
        seed: of the bootstrap.
    """
    found = {}
    for probe, rows in PROBE_ROWS.items():
        columns = [values for name, values in pairs.items() if name.startswith(f"{probe}_")]
        if columns:
            asked = (~np.isnan(columns)).any(axis=0)
            kept = {name: values[asked] for name, values in pairs.items()}
            found[probe] = {key: _figures(row, kept, cluster[asked], seed) for key, row in rows.items()}
    return found


def _figures(
    row: ProbeRow, pairs: Mapping[str, Float[np.ndarray, " n"]], cluster: Int[np.ndarray, " n"], seed: int
) -> dict[str, Any]:
    """Summaries of the columns that there are."""
    figures = {}
    for measure, name in row.of.items():
        less = None if row.minus is None else row.minus[measure]
        if name in pairs and (less is None or less in pairs):
            values = pairs[name]
            if less is not None:
                values = values - np.where(np.isfinite(pairs[less]), pairs[less], np.nan)
            figures[measure] = summarize(values, cluster, seed)
    return figures
