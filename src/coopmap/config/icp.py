"""Options of the study of ICP."""

from __future__ import annotations

from dataclasses import dataclass, field

from coopmap.config.checks import require

ICP_LEVELS = (
    *("0/0", "0.5/0", "1/0", "2/0", "3/0", "4/0", "5/0", "6/0", "8/0", "10/0"),
    *("0/1", "0/2", "0/5", "0/10", "1/1", "2/2", "5/5", "10/10"),
)


@dataclass
class IcpStudyConfig:
    """Keys of ``coopmap bench icp``.

    Attributes:
        tick: folder with the metadata and LiDAR sweeps of the agents of one tick, NAME.yaml and NAME.pcd or
            NAME_lidar.pcd.
        levels: how far off registration starts as meters/degrees, as in ``levels=1/0,2/4``.
        directions: number of starts per pair of agents and level.
        output: Markdown file for the tables.
    """

    tick: str
    levels: list[str] = field(default_factory=lambda: list(ICP_LEVELS))
    directions: int = 4
    output: str | None = None

    def __post_init__(self) -> None:
        require(self.directions > 0, "directions", self.directions, "at least 1")
        require(bool(self.levels), "levels", self.levels, "meters/degrees, as in levels=1/0,2/4")
