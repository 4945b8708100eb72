"""A whole dataset: all scenarios, in parallel.

A town is complete on disk or absent. Of streets every scenario is, so that many can be rendered bit by bit.
"""

from __future__ import annotations

import fcntl
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from coopmap.config.synth import TownConfig
from coopmap.report.progress import with_progress
from coopmap.synthetic import writer
from coopmap.synthetic.record import PARTIAL, RECORD, claim_streets, holds_metadata_alone, is_rendered, record_of
from coopmap.synthetic.render import Sensed, render_agent, sense
from coopmap.synthetic.scenario import SPLITS, TICK_S, Drive, scenario_index, street_name
from coopmap.synthetic.street import street_of
from coopmap.synthetic.workers import map_unordered, num_cores
from coopmap.synthetic.worlds import plan_drive

FrameSenses = tuple[str, dict[str, Sensed]]

_LOCK = "lock"
"""In the scratch folder of a town, held by the process that renders it."""
_STALE_SECONDS = 3600.0


def render_town(cfg: TownConfig) -> None:
    """Render the dataset of a configuration, unless it exists already.

    Of a town, the folders ``cfg.root`` and, if depth is requested, ``cfg.depth_root`` appear only when all their files
    are written. Of streets, each scenario's folder does; those that exist are kept. The configuration is kept in
    ``town.yaml`` in both.

    Raises:
        ConfigError: if ``root`` or ``depth_root`` holds something else (see ``overwrite``).
    """
    console = Console(stderr=True)
    root, depth_root = Path(cfg.root), None if cfg.depth_root is None else Path(cfg.depth_root)
    if cfg.per_scenario:
        _render_streets(cfg, root, depth_root, console)
        return
    if is_rendered(cfg, root, depth_root, record_of(cfg)):
        console.print(f"The town is already there: {root}" + (f", depth in {depth_root}." if depth_root else "."))
        return
    scenarios = all_scenarios(cfg)
    # the data root is put in place last: where it is, its depth is too
    with (
        _complete_or_absent(root) as out,
        _complete_or_absent(depth_root) if depth_root else nullcontext() as depth_out,
    ):
        done = _run(cfg, scenarios, out, depth_out)
        agents = sum(with_progress(done, "Rendering", len(scenarios), "drives through the town", console))
        for folder in (out, depth_out) if depth_out else (out,):
            writer.write_yaml(folder / RECORD, record_of(cfg))
    depth, where = (" their depth,", f" and {depth_root}") if depth_root else ("", "")
    console.print(
        f"{agents * cfg.num_frames} agent-frames (four images,{depth} a LiDAR sweep) written to {root}{where}."
    )


def missing_scenarios(cfg: TownConfig) -> list[tuple[str, int]]:
    """Scenarios ``(split, index)`` of streets that are not on disk yet, or whose depth is not."""
    depth_root = None if holds_metadata_alone(cfg.root) else cfg.depth_root
    folders = [Path(folder) for folder in (cfg.root, depth_root) if folder is not None]
    there = [
        {(split, path.name) for split in SPLITS if (folder / split).is_dir() for path in (folder / split).iterdir()}
        for folder in folders
    ]
    complete = set.intersection(*there)
    return [each for each in all_scenarios(cfg) if (each[0], street_name(*each)) not in complete]


def _render_streets(cfg: TownConfig, root: Path, depth_root: Path | None, console: Console) -> None:
    """Render the scenarios that are missing."""
    folders = (root, depth_root) if depth_root is not None else (root,)
    claim_streets(cfg)
    missing = missing_scenarios(cfg)
    where = f"{root}, depth in {depth_root}" if depth_root else str(root)
    if not missing:
        console.print(f"The streets are already there: {where}.")
        return
    for folder in folders:
        sweep_leftovers(folder)
    agents = sum(with_progress(_run(cfg, missing, root, depth_root), "Rendering", len(missing), "streets", console))
    console.print(f"{len(missing)} streets with {agents} agents written to {where}.")


def sweep_leftovers(folder: Path) -> None:
    """Delete what killed renderings left behind; a street takes seconds, not an hour."""
    for path in folder.glob(f"{PARTIAL}*"):
        if _is_stale(path):
            shutil.rmtree(path, ignore_errors=True)


def all_scenarios(cfg: TownConfig) -> list[tuple[str, int]]:
    """Split and number of each scenario."""
    counts = asdict(cfg.scenarios)
    return [(split, index) for split in SPLITS for index in range(counts[split])]


def _run(cfg: TownConfig, scenarios: list[tuple[str, int]], root: Path, depth_root: Path | None) -> Iterator[int]:
    """Render scenarios in parallel; yields the number of agents of each, in any order."""
    workers = min(cfg.workers or num_cores(), len(scenarios))
    render = partial(_render_street if cfg.per_scenario else render_scenario, cfg, root, depth_root)
    return map_unordered(render, scenarios, workers) if workers > 1 else map(render, scenarios)


def _render_street(cfg: TownConfig, root: Path, depth_root: Path | None, scenario: tuple[str, int]) -> int:
    """Render one scenario; its folders appear when it is complete, that with the depth first."""
    place = Path(scenario[0]) / street_name(*scenario)
    with _moved_when_complete(root, place) as scratch, _moved_when_complete(depth_root, place) as depth_scratch:
        assert scratch is not None
        return render_scenario(cfg, scratch, depth_scratch, scenario)


@contextmanager
def _moved_when_complete(folder: Path | None, place: Path) -> Iterator[Path | None]:
    """Scratch folder within ``folder``; on success, what it holds at ``place`` moves there."""
    if folder is None:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix=PARTIAL, dir=folder) as scratch:
        yield Path(scratch)
        target = folder / place
        target.parent.mkdir(exist_ok=True)
        try:
            (Path(scratch) / place).rename(target)
        except OSError:
            if not target.is_dir():  # it is: only the depth was missing, or another process was faster
                raise


def render_scenario(cfg: TownConfig, root: Path, depth_root: Path | None, scenario: tuple[str, int]) -> int:
    """Write the files of one scenario, in this process; gives its number of agents."""
    split, index = scenario
    drive = plan_drive(cfg, split, index)
    for agent in drive.agents:
        place = Path(split) / drive.name / str(agent)
        folder, depth_folder = root / place, None if depth_root is None else depth_root / place
        folder.mkdir(parents=True)
        if depth_folder is not None:
            depth_folder.mkdir(parents=True)
        for frame in range(cfg.num_frames):
            render_agent(cfg, split, drive, frame, agent, folder, depth_folder)
    _write_protocol(cfg, root, split, drive)
    return len(drive.agents)


def render_metadata(cfg: TownConfig, root: Path, scenario: tuple[str, int], with_sweeps: bool) -> Iterator[FrameSenses]:
    """Render one scenario, in this process; of its files, only the metadata is written.

    Yields:
        Name of each frame, and what the agents sense in it, by their folders; their metadata is in place by then.
    """
    split, index = scenario
    drive = plan_drive(cfg, split, index)
    folders = {str(agent): root / split / drive.name / str(agent) for agent in drive.agents}
    for folder in folders.values():
        folder.mkdir(parents=True)
    _write_protocol(cfg, root, split, drive)
    for frame, name in enumerate(drive.frames):
        sensed = {agent: sense(cfg, split, drive, frame, int(agent), with_sweeps) for agent in folders}
        for agent, folder in folders.items():
            writer.write_yaml(folder / f"{name}.yaml", sensed[agent].metadata)
        yield name, sensed


def _write_protocol(cfg: TownConfig, root: Path, split: str, drive: Drive) -> None:
    writer.write_yaml(root / split / drive.name / "data_protocol.yaml", _protocol(cfg, split, drive))


def _protocol(cfg: TownConfig, split: str, drive: Drive) -> dict[str, Any]:
    """Content of OPV2V's ``data_protocol.yaml``: how the scenario was simulated."""
    lidar = {
        "channels": cfg.lidar.beams,
        "range": cfg.lidar.range_m,
        "lower_fov": cfg.lidar.elevation_min_deg,
        "upper_fov": cfg.lidar.elevation_max_deg,
    }
    world: dict[str, Any] = {"town": "synthetic", "seed": cfg.seed, "fixed_delta_seconds": TICK_S}
    if cfg.per_scenario:
        world["street"] = street_of(cfg, split, scenario_index(drive.name)).record()
    return {
        "world": world,
        "vehicle_base": {"sensing": {"camera_num": 4, "lidar": lidar}},
        "scenario": {"single_cav_list": [{"name": str(agent)} for agent in drive.agents]},
    }


@contextmanager
def _complete_or_absent(path: Path) -> Iterator[Path]:
    """Folder beside ``path`` that replaces it on success, and is removed otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{path.name}{PARTIAL}"
    for leftover in [each for each in path.parent.iterdir() if each.name.startswith(prefix)]:
        if _is_abandoned(leftover):
            shutil.rmtree(leftover, ignore_errors=True)
    scratch = Path(tempfile.mkdtemp(prefix=prefix, dir=path.parent))
    try:
        new, old = scratch / "new", scratch / "old"
        with (scratch / _LOCK).open("w") as lock:
            with suppress(OSError):  # a file system without locks
                fcntl.lockf(lock, fcntl.LOCK_EX)
            new.mkdir()
            yield new
            if path.exists():
                path.rename(old)
            new.rename(path)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _is_abandoned(scratch: Path) -> bool:
    """Whether the process that rendered a town there is gone: the system drops the locks of a killed one."""
    try:
        with (scratch / _LOCK).open("r+") as lock:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except FileNotFoundError:  # about to be locked, or of a version that had no lock
        return _is_stale(scratch)
    except OSError:
        return False


def _is_stale(scratch: Path) -> bool:
    with suppress(FileNotFoundError):
        return time.time() - scratch.stat().st_mtime > _STALE_SECONDS
    return False
