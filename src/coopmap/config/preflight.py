"""What is tried out before a run begins."""

from __future__ import annotations

import re
from dataclasses import dataclass

from coopmap.config.checks import ConfigError

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass
class PreflightConfig:
    """What is tried out before a run begins, in a few steps that leave no trace in it.

    Attributes:
        enabled: whether it is; ``false`` starts at once.
        wait_for_memory: how long to wait for memory that others hold on the GPUs: ``2h``, ``30m``, ``90s``, ``1d``;
            null = not at all.
    """

    enabled: bool = True
    wait_for_memory: str | None = None

    def __post_init__(self) -> None:
        if self.wait_for_memory is not None:
            seconds_of("preflight.wait_for_memory", self.wait_for_memory)


def seconds_of(key: str, text: str) -> float:
    """Seconds that a text such as ``2h`` or ``1h30m`` stands for.

    Raises:
        ConfigError: it stands for none.
    """
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhd])", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ConfigError(f"{key}={text}: expected a time such as 2h, 30m, 90s or 1h30m")
    return sum(float(number) * SECONDS[unit] for number, unit in parts)
