"""What ``coopmap replay`` is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field

from coopmap.config.checks import require


@dataclass
class ReplayConfig:
    """Keys of ``coopmap replay``.

    Attributes:
        files: of skipped steps, in a run's folder ``skipped``.
    """

    files: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        require(bool(self.files), "files", self.files, "a file that a skipped step left, runs/.../skipped/step_*.pt")
