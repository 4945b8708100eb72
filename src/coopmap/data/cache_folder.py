"""Whether the folder of caches can be used."""

from __future__ import annotations

import logging
import tempfile
from dataclasses import replace
from pathlib import Path

from coopmap.config.data import DataConfig

log = logging.getLogger(__name__)


def with_usable_cache(config: DataConfig) -> DataConfig:
    """The same without ``cache_dir`` if nothing can be written there: caches save time, and a run needs none."""
    if config.cache_dir is None:
        return config
    folder = Path(config.cache_dir).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\0")
    except OSError as error:
        log.warning("data.cache_dir=%s: cannot be written (%s); going on without it", folder, error.strerror)
        return replace(config, cache_dir=None)
    return config
