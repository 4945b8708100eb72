"""Options of a comparison."""

from __future__ import annotations

from dataclasses import dataclass, field

from coopmap.config.checks import ConfigError


@dataclass
class CompareConfig:
    """Keys of ``coopmap compare``.

    Attributes:
        runs: run folders, folders that hold runs, patterns such as ``'runs/fusion_*'``, names of runs, or latest.
        output: folder to write into; null: comparison, in the folder that holds all the runs.
        by: group runs that are equal in these keys, whatever else differs, as in ``by=experiment``; by default, runs
            that differ only in their seed.
        runs_root: folder in which runs are looked up by name.
    """

    runs: list[str] = field(default_factory=list)
    output: str | None = None
    by: list[str] = field(default_factory=list)
    runs_root: str = "runs"

    def __post_init__(self) -> None:
        if not self.runs:
            raise ConfigError("name at least one run, or a folder that holds runs")
