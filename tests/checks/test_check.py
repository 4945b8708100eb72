"""A rendered town is clean; every way to break it is named by kind and path."""

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from coopmap.cli.main import main
from coopmap.config import load_config
from coopmap.data import OPV2VDataModule
from coopmap.data.opv2v import SplitIndex
from coopmap.geometry import carla_from_pose, pose_from_carla

SMALL = ("data.panorama.height=28", "data.panorama.width=112", "data.num_workers=0", "workers=1")
FRAMES = ("000060", "000070", "000080", "000090")


def check(folder: Path, *arguments: str, depth: bool = True) -> tuple[int, dict]:
    """Exit status and ``check.json`` of the command on ``folder/town``."""
    output = folder / "out"
    roots = [f"data.root={folder / 'town'}"] + ([f"data.depth_root={folder / 'depth'}"] if depth else [])
    status = 0
    try:
        main(["check", *roots, f"output={output}", *SMALL, *arguments])
    except SystemExit as ended:
        status = ended.code
    return status, json.loads((output / "check.json").read_text())


def found(report: dict, folder: Path) -> set[tuple[str, str]]:
    """Kinds and paths below ``folder``."""
    return {(p["kind"], p["path"].removeprefix(f"{folder}/")) for p in report["problems"]}


def agents(folder: Path, split: str = "train") -> list[str]:
    return list(SplitIndex.build(folder / "town", split).frame(0).agents)


def scenario(folder: Path, split: str = "train") -> Path:
    return folder / "town" / split / f"{split}_0000"


def replace(path: Path, content: bytes | str) -> None:
    """Put a new file in the place of a link."""
    path.unlink()
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def edit(path: Path, change: Callable[[dict], None]) -> None:
    """Change a metadata file."""
    content = yaml.safe_load(path.read_bytes())
    change(content)
    replace(path, yaml.dump(content, default_flow_style=None, width=4096))


def metadata(folder: Path) -> list[Path]:
    return sorted((folder / "town").rglob("0*.yaml"))


def rename(path: Path, other: Path, between: Path) -> None:
    path.rename(between)
    other.rename(path)
    between.rename(other)
