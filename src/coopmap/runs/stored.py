"""Opened checkpoints of runs: configuration, weights and their provenance."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coopmap.config import Config, ConfigError
from coopmap.config.compose import from_yaml

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class StoredCheckpoint:
    """A checkpoint of a run. Tensors are read when :attr:`content` or :attr:`state_dict` is accessed.

    Attributes:
        path: the file.
        step: optimizer steps.
        record: what the run recorded about itself: configuration, revision of the source tree, origin of its weights.
    """

    path: Path
    step: int | None
    record: Mapping[str, Any]

    def config(self, overrides: Sequence[str] = ()) -> Config:
        """The run's configuration, with overrides on top.

        Raises:
            ConfigError: an override is wrong.
        """
        return from_yaml(self.record["config"], overrides)

    def config_to_read(self, overrides: Sequence[str] = ()) -> Config:
        """:meth:`config` for a program that only reads; see :func:`without_writing`."""
        return without_writing(self.config(overrides), overrides)

    @property
    def weights(self) -> Mapping[str, Any]:
        """Source, revision, sha256 and license of the weights that the run started from; empty if it had none."""
        weights = self.record.get("weights")
        return weights if isinstance(weights, dict) else {}

    @cached_property
    def content(self) -> dict[str, Any]:
        """All of it, on the CPU."""
        from coopmap.runs.checkpoint_io import read_checkpoint

        return read_checkpoint(self.path)

    @property
    def state_dict(self) -> dict[str, Tensor]:
        """Weights of the LightningModule; names of the model's weights start with ``model.``."""
        return self.content["state_dict"]

    @cached_property
    def sha256(self) -> str:
        """Of the file."""
        with self.path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()


def without_writing(config: Config, overrides: Sequence[str]) -> Config:
    """A stored configuration without what would write outside the folder of results.

    It may be somebody else's, and say where to render a town, over what is there, or where to keep a cache; such
    folders count only where the overrides name them, and so do profilers, which leave files where a program is started.
    """
    named = {override.lstrip("+~").partition("=")[0] for override in overrides}
    town = any(name in ("data", "data.town") or name.startswith("data.town.") for name in named)
    return replace(
        config,
        data=replace(
            config.data,
            town=config.data.town if town else None,
            cache_dir=config.data.cache_dir if named & {"data", "data.cache_dir"} else None,
        ),
        trainer=replace(config.trainer, profiler=config.trainer.profiler if "trainer.profiler" in named else None),
    )


def open_checkpoint(path: str | Path) -> StoredCheckpoint:
    """Open a checkpoint of a run, after all of it was read once to see that it is whole; executes no code from it.

    Raises:
        ConfigError: it is missing, unreadable, damaged, or not one of ours.
    """
    from coopmap.models.hub import WEIGHTS_FILE
    from coopmap.models.sources import read_plain
    from coopmap.runs.seal import verify

    path = Path(path)
    weights_alone = f"{path}: not a checkpoint of a coopmap run (for weights alone use weights={path})"
    if path.suffix == ".safetensors" or (path / WEIGHTS_FILE).is_file():
        raise ConfigError(weights_alone)
    if path.is_dir():
        raise ConfigError(f"{path}: is a folder, expected a checkpoint file (run={path} takes the best of a run)")
    if not path.is_file():
        raise ConfigError(f"{path}: there is no such checkpoint")
    verify(path)
    try:
        content = read_plain(path)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    record = content.get("coopmap")
    if not isinstance(record, dict) or not isinstance(record.get("config"), str):
        raise ConfigError(weights_alone)
    return StoredCheckpoint(path, content.get("global_step"), record)
