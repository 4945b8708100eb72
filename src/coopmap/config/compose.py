"""From overrides to a checked :class:`Config`; for notebooks and for the command line alike."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from coopmap.config.checks import ConfigError
from coopmap.config.composing import composed
from coopmap.config.errors import as_shown, config_keys
from coopmap.config.groups import conf_dir, config_groups
from coopmap.config.machine import detect_machine
from coopmap.config.overrides import apply_overrides, parse_override
from coopmap.config.run_id import register_resolvers
from coopmap.config.schema import Config
from coopmap.config.stored_text import stored_mapping

PUBLISHED_LOSS = {"mapanything_v11": "v11"}
"""What a released architecture was trained with, where that is not what experiments choose."""

MAIN_ROAD = ("cyl_posefix", "cyl_matching")
"""Experiments that the demo shows."""
SYNTHETIC_DATA = ("town", "streets", "market")
DEMO_DATA = "market"
READ_BEFORE_RESUMING = {"resume", "resume_reset", "init_from", "run_dir", "runs_root", "machine", "preset"}
"""Keys that say which run goes on and where; all others change the configuration that is stored with it."""
BESIDE_THE_DEMO = {"data", "debug", "experiment", "logger", "machine", "preset", "strategy"}
"""Groups that may be chosen in the demo; any other one says that something else is meant."""


def load_config(overrides: Sequence[str] = ()) -> Config:
    """Compose the configuration as ``python -m coopmap.train`` does.

    Of a run that goes on (``resume=RUN``), only which one it is: its own configuration and the changes to it are read
    by :func:`coopmap.runs.resume.open_run`, and a change that fits it need not fit the defaults.

    Args:
        overrides: as on the command line: ``["experiment=cyl_posefix", "data.root=/data/opv2v"]``.

    Raises:
        ConfigError: a key, choice or value is wrong; the message names it and the nearest right one.
    """
    overrides = complete_overrides(overrides)
    if _continues_a_run(_chosen(overrides)):
        overrides = [override for override in overrides if override.partition("=")[0] in READ_BEFORE_RESUMING]
    try:
        register_schema()
        return to_config(composed(conf_dir(), overrides))
    except Exception as error:
        raise explained(error, overrides) from None


def to_config(unresolved: DictConfig) -> Config:
    """Resolve and check a composed configuration (names, types, values)."""
    plain = OmegaConf.to_container(unresolved, resolve=True)
    config = OmegaConf.to_object(OmegaConf.merge(empty_config(), plain))
    assert isinstance(config, Config)
    return config


def to_yaml(config: Config) -> str:
    """The resolved configuration as YAML; :func:`from_yaml` reads it."""
    return OmegaConf.to_yaml(OmegaConf.create(asdict(config)))


def from_yaml(text: str, overrides: Sequence[str] = ()) -> Config:
    """Read a stored configuration, with ``key=value`` overrides on top.

    Raises:
        ConfigError: a key or value is wrong, the text is none of ours (:func:`stored_mapping`), or an override names a
            config group: the stored configuration has none.
    """
    try:
        config = OmegaConf.merge(empty_config(), OmegaConf.create(stored_mapping(text)))
        assert isinstance(config, DictConfig)
        OmegaConf.set_struct(config, True)
        parsed = [parse_override(override) for override in overrides]
        for override in parsed:
            if override.key_or_group in config_groups() and not isinstance(override.value(), dict):
                raise ConfigError(
                    f"{override.input_line}: a stored configuration has no groups to choose from; set single keys "
                    f"({override.key_or_group.replace('/', '.')}.KEY=VALUE)"
                )
        apply_overrides(config, parsed)
        return to_config(config)
    except Exception as error:
        raise explained(error, overrides) from None


def complete_overrides(overrides: Sequence[str]) -> list[str]:
    """Resolve ``machine=auto`` and ``preset=auto``, the defaults of both.

    Explicit choices also win over a preset as a whole: a chosen ``loss`` comes without the preset's changes to it, and
    a given ``data.root`` replaces the synthetic town, not just its path. Who chooses an architecture, and neither an
    objective nor an experiment, which has one, gets the objective that the architecture was released with.

    A run that is continued has its own configuration, to which nothing is added that was not asked for.

    Raises:
        ConfigError: an argument would have no effect, or only a part of it.
    """
    chosen = _chosen(overrides)
    _refuse_without_effect(chosen)
    completed = [override for override in overrides if override not in ("machine=auto", "preset=auto")]
    if _continues_a_run(chosen):
        return completed
    machine = chosen.get("machine", "auto")
    if machine == "auto":
        machine = detect_machine()
        completed.insert(0, f"machine={machine}")
    preset = chosen.get("preset", "auto")
    if preset == "auto":
        preset = default_preset(machine, chosen)
        completed.insert(0, f"preset={preset}")
    if not chosen.keys() & {"loss", "experiment"} and chosen.get("preset") not in ("demo", "town"):
        completed += [f"loss={loss}" for loss in _published_loss(chosen.get("model", ""))]
    if "loss" in chosen and "loss/start" not in chosen:
        completed.append("loss/start=released")
    if "data.root" in chosen and "data" not in chosen:
        of_the_town = {"data.town": "null", "data.depth_root": "null", "data.keep_in_memory": "false"}
        completed += [f"{key}={value}" for key, value in of_the_town.items() if key not in chosen]
    return completed


def _refuse_without_effect(chosen: Mapping[str, str]) -> None:
    """What Hydra would take and drop: several choices for a group, of which the last counts, and folders of its own."""
    several = [f"{group}={chosen[group]}" for group in config_groups() if chosen.get(group, "").startswith("[")]
    if several:
        raise ConfigError(f"{several[0]}: expected one choice; several, without brackets, are for a sweep (-m)")
    for key in ("hydra.run.dir", "hydra.job.chdir"):
        if key in chosen:
            raise ConfigError(f"{key}={chosen[key]}: has no effect here; a run's folder is run_dir=FOLDER")


def _published_loss(model: str) -> list[str]:
    """The objective that an architecture brings along, if any.

    Raises:
        ConfigError: it is one of a sweep, whose jobs would silently have another objective than a run of its own.
    """
    models = model.split(",")
    losses = [loss for name, loss in PUBLISHED_LOSS.items() if name in models]
    if losses and len(models) > 1:
        raise ConfigError(f"model={model}: by itself one of these comes with loss={losses[0]}; say loss= for the sweep")
    return losses


def _chosen(overrides: Sequence[str]) -> dict[str, str]:
    """Value of each key and group that is named."""
    return {key.lstrip("+"): value for key, _, value in (override.partition("=") for override in overrides)}


def _continues_a_run(chosen: Mapping[str, str]) -> bool:
    """Whether ``resume`` names a run, and not a checkpoint that a new one starts from."""
    resume = chosen.get("resume", "auto")
    return resume not in ("auto", "null", "") and not Path(resume.strip("'\"")).expanduser().is_file()


def default_preset(machine: str, chosen: Mapping[str, str]) -> str:
    """What ``preset=auto`` stands for without a GPU, unless data or a model are chosen: ``demo`` on the main road, else
    ``town``.

    Args:
        machine: a choice of that group.
        chosen: value of each key and group that was named.
    """
    own_root = "data.root" in chosen or bool(os.environ.get("COOPMAP_DATA_ROOT"))
    own_data = chosen["data"] not in SYNTHETIC_DATA if "data" in chosen else own_root
    own_model = chosen.get("model", "mapanything_tiny") != "mapanything_tiny"
    if machine != "laptop" or own_data or own_model:
        return "none"
    leaves_it = chosen.keys() & ({"data.layout", *config_groups()} - BESIDE_THE_DEMO)
    on_main_road = not leaves_it and chosen.get("experiment", MAIN_ROAD[0]) in MAIN_ROAD
    return "demo" if on_main_road and chosen.get("data", DEMO_DATA) == DEMO_DATA else "town"


@functools.cache
def register_schema() -> None:
    """Register the structured configs and resolvers with Hydra, once."""
    from hydra.core.config_store import ConfigStore

    register_resolvers()
    ConfigStore.instance().store(name="schema", node=empty_config())


@functools.cache
def empty_config() -> DictConfig:
    """The empty structured configuration that everything is merged into; merging copies it."""
    config = OmegaConf.structured(Config)
    # Hydra closes the whole tree; parts of the model and numbers of agents are not known here, so these stay open.
    for mapping in (config.optim.lr_of, config.data.sampling.agents, config.data.splits):
        OmegaConf.set_struct(mapping, False)
    return config


def explained(error: Exception, overrides: Sequence[str]) -> Exception:
    """The error to show: one message, or all of it with ``HYDRA_FULL_ERROR=1``."""
    return as_shown(error, config_keys(Config), config_groups(), overrides)
