"""What a folder of synthetic data says it holds (``town.yaml``), and whether it may be written to."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import yaml
from omegaconf import OmegaConf

from coopmap.config.checks import ConfigError
from coopmap.config.synth import TownConfig
from coopmap.synthetic import writer

FORMAT = 1
"""Increment when the same configuration produces different files of a town."""

STREET_FORMAT, DRIVE_FORMAT = 2, 3
"""The same for streets of one frame, and of several."""

RECORD = "town.yaml"
PARTIAL = ".partial-"
"""Names of scratch folders begin with it."""

_METADATA_ALONE = {"files": "metadata"}


def record_of(cfg: TownConfig, keep_files: bool = True) -> dict[str, Any]:
    """Everything that determines the files: the configuration without paths and switches; and which files stay."""
    left_out = ["root", "depth_root", "workers", "overwrite"]
    left_out += ["scenarios", "size_m", "slope_deg"] if cfg.per_scenario else ["towns", "style"]
    left_out += ["rigs"] if cfg.rigs == "opv2v" else []  # as in records from before there were others
    config = {key: value for key, value in asdict(cfg).items() if key not in left_out}
    street_format = STREET_FORMAT if cfg.num_frames == 1 else DRIVE_FORMAT
    record: dict[str, Any] = {"format": street_format if cfg.per_scenario else FORMAT, "config": config}
    return record if keep_files else record | _METADATA_ALONE


def read_config(root: str | Path) -> TownConfig:
    """Configuration that a town in ``root`` was rendered with; paths and switches are the defaults'."""
    record = yaml.safe_load((Path(root) / RECORD).read_text())
    return cast(TownConfig, OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(TownConfig), record["config"])))


def holds_metadata_alone(root: str | Path) -> bool:
    """Whether the streets of a folder were rendered into a cache: it has neither images nor sweeps nor depth."""
    file = Path(root).expanduser() / RECORD
    return file.is_file() and _METADATA_ALONE.items() <= yaml.safe_load(file.read_text()).items()


def claim_streets(cfg: TownConfig, keep_files: bool = True) -> None:
    """Make the folders that are to hold streets, or their metadata alone.

    Raises:
        ConfigError: if one holds something else (see ``overwrite``).
    """
    root, depth_root = Path(cfg.root), None if cfg.depth_root is None else Path(cfg.depth_root)
    record = record_of(cfg, keep_files)
    if not is_rendered(cfg, root, depth_root, record):
        for folder in (root, depth_root) if depth_root is not None else (root,):
            _claim(folder, record)


def _claim(folder: Path, record: dict[str, Any]) -> None:
    """Make a folder that is to hold streets; streets of another configuration in it are deleted."""
    known = folder / RECORD
    if known.is_file() and yaml.safe_load(known.read_text()) != record:
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if not known.is_file():
        with tempfile.TemporaryDirectory(prefix=PARTIAL, dir=folder) as scratch:
            writer.write_yaml(Path(scratch, RECORD), record)
            Path(scratch, RECORD).replace(known)


def is_rendered(cfg: TownConfig, root: Path, depth_root: Path | None, record: dict[str, Any]) -> bool:
    """Whether all requested folders hold exactly what a record says.

    Raises:
        ConfigError: if one holds something else (see ``overwrite``).
    """
    folders = {"root": root} | ({} if depth_root is None else {"depth_root": depth_root})
    if depth_root is not None and root.resolve() == depth_root.resolve():
        raise ConfigError(f"depth_root={depth_root}: expected another folder than root")
    present = {key: path for key, path in folders.items() if path.is_file() or (_holds_something(path))}
    same = True
    for key, path in present.items():
        if not (path / RECORD).is_file():
            raise ConfigError(f"{key}={path}: exists and is not a synthetic town; choose another folder")
        stored = yaml.safe_load((path / RECORD).read_text())
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
        keys.append("choice of files, all or metadata alone (cache_root of coopmap synth, keep_files of coopmap cache)")
    return ", ".join(keys) or "version of the program"
