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
        ConfigError: the cache is a file, or cannot be read; or what is written there is damaged.
    """
    path = settings_path(root, split)
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:  # of JSON or of the encoding
        raise _damaged(path, str(error)) from None
    except OSError as error:
        raise ConfigError(
            f"data.cache_root={root}: cannot be read ({error.strerror}); expected a folder that coopmap cache filled"
        ) from None
    if not isinstance(settings, dict):
        raise _damaged(path, f"expected settings by name, got {settings!r:.60}")
    return settings


def _damaged(path: Path, reason: str) -> ConfigError:
    return ConfigError(
        f"{path}: damaged ({reason}); delete it and start the command that filled the cache again, with the same "
        "options: it writes the file anew and keeps the views"
    )


def cached_depth_source(root: Path | str | None, split: str) -> str | None:
    """The ``data.depth.source`` that a cache was made from; ``None`` without one of the split."""
    settings = None if root is None else read_settings(Path(root).expanduser(), split)
    if settings is None:
        return None
    kind, file = settings.get("data.depth.source"), str(settings.get("data.depth.file"))
    if kind == "DenseDepth":
        return "npy" if file.endswith(".npy") else "png"
    return {"LidarDepth": "lidar", "GrayDepth": "gray"}.get(str(kind))
