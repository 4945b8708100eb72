"""From how far off ICP on LiDAR sweeps finds back: error and basin of convergence (``coopmap bench icp``)."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from coopmap.config.checks import ConfigError
from coopmap.config.icp import IcpStudyConfig
from coopmap.data.opv2v import DataError, read_agent
from coopmap.data.opv2v.pcd import read_sweep
from coopmap.evaluation import icp
from coopmap.evaluation.noise import Level
from coopmap.geometry.se3_numpy import relative_pose, rotation_angle
from coopmap.report.files import write_text
from coopmap.report.numbers import percent
from coopmap.report.tables import Column, Row, Section, Table, names
from coopmap.report.terminal import print_table

RIGHT_M, RIGHT_DEG = 0.5, 1.0
COLUMNS = [
    names("off by (m, deg)"),
    Column("starts"),
    Column("answered", form=percent),
    Column("right", form=percent),
    Column("median", "m", group="error of the answers"),
    Column("median", "deg", group="error of the answers"),
    Column("largest", "m", group="error of the answers"),
]


@dataclass(frozen=True)
class Outcome:
    """Registrations of all pairs from all starts of a level.

    Attributes:
        level: how far off the starts are: exactly, in every direction.
        trans_m, rot_deg: errors, NaN where the registration was discarded.
        distance_m: between the two agents.
    """

    level: Level
    trans_m: Float[np.ndarray, " n"]
    rot_deg: Float[np.ndarray, " n"]
    distance_m: Float[np.ndarray, " n"]

    def row(self, label: str, chosen: Float[np.ndarray, " n"] | None = None) -> Row:
        """Its row in a table, of some registrations."""
        chosen = np.ones(len(self.trans_m), bool) if chosen is None else chosen
        trans_m, rot_deg = self.trans_m[chosen], self.rot_deg[chosen]
        known = np.isfinite(trans_m)
        right = (trans_m < RIGHT_M) & (rot_deg < RIGHT_DEG)
        errors: list[float | None] = [None] * 3
        if known.any():
            errors = [float(np.median(trans_m[known])), float(np.median(rot_deg[known])), float(trans_m[known].max())]
        return Row([label, len(trans_m), float(known.mean()), float(right.mean()), *errors])


def measure(
    sweeps: Sequence[tuple[Any, Any]], poses: Float[np.ndarray, "n 4 4"], level: Level, directions: int
) -> Outcome:
    """Register all pairs of sweeps from true poses that are off by a level.

    Args:
        sweeps: prepared, see :func:`~coopmap.evaluation.icp.prepare_sweep`.
        poses: true ``T_world_agent``.
        level: how far off.
        directions: number of starts.
    """
    errors = []
    for i, j in itertools.combinations(range(len(sweeps)), 2):
        true = relative_pose(poses[i], poses[j])
        for off in _offsets(level, directions):
            found = icp.register_pair(sweeps[i], sweeps[j][0], true @ off)
            left = np.full((4, 4), np.nan) if found is None else relative_pose(true, found[0])
            turned = np.rad2deg(rotation_angle(left[:3, :3]))
            errors.append((np.linalg.norm(left[:3, 3]), turned, np.linalg.norm(true[:3, 3])))
    return Outcome(level, *np.array(errors).T)


def _offsets(level: Level, directions: int) -> Iterator[Float[np.ndarray, "4 4"]]:
    """Horizontal shifts all around, with turns to either side in turn."""
    for number in range(directions if level.trans_m or level.rot_deg else 1):
        around = 2 * math.pi * (number + 0.5) / directions
        turn = math.radians(level.rot_deg) * (-1) ** number
        cosine, sine = math.cos(turn), math.sin(turn)
        x, z = level.trans_m * math.sin(around), level.trans_m * math.cos(around)
        yield np.array([[cosine, 0, sine, x], [0, 1, 0, 0], [-sine, 0, cosine, z], [0, 0, 0, 1.0]])


def read_tick(folder: Path) -> tuple[list[np.ndarray], Float[np.ndarray, "n 4 4"]]:
    """Sweeps and poses of the agents of one tick: files ``NAME.yaml`` with ``NAME.pcd`` or ``NAME_lidar.pcd``.

    Raises:
        ConfigError: there are fewer than two, or one cannot be read.
    """
    sweeps, poses = [], []
    for file in sorted(folder.glob("*.yaml")):
        clouds = [
            path for path in (file.with_suffix(".pcd"), file.with_name(f"{file.stem}_lidar.pcd")) if path.exists()
        ]
        if clouds:
            try:
                poses.append(read_agent(file, with_vehicles=False).pose)
                sweeps.append(read_sweep(clouds[0]))
            except DataError as error:
                raise ConfigError(f"tick={folder}: {error}") from None
    if len(sweeps) < 2:
        raise ConfigError(f"tick={folder}: expected at least two NAME.yaml, each with NAME.pcd or NAME_lidar.pcd")
    return sweeps, np.stack(poses)


def benchmark(asked: IcpStudyConfig, say: Callable[[str], None] = print) -> list[Table]:
    """Measure all levels; ``say`` receives progress messages.

    Raises:
        ConfigError: a level or the folder cannot be read, or small_gicp is not installed.
    """
    if not icp.is_available():
        raise ConfigError(f"small_gicp is {icp.INSTALL_HINT}")
    levels = [Level.parse(text) for text in asked.levels]
    sweeps, poses = read_tick(Path(asked.tick).expanduser())
    prepared = [icp.prepare_sweep(sweep) for sweep in sweeps]
    started = time.process_time()
    outcomes = []
    for level in levels:
        outcomes.append(measure(prepared, poses, level, asked.directions))
        say(f"off by {level}: {percent(float(np.isfinite(outcomes[-1].trans_m).mean()))} answered")
    count = sum(len(outcome.trans_m) for outcome in outcomes)
    seconds = (time.process_time() - started) / count
    note = (
        f"{len(sweeps)} agents. Starts are off by exactly so much, in {asked.directions} directions around. Right: "
        f"within {RIGHT_M:g} m and {RIGHT_DEG:g} deg. Answered: registrations that are not discarded as "
        f"implausible (ended over {icp.LARGEST_CORRECTION_M:g} m or {icp.LARGEST_CORRECTION_DEG:g} deg from their "
        f"start, or match less than {icp.MIN_OVERLAP:.0%}). {seconds:.2f} s of one core each."
    )
    everything = Table(
        "ICP by how far off it starts", COLUMNS, [Section([each.row(str(each.level)) for each in outcomes])], note
    )
    nearest = outcomes[0]
    pairs = [nearest.row(f"{low:.0f} m", nearest.distance_m == low) for low in np.unique(nearest.distance_m)]
    label = [names(f"distance, off by {nearest.level}"), *COLUMNS[1:]]
    return [everything, Table("ICP by distance of the pair", label, [Section(pairs)])]


def main(asked: IcpStudyConfig) -> None:
    """Command line."""
    tables = benchmark(asked)
    for table in tables:
        print_table(table)
    if asked.output is not None:
        file = Path(asked.output)
        write_text("\n".join(table.markdown() for table in tables), file)
        print(f"written to {file}")
