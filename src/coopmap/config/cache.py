"""What ``coopmap cache`` is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field

from coopmap.config.checks import ConfigError, require, require_choice

SPLITS = ("train", "val", "test", "test_culvercity")


@dataclass
class CacheConfig:
    """Keys of ``coopmap cache`` beside those of the configuration.

    Attributes:
        cache_root: folder to fill; training reads it with ``data.cache_root``.
        splits: which splits; none named = all that the data has.
        workers: processes; null means one per core.
        keep_files: false renders streets (``data.town``) straight into the cache; of their files only the metadata is
            written to ``data.root``.
    """

    cache_root: str | None = None
    splits: list[str] = field(default_factory=list)
    workers: int | None = None
    keep_files: bool = True

    def __post_init__(self) -> None:
        if not self.cache_root:
            raise ConfigError("cache_root is not set: give the folder that views are to be written to")
        for split in self.splits:
            require_choice("splits", split, SPLITS)
        require(self.workers is None or self.workers >= 1, "workers", self.workers, "1 or more, or null")
