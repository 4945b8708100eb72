"""What a cache says that it was made with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from coopmap.config.checks import ConfigError
from coopmap.data.opv2v import SPLIT_FOLDERS


def settings_path(root: Path, split: str) -> Path:
    """File of a split's settings in a cache."""
    return root / SPLIT_FOLDERS[split] / "settings.json"


def read_settings(root: Path, split: str) -> dict[str, Any] | None:
    """What a split of a cache was made with; ``None`` if there is none.

    Raises:
        ConfigError: the cache is a file, or cannot be read.
    """
    try:
        return json.loads(settings_path(root, split).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(
            f"data.cache_root={root}: cannot be read ({error.strerror}); expected a folder that coopmap cache filled"
        ) from None


def cached_depth_source(root: Path | str | None, split: str) -> str | None:
    """The ``data.depth.source`` that a cache was made from; ``None`` without one of the split."""
    settings = None if root is None else read_settings(Path(root).expanduser(), split)
    if settings is None:
        return None
    kind, file = settings.get("data.depth.source"), str(settings.get("data.depth.file"))
    if kind == "DenseDepth":
        return "npy" if file.endswith(".npy") else "png"
    return {"LidarDepth": "lidar", "GrayDepth": "gray"}.get(str(kind))
