"""What limits a fair comparison, in words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from coopmap.runs.groups import Group, differing_keys, in_sections, setting
from coopmap.runs.reader import SECONDS, STEPS, Run

DATASET_KEYS = (
    "data.root",
    "data.depth_root",
    "data.town",
    "data.include_rsu",
    "data.communication_range_m",
    "data.min_agents",
    "data.max_agents",
    "data.max_val_frames",
)
"""Settings that decide which frames and agents a run is trained and measured on."""

OBJECTIVE_KEYS = ("loss.weights.pose_trans", "loss.pose_terms", "loss.pairs", "loss.convert_to_view0")
"""Settings that ``val/pose_trans_avg`` depends on; the shape of the robust loss is the published one in evaluation."""

PIXELS = dict.fromkeys(("panorama", "grouped", "warped"), "panoramas") | {
    "cameras": "single cameras",
    "mosaic": "cameras side by side",
}
"""What ``data.layout`` makes of a view, as far as measures per pixel go."""

MAX_NAMED = 2


def caveats(groups: Sequence[Group], without_figures: Sequence[str], by: Sequence[str] = ()) -> list[str]:
    """Sentences for a reader, the most serious first.

    Args:
        groups: what is compared.
        without_figures: names of runs that were left out because they have none.
        by: keys that runs were grouped by; empty if by all settings.
    """
    runs = [run for group in groups for run in group.runs]
    found = [
        *(f"{name} has no validation and is left out" for name in without_figures),
        *(f"{run.name} is unfinished: metrics up to step {run.last[STEPS]:.0f}" for run in runs if not run.is_finished),
        *_differences("last validated step", runs, lambda run: f"{run.last[STEPS]:.0f}"),
        *_datasets(runs),
        *_objectives(runs),
        *_views(runs),
        *_differences("code", runs, _revisions),
        *_differences("host", runs, _hosts, "step and wall times are not comparable"),
        *_seeds(groups),
    ]
    if by:
        found += [
            f"{group.label}: its runs also differ in {_some(keys)}"
            for group in groups
            if (keys := in_sections(group.runs, (key for key in differing_keys(group.runs) if key not in by)))
        ]
    return found + _missing(runs)


def _differences(what: str, runs: Sequence[Run], read: Callable[[Run], str], so: str = "") -> list[str]:
    """List the values that differ between runs and the runs that have them; the most common first."""
    named: dict[str, list[str]] = {}
    for run in runs:
        named.setdefault(read(run), []).append(run.name)
    if len(named) < 2:
        return []
    commonest = sorted(named.items(), key=lambda item: -len(item[1]))
    parts = [
        f"{value} in {', '.join(names) if len(names) <= MAX_NAMED else f'{len(names)} runs'}"
        for value, names in commonest
    ]
    return [f"{what} differs: {'; '.join(parts)}" + (f"; {so}" if so else "")]


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:MAX_NAMED])
    return shown if len(names) <= MAX_NAMED else f"{shown} and {len(names) - MAX_NAMED} more"


def _datasets(runs: Sequence[Run]) -> list[str]:
    keys = [
        key for key in differing_keys(runs) if any(key == name or key.startswith(name + ".") for name in DATASET_KEYS)
    ]
    return [line for key in in_sections(runs, keys) for line in _differences(f"dataset ({key})", runs, _setting(key))]


def differing_objective(runs: Sequence[Run]) -> list[str]:
    """Settings that differ and thereby change the unit of ``val/pose_trans_avg``, a term of the objective."""
    return [key for key in differing_keys(runs) if key in OBJECTIVE_KEYS]


def _objectives(runs: Sequence[Run]) -> list[str]:
    if not (keys := differing_objective(runs)):
        return []
    return [f"objective differs ({_some(keys)}): pose_trans_avg is not comparable, meters and degrees are"]


def _views(runs: Sequence[Run]) -> list[str]:
    """Fusion inside the model is supervised by the panorama, whatever the layout of its images."""
    so = "measures per pixel are of other pixels, those of poses compare"
    layout = _setting("data.layout")
    return _differences("what a view shows", runs, lambda run: PIXELS.get(layout(run), "panoramas"), so)


def _setting(key: str) -> Callable[[Run], str]:
    return lambda run: setting(run, key)


def _revisions(run: Run) -> str:
    """Revisions of all starts, in short."""
    texts = [
        f"revision {start['git_revision'][:8]}{' with uncommitted changes' if start.get('git_dirty') else ''}"
        for start in run.starts
        if start.get("git_revision")
    ]
    return ", then ".join(dict.fromkeys(texts)) or "unknown revision"


def _hosts(run: Run) -> str:
    return ", then ".join(dict.fromkeys(str(start.get("host")) for start in run.starts)) or "unknown"


def _seeds(groups: Sequence[Group]) -> list[str]:
    found = []
    seeds: dict[tuple[Any, ...], list[str]] = {}
    for group in groups:
        own = [run.seed for run in group.runs]
        if twice := sorted({str(seed) for seed in own if own.count(seed) > 1}):
            found.append(
                f"{group.label}: several runs of seed {', '.join(twice)}; these are not independent repetitions"
            )
        seeds.setdefault(tuple(dict.fromkeys(own)), []).append(group.label)
    if len(seeds) > 1:
        parts = [f"{', '.join(map(str, own))} ({_some(labels)})" for own, labels in seeds.items()]
        found.append(f"seeds differ: {'; '.join(parts)}")
    if groups and all(len(group.runs) == 1 for group in groups):
        found.append("one run each: whether a difference is chance cannot be told")
    return found


def _missing(runs: Sequence[Run]) -> list[str]:
    checks: tuple[tuple[str, Callable[[Run], Any]], ...] = (
        ("no validation before the first step (callbacks.validate_at_start)", lambda run: run.zero_shot),
        ("no model.json, so that parameters, tokens, FLOPs and memory are not known", lambda run: run.facts),
        ("no wall time for the validations", lambda run: SECONDS in run.last),
    )
    found = []
    for text, read in checks:
        if names := [run.name for run in runs if not read(run)]:
            found.append(f"{_some(names)}: {text}")
    return found
