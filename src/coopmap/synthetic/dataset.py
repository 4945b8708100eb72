"""A whole dataset: all scenarios, in parallel.

A town is complete on disk or absent. Of streets every scenario is, so that many can be rendered bit by bit.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml
from omegaconf import OmegaConf
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from coopmap.config.checks import ConfigError
from coopmap.config.synth import TownConfig
from coopmap.synthetic import writer
from coopmap.synthetic.render import render_agent
from coopmap.synthetic.scenario import SPLITS, TICK_S, Drive, scenario_index, street_name
from coopmap.synthetic.street import street_of
from coopmap.synthetic.workers import map_unordered, num_cores
from coopmap.synthetic.worlds import plan_drive

T = TypeVar("T")

FORMAT = 1
"""Increment when the same configuration produces different files of a town."""

STREET_FORMAT = 2
"""The same for streets."""

_RECORD = "town.yaml"
PARTIAL, _STALE_SECONDS = ".partial-", 3600.0
_LINE_SECONDS = 10.0
"""Time between two progress lines, where output is not a terminal."""


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
    if _is_rendered(cfg, root, depth_root, _record(cfg)):
        console.print(f"The town is already there: {root}" + (f", depth in {depth_root}." if depth_root else "."))
        return
    scenarios = all_scenarios(cfg)
    # the data root is put in place last: where it is, its depth is too
    with (
        _complete_or_absent(root) as out,
        _complete_or_absent(depth_root) if depth_root else nullcontext() as depth_out,
    ):
        agents = sum(shown(_run(cfg, scenarios, out, depth_out), len(scenarios), "drives through the town", console))
        for folder in (out, depth_out) if depth_out else (out,):
            writer.write_yaml(folder / _RECORD, _record(cfg))
    depth, where = (" their depth,", f" and {depth_root}") if depth_root else ("", "")
    console.print(
        f"{agents * cfg.num_frames} agent-frames (four images,{depth} a LiDAR sweep) written to {root}{where}."
    )


def missing_scenarios(cfg: TownConfig) -> list[tuple[str, int]]:
    """Scenarios ``(split, index)`` of streets that are not on disk yet, or whose depth is not."""
    folders = [Path(folder) for folder in (cfg.root, cfg.depth_root) if folder is not None]
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
    agents = sum(shown(_run(cfg, missing, root, depth_root), len(missing), "streets", console))
    console.print(f"{len(missing)} streets with {agents} agents written to {where}.")


def claim_streets(cfg: TownConfig, keep_files: bool = True) -> None:
    """Make the folders that are to hold streets, or their metadata alone.

    Raises:
        ConfigError: if one holds something else (see ``overwrite``).
    """
    root, depth_root = Path(cfg.root), None if cfg.depth_root is None else Path(cfg.depth_root)
    record = _record(cfg, keep_files)
    if not _is_rendered(cfg, root, depth_root, record):
        for folder in (root, depth_root) if depth_root is not None else (root,):
            _claim(folder, record)


def _claim(folder: Path, record: dict[str, Any]) -> None:
    """Make a folder that is to hold streets; streets of another configuration in it are deleted."""
    known = folder / _RECORD
    if known.is_file() and yaml.safe_load(known.read_text()) != record:
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if not known.is_file():
        with tempfile.TemporaryDirectory(prefix=PARTIAL, dir=folder) as scratch:
            writer.write_yaml(Path(scratch, _RECORD), record)
            Path(scratch, _RECORD).replace(known)


def sweep_leftovers(folder: Path) -> None:
    """Delete what killed renderings left behind; a street takes seconds, not an hour."""
    for path in folder.glob(f"{PARTIAL}*"):
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(path, ignore_errors=True)


def read_config(root: str | Path) -> TownConfig:
    """Configuration that a town in ``root`` was rendered with; paths and switches are the defaults'."""
    record = yaml.safe_load((Path(root) / _RECORD).read_text())
    return cast(TownConfig, OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(TownConfig), record["config"])))


def _record(cfg: TownConfig, keep_files: bool = True) -> dict[str, Any]:
    """Everything that determines the files: the configuration without paths and switches; and which files stay."""
    left_out = ["root", "depth_root", "workers", "overwrite"]
    left_out += ["scenarios", "size_m", "slope_deg"] if cfg.per_scenario else ["towns", "style"]
    config = {key: value for key, value in asdict(cfg).items() if key not in left_out}
    record: dict[str, Any] = {"format": STREET_FORMAT if cfg.per_scenario else FORMAT, "config": config}
    return record if keep_files else {**record, "files": "metadata"}


def _is_rendered(cfg: TownConfig, root: Path, depth_root: Path | None, record: dict[str, Any]) -> bool:
    """Whether all requested folders hold exactly what a record says."""
    folders = {"root": root} | ({} if depth_root is None else {"depth_root": depth_root})
    if depth_root is not None and root.resolve() == depth_root.resolve():
        raise ConfigError(f"depth_root={depth_root}: expected another folder than root")
    present = {key: path for key, path in folders.items() if path.is_file() or (_holds_something(path))}
    same = True
    for key, path in present.items():
        if not (path / _RECORD).is_file():
            raise ConfigError(f"{key}={path}: exists and is not a synthetic town; choose another folder")
        stored = yaml.safe_load((path / _RECORD).read_text())
        if stored != record:
            same = False
            if not cfg.overwrite:
                raise ConfigError(
                    f"{key}={path}: holds a town rendered with another {_difference(stored, record)}; "
                    "choose another root and depth_root, delete both folders, or pass overwrite=true"
                )
    return same and present == folders


def _holds_something(folder: Path) -> bool:
    """Whether a folder holds more than what a killed rendering left behind."""
    return folder.is_dir() and any(not path.name.startswith(PARTIAL) for path in folder.iterdir())


def _difference(stored: dict[str, Any], wanted: dict[str, Any]) -> str:
    """Keys in which two records differ."""
    before, now = stored.get("config", {}), wanted["config"]
    keys = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
    if stored.get("files") != wanted.get("files"):
        keys.append("keep_files (of coopmap cache)")
    return ", ".join(keys) or "version of the program"


def all_scenarios(cfg: TownConfig) -> list[tuple[str, int]]:
    """Split and number of each scenario."""
    counts = asdict(cfg.scenarios)
    return [(split, index) for split in SPLITS for index in range(counts[split])]


def shown(results: Iterable[T], total: int, what: str, console: Console) -> Iterator[T]:
    """Pass results through, with progress out of ``total`` as a bar on a terminal, and as lines elsewhere."""
    description = f"Rendering {total} {what}"
    if console.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
            yield from progress.track(results, total, description=description)
        return
    started = shown_at = time.monotonic()
    console.print(description)
    for done, result in enumerate(results, start=1):
        yield result
        now = time.monotonic()
        if now - shown_at >= _LINE_SECONDS:
            left = timedelta(seconds=round((now - started) * (total - done) / done))
            console.print(f"{done}/{total} {what.split()[0]}  {left} left")
            shown_at = now


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
    writer.write_yaml(root / split / drive.name / "data_protocol.yaml", _protocol(cfg, split, drive))
    return len(drive.agents)


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
    scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}.partial-", dir=path.parent))
    try:
        new, old = scratch / "new", scratch / "old"
        new.mkdir()
        yield new
        if path.exists():
            path.rename(old)
        new.rename(path)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
