"""Groups of runs that differ only in their seed, and their combined metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from coopmap.config import ConfigError
from coopmap.report.numbers import Spread
from coopmap.runs.reader import Run
from coopmap.runs.resume import VOLATILE_KEYS

NEUTRAL_KEYS = (*VOLATILE_KEYS, "seed", "data.cache_dir", "data.cache_root", "data.keep_in_memory")
"""Settings that do not make another experiment."""

MAX_SHOWN_SETTINGS = 3


@dataclass(frozen=True)
class Group:
    """Runs of one experiment.

    Attributes:
        label: name in tables and curves.
        runs: in order of their seeds.
    """

    label: str
    runs: tuple[Run, ...]

    def spread(self, read: Callable[[Run], float | None]) -> Spread | None:
        """Values of the runs that have one; ``None`` if there is none."""
        values = tuple(value for run in self.runs if (value := read(run)) is not None)
        return Spread(values) if values else None


def group_runs(runs: Sequence[Run], by: Sequence[str] = ()) -> list[Group]:
    """Group runs.

    Args:
        runs: with at least one validation each.
        by: keys of the configuration: runs in which these are equal make a group. None: all keys but
            :data:`NEUTRAL_KEYS`.

    Raises:
        ConfigError: a key of ``by`` is in no configuration.
    """
    for key in by:
        if not any(key in run.settings for run in runs):
            raise ConfigError(f"by={key}: no run has such a key in its config.yaml")
    members: dict[tuple[Any, ...], list[Run]] = {}
    keys = by or _telling_keys(runs)
    for run in sorted(runs, key=lambda run: (run.experiment, str(run.path))):
        members.setdefault(tuple(_hashable(run.settings.get(key)) for key in keys), []).append(run)
    groups = [sorted(group, key=lambda run: (str(run.seed), str(run.path))) for group in members.values()]
    labels = _labels([group[0] for group in groups], by)
    return [Group(label, tuple(group)) for label, group in zip(labels, groups, strict=True)]


def _telling_keys(runs: Iterable[Run]) -> list[str]:
    keys = {key for run in runs for key in run.settings}
    return sorted(key for key in keys if not any(key == name or key.startswith(name + ".") for name in NEUTRAL_KEYS))


def differing_keys(runs: Sequence[Run]) -> list[str]:
    """Settings in which the runs differ, the neutral ones left out."""
    return [key for key in _telling_keys(runs) if len({_hashable(run.settings.get(key)) for run in runs}) > 1]


def in_sections(runs: Sequence[Run], keys: Iterable[str]) -> list[str]:
    """Differing keys, with a whole section for those that some run has no section for.

    A run without synthetic data has ``data.town: null``; that another has some is one difference, not thirty. Keys of
    the section stay where they differ between the runs that have it.
    """
    found: dict[str, None] = {}
    for key in keys:
        parts = key.split(".")
        sections = [".".join(parts[:count]) for count in range(1, len(parts))]
        section = next((each for each in sections if not all(_has_section(run, each) for run in runs)), None)
        if section is not None:
            found[section] = None
            having = [run for run in runs if _has_section(run, section)]
        if section is None or len({_hashable(run.settings.get(key)) for run in having}) > 1:
            found[key] = None
    return list(found)


def setting(run: Run, key: str) -> str:
    """A value in words; runs of older versions of the program have not recorded newer keys."""
    if _has_section(run, key):
        return "set"
    return _text(run.settings[key]) if key in run.settings else "not recorded"


def _has_section(run: Run, name: str) -> bool:
    return any(key.startswith(f"{name}.") for key in run.settings)


def _hashable(value: Any) -> Any:
    return repr(value) if isinstance(value, list | dict) else value


def _labels(firsts: Sequence[Run], by: Sequence[str]) -> list[str]:
    """Names of groups, each once: the experiment, and the settings that distinguish it from others of that name."""
    labels: list[str] = []
    for run in firsts:
        others = [other for other in firsts if other.experiment == run.experiment]
        keys = [key for key in by or in_sections(others, differing_keys(others)) if key != "experiment"]
        shown = [_with_value(run, key) for key in keys[: None if by else MAX_SHOWN_SETTINGS]]
        if len(keys) > len(shown):
            shown.append(f"{len(keys) - len(shown)} more")
        settings = ", ".join(shown)
        label = f"{run.experiment} ({settings})" if shown else run.experiment
        if by and "experiment" not in by:
            label = settings
        same = labels.count(label) + sum(existing.startswith(f"{label} #") for existing in labels)
        labels.append(f"{label} #{same + 1}" if same else label)
    return labels


def _with_value(run: Run, key: str) -> str:
    value = setting(run, key)
    return f"{key}={value}" if key in run.settings else f"{key} {value}"


def _text(value: Any) -> str:
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)
