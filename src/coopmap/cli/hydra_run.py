"""Calls a task with the composed configuration, through Hydra if its flags or a sweep require it."""

from __future__ import annotations

import functools
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from omegaconf import DictConfig

from coopmap.cli.arguments import Arguments
from coopmap.cli.errors import user_errors, user_message
from coopmap.config import Config, ConfigError, conf_dir, load_config
from coopmap.config.compose import complete_overrides, explained, register_schema, to_config
from coopmap.config.composing import VERSION_BASE
from coopmap.config.overrides import parse_override
from coopmap.runs.folder import launched_config
from coopmap.runs.signals import stop_signals

Task = Callable[[Config, list[str]], float | None]


def run_composed(task: Task, found: Arguments) -> None:
    """Compose the configuration and run ``task(config, overrides)`` on it.

    Raises:
        ConfigError: the configuration cannot work.
    """
    with stop_signals():
        if (config := launched_config()) is not None:
            task(config, [])
        elif found.flags:
            _run_hydra(task, found)
        else:
            overrides = [override for override in found.overrides if not override.startswith("hydra.")]
            task(load_config(found.overrides), complete_overrides(overrides))


def _run_hydra(task: Task, found: Arguments) -> None:
    """As Hydra's own command line does, but with our errors."""
    import hydra
    from hydra.core.hydra_config import HydraConfig

    composing, argv, full_error = True, sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    mistakes: list[Exception] = []
    failed: list[str] = []  # without their errors, whose tracebacks would keep models in memory
    if found.is_sweep:
        _refuse_one_folder(found.overrides)

    @functools.wraps(task)
    def composed_task(composed: DictConfig) -> float | None:
        """What Hydra calls for each job, with the configuration that it has composed."""
        nonlocal composing
        overrides = list(HydraConfig.get().overrides.task)
        with _environment("HYDRA_FULL_ERROR", full_error), _arguments(argv):
            try:
                config = to_config(composed)
                composing = False
                return task(config, overrides)
            except Exception as error:
                job = _swept(found.overrides, overrides)
                if found.is_sweep and int(os.environ.get("WORLD_SIZE", 1)) > 1:
                    raise _SweepEndsError(job, error) from None
                if found.is_sweep:
                    failed.append(job)
                    _report(job, error)
                elif isinstance(error, user_errors()):
                    mistakes.append(error)  # past Hydra, which would print all overrides around it
                else:
                    raise
                return None

    register_schema()
    try:
        with (
            _environment("HYDRA_FULL_ERROR", "1"),  # Hydra then hands exceptions on instead of printing them
            _arguments([argv[0], *found.flags, *complete_overrides(found.overrides)]),
        ):
            hydra.main(config_path=str(conf_dir()), config_name="train", version_base=VERSION_BASE)(composed_task)()
    except _SweepEndsError as end:
        if isinstance(end.error, user_errors()):
            raise ConfigError(
                f"in the job of {end.job}: {end.error}; the sweep ends here, since its other processes may be in the "
                "middle of this job"
            ) from None
        raise end.error from None
    except Exception as error:
        if composing:
            raise explained(error, found.overrides) from None
        raise
    if failed:
        raise ConfigError(f"these jobs of the sweep failed, for the reasons above: {'; '.join(dict.fromkeys(failed))}")
    if mistakes:
        raise mistakes[0]


def _report(job: str, error: Exception) -> None:
    """Say at once why a job of a sweep failed: Hydra would wait for the other jobs, and tell of one."""
    if (message := user_message(error)) is None:
        traceback.print_exception(error)
        message = f"{type(error).__name__}: {error}"
    print(f"error in the job of {job}: {message}", file=sys.stderr, flush=True)


class _SweepEndsError(BaseException):
    """A job of a sweep failed on this rank. No ``Exception``, after which Hydra would begin the next job.

    The others may be in a collective operation of the failed job. They would meet this rank in one of the next job, and
    the two would be mixed; the launcher ends them with this process.
    """

    def __init__(self, job: str, error: Exception) -> None:
        super().__init__(job, error)
        self.job, self.error = job, error


def _refuse_one_folder(overrides: Sequence[str]) -> None:
    """A sweep in which all jobs would have the folder of the first."""
    for override in map(parse_override, overrides):
        if (
            override.key_or_group == "run_dir"
            and not override.is_sweep_override()
            and "${" not in str(override.value())
        ):
            raise ConfigError(
                f"{override.input_line}: all jobs of a sweep would have this folder; leave it out, or choose a folder "
                "for all of them with runs_root"
            )


def _swept(asked: Sequence[str], job: Sequence[str]) -> str:
    """What a job has of the values of a sweep."""
    keys = {override.key_or_group for override in map(parse_override, asked) if override.is_sweep_override()}
    return " ".join(override for override in job if override.partition("=")[0] in keys) or "the sweep"


@contextmanager
def _arguments(arguments: Sequence[str]) -> Iterator[None]:
    """Set ``sys.argv`` temporarily."""
    before = sys.argv
    sys.argv = list(arguments)
    try:
        yield
    finally:
        sys.argv = before


@contextmanager
def _environment(name: str, value: str | None) -> Iterator[None]:
    """Set or (``None``) unset an environment variable temporarily."""
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
