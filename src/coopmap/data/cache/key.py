"""What decides the content of a cache, and how a cache that is stale is found out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from coopmap.config.checks import ConfigError
from coopmap.config.data import DataConfig
from coopmap.data.opv2v import DepthSource
from coopmap.geometry import warp_cache

FORMAT, FORMAT_OF_CAMERA_POINTS = 2, 3
"""Raise the one of what changes when the same data and settings give other content than before: a cache of the others
stays. The second is of single cameras with sweeps.
"""


def settings_of(config: DataConfig, depth_source: DepthSource) -> dict[str, Any]:
    """Everything but the files themselves that decides the content, by configuration key."""
    of_camera_points = config.layout == "cameras" and not depth_source.is_dense
    settings: dict[str, Any] = {
        "format of the cache": FORMAT_OF_CAMERA_POINTS if of_camera_points else FORMAT,
        "format of warps": warp_cache.FORMAT_VERSION,
        "data.layout": config.layout,
        "data.depth.source": type(depth_source).__name__,
        "data.depth.file": getattr(depth_source, "pattern", "{frame}.pcd"),
        "data.depth.max_m": config.depth.max_m,
    }
    if getattr(depth_source, "is_gray", False):
        settings["data.depth.source"] = "GrayDepth"
    if depth_source.is_dense:
        settings["data.depth.kind"] = config.depth.kind
    else:
        settings["data.depth.merge_agents"] = config.depth.merge_agents
        if config.depth.merge_agents:
            settings["data.include_rsu"] = config.include_rsu
    panorama = asdict(config.panorama)
    if config.layout == "mosaic":
        panorama = {name: panorama[name] for name in ("surface", "radius_m")}
        settings |= {f"data.mosaic.{name}": value for name, value in asdict(config.mosaic).items()}
    if config.layout != "cameras":
        settings |= {f"data.panorama.{name}": value for name, value in panorama.items()}
    if config.layout in ("cameras", "grouped"):
        settings |= {f"data.cameras.{name}": value for name, value in asdict(config.cameras).items()}
    if config.layout == "grouped":
        settings["data.fused_patch_px"] = config.fused_patch_px
    return settings


def require_same(folder: Path, stored: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """Raise :class:`ConfigError`, naming the keys that differ, unless a cache was made with these settings."""
    different = [key for key in {**stored, **asked} if stored.get(key) != asked.get(key)]
    if different:
        made = ", ".join(f"{key}={stored.get(key)}" for key in different)
        now = ", ".join(f"{key}={asked.get(key)}" for key in different)
        raise ConfigError(
            f"{folder}: the cache was made with {made}, now it is {now}; give another cache_root, or delete this one"
        )
