"""The command line: Hydra's, with errors that a user can act on."""

from __future__ import annotations

import functools
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from omegaconf import DictConfig

from coopmap.config import Config, ConfigError, conf_dir
from coopmap.config.compose import (
    VERSION_BASE,
    complete_overrides,
    explained,
    register_schema,
    to_config,
)
from coopmap.runs.folder import launched_run

log = logging.getLogger(__name__)

USER_ERRORS = (
    ("coopmap.data.opv2v.errors", "DataError"),
    ("coopmap.data.budget", "BadFrameBudgetError"),
    ("coopmap.training.module", "NonFiniteError"),
    ("lightning.fabric.utilities.exceptions", "MisconfigurationException"),
)


def hydra_main(task: Callable[[Config, list[str]], float | None]) -> None:
    """Compose the configuration from ``sys.argv`` and run ``task(config, overrides)`` on it.

    All of Hydra's command line works: ``--help``, ``--cfg job``, ``-m`` for sweeps. A mistake of the user ends the
    program with one message and exit status 2; ``HYDRA_FULL_ERROR=1`` shows everything.
    """
    if (run := launched_run()) is not None:
        task(run.read_config(), [])
        return
    import hydra
    from hydra.core.hydra_config import HydraConfig

    composing = True
    mistakes: list[Exception] = []

    @functools.wraps(task)
    def composed_task(composed: DictConfig) -> float | None:
        nonlocal composing
        config = to_config(composed)
        composing = False
        with _environment("HYDRA_FULL_ERROR", full_error):
            try:
                return task(config, list(HydraConfig.get().overrides.task))
            except _user_errors() as error:  # past Hydra, which would print all overrides around it
                mistakes.append(error)
                return None

    full_error = os.environ.get("HYDRA_FULL_ERROR")
    arguments = sys.argv[1:]
    register_schema()
    sys.argv[1:] = _complete_arguments(arguments)
    with user_errors_end_quietly():
        try:
            with _environment("HYDRA_FULL_ERROR", "1"):  # Hydra then hands exceptions on instead of printing them
                hydra.main(config_path=str(conf_dir()), config_name="train", version_base=VERSION_BASE)(composed_task)()
        except Exception as error:
            if composing and full_error != "1":
                raise explained(error, arguments) from None
            raise
        if mistakes:
            raise mistakes[0]


@contextmanager
def user_errors_end_quietly() -> Iterator[None]:
    """End the program with the message alone when the user can set it right: configuration, data, weights."""
    try:
        yield
    except Exception as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1" or not isinstance(error, _user_errors()):
            raise
        log.debug("cause", exc_info=error)
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def _user_errors() -> tuple[type[Exception], ...]:
    """Errors that the user can set right. A module that is not loaded cannot have raised any."""
    loaded = [getattr(sys.modules[module], name) for module, name in USER_ERRORS if module in sys.modules]
    return (ConfigError, *loaded)


def _complete_arguments(arguments: Sequence[str]) -> list[str]:
    """Complete the overrides among the arguments; they must stay together for Hydra's parser."""
    overrides = [argument for argument in arguments if "=" in argument and not argument.startswith("-")]
    place = arguments.index(overrides[0]) if overrides else 0
    others = [argument for argument in arguments if argument not in overrides]
    return [*others[:place], *complete_overrides(overrides), *others[place:]]


@contextmanager
def _environment(name: str, value: str | None) -> Iterator[None]:
    """Set or (``None``) unset an environment variable for a while."""
    before = os.environ.get(name)
    _set_environment(name, value)
    try:
        yield
    finally:
        _set_environment(name, before)


def _set_environment(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value
