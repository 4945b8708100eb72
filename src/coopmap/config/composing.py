"""Hydra's composition, for those who compose often: the files that were chosen are read and merged once per process."""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf

from coopmap.config.overrides import parse_override

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

VERSION_BASE = "1.3"
FileStates = tuple[tuple[str, int, int], ...]
"""Path in the folder, time of the last change and size of each file."""


def composed(folder: Path, overrides: Sequence[str]) -> DictConfig:
    """What Hydra composes of ``train.yaml``, unresolved.

    Hydra merges the chosen files first and sets single keys afterwards, so that runs which choose the same files differ
    in the second, short part alone. Whatever is more than choices and values, or cannot be set, is Hydra's as a whole.

    Args:
        folder: of the YAML files; what changed there since is read again.
        overrides: with ``machine`` and ``preset`` settled.

    Raises:
        hydra.errors.HydraException: as Hydra does.
    """
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    try:
        parsed = [parse_override(override) for override in overrides]
        states = _file_states(folder)
        groups = {Path(name).parent.as_posix() for name, *_ in states}
        choices = [override for override in parsed if override.key_or_group in groups]
        values = [override for override in parsed if override.key_or_group not in groups]
        if all(map(_is_plain, parsed)) and all(isinstance(choice.value(), str) for choice in choices):
            config = copy.deepcopy(_chosen(folder, states, tuple(str(choice.input_line) for choice in choices)))
            for override in values:
                OmegaConf.update(config, override.key_or_group, override.value(), merge=True)
            return config
    except (HydraException, OmegaConfBaseException):
        return _by_hydra(folder, overrides)  # and says what is wrong
    return _by_hydra(folder, overrides)


def _is_plain(override: Override) -> bool:
    """Whether it is ``key=value``: nothing added, removed, swept, in another package or of Hydra's own."""
    from hydra.core.override_parser.types import OverrideType

    is_change = override.type == OverrideType.CHANGE and override.package is None
    return is_change and not override.is_sweep_override() and not override.is_hydra_override()


def _file_states(folder: Path) -> FileStates:
    files = sorted(folder.rglob("*.yaml"))
    return tuple((file.relative_to(folder).as_posix(), (s := file.stat()).st_mtime_ns, s.st_size) for file in files)


@functools.lru_cache(maxsize=64)
def _chosen(folder: Path, states: FileStates, choices: tuple[str, ...]) -> DictConfig:
    return _by_hydra(folder, choices)


def _by_hydra(folder: Path, overrides: Sequence[str]) -> DictConfig:
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    outer = GlobalHydra.instance().hydra  # of a sweep, one of whose jobs composes
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(folder), version_base=VERSION_BASE):
            return compose("train", list(overrides))
    finally:
        GlobalHydra.instance().hydra = outer
