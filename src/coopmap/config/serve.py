"""Options of the server of reports."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from coopmap.config.checks import ConfigError, require


@dataclass
class ServeConfig:
    """Keys of ``coopmap serve``.

    Attributes:
        folder: what to serve: a run, a folder of runs, any folder with reports.
        port: on this machine; 0: any that is free.
    """

    folder: list[str] = field(default_factory=list)
    port: int = 8000

    def __post_init__(self) -> None:
        if len(self.folder) != 1:
            raise ConfigError("give one folder, as in coopmap serve runs")
        if not Path(self.folder[0]).expanduser().is_dir():
            raise ConfigError(f"folder={self.folder[0]}: there is no such folder")
        require(0 <= self.port < 65536, "port", self.port, "0 to 65535")
