"""What is evaluated: a checkpoint with its configuration, or weights in a configuration composed for them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from coopmap.config import Config, ConfigError, load_config
from coopmap.config.checks import require_choice
from coopmap.config.compose import from_yaml
from coopmap.config.groups import conf_dir, group_choices
from coopmap.config.stored import ModelChoice
from coopmap.config.stored_text import stored_mapping
from coopmap.config.task import TaskConfig
from coopmap.models.finite import require_finite
from coopmap.runs.find import find_checkpoint
from coopmap.runs.stored import StoredCheckpoint, open_checkpoint, without_writing
from coopmap.training.assembly import build_module
from coopmap.training.module import PoseLearner

log = logging.getLogger(__name__)

IMAGES_ONLY = {"task": "images_only", "priors": "none"}
"""Choices under which a model gets nothing but images."""
SHAPE_OF_VIEWS = ("layout", "panorama", "cameras", "mosaic")
"""Keys of ``data`` that say what the model looks at; a checkpoint's own are kept."""


@dataclass
class Subject:
    """A model that is ready to be measured.

    Attributes:
        config: what it is measured with.
        module: model, objective, and the training mean if the checkpoint has it.
        name: for titles.
        origin: provenance in words, for ``metrics.json`` and the report; entries that are unknown are left
            out.
        folder: results go next to it or into it.
    """

    config: Config
    module: PoseLearner
    name: str
    origin: dict[str, Any]
    folder: Path


def open_subject(asked: ModelChoice, overrides: Sequence[str]) -> Subject:
    """Build the model to evaluate.

    Raises:
        ConfigError: a file is missing, weights do not fit, or an override is wrong.
    """
    if asked.weights is not None:
        return _from_weights(asked.weights, overrides)
    return _from_checkpoint(find_checkpoint(asked.run, asked.checkpoint, asked.runs_root), overrides)


def _from_checkpoint(checkpoint: Path, overrides: Sequence[str]) -> Subject:
    stored = open_checkpoint(checkpoint)
    trained_with = stored.config()
    config = stored_config(stored.record["config"], overrides)
    config.model.weights = None  # the checkpoint holds them all
    module = build_module(config)
    _require_finite(stored)
    module.load_state_dict(stored.state_dict)
    module.on_load_checkpoint(stored.content)
    origin = {
        "checkpoint": str(checkpoint),
        "step": stored.step,
        "sha256": stored.sha256,
        "git_revision": stored.record.get("git_revision"),
        "trained_with": " + ".join([trained_with.task.describe(), *trained_with.priors.describe()]),
        **{f"started_from_{key}": stored.weights.get(key) for key in ("source", "revision", "license")},
    }
    name = f"{config.experiment}, step {stored.step}"
    return Subject(config, module, name, _known(origin), checkpoint.absolute().parents[1])


def _require_finite(stored: StoredCheckpoint) -> None:
    try:
        require_finite(stored.state_dict, str(stored.path))
    except ValueError as error:
        raise ConfigError(str(error)) from error


def stored_config(text: str, overrides: Sequence[str]) -> Config:
    """A stored configuration, images only unless ``task`` or ``priors`` is named, with overrides on top.

    A model that was trained with calibrated rays in every sample keeps them: they are to mosaics and single cameras
    what the warp is to a panorama, and a panorama's own say nothing more than that.

    ``task=CHOICE`` and ``priors=CHOICE`` replace what the model was given in training, ``data=CHOICE`` where samples
    come from; the model and the shape of its views stay as in training.
    """
    keys = dict(override.partition("=")[::2] for override in overrides)
    stored = OmegaConf.create(stored_mapping(text))
    assert isinstance(stored, DictConfig)
    needs_rays = TaskConfig(**stored.task).always_gives("rays")
    for group, choice in (IMAGES_ONLY | ({"task": "calibrated"} if needs_rays else {})).items():
        if group in keys or not _is_named(group, keys):
            stored[group] = _choice(group, keys.get(group, choice))
    if "data" in keys:
        composed = load_config([override for override in overrides if override.startswith(("data=", "data."))])
        shape = {key: stored.data[key] for key in SHAPE_OF_VIEWS if key in stored.data}
        stored.data = OmegaConf.merge(OmegaConf.structured(composed.data), shape)
    single = [override for override in overrides if override.partition("=")[0] not in ("data", *IMAGES_ONLY)]
    return without_writing(from_yaml(OmegaConf.to_yaml(stored), single), overrides)


def _is_named(group: str, keys: Iterable[str]) -> bool:
    return any(key == group or key.startswith(f"{group}.") for key in keys)


def _choice(group: str, name: str) -> Any:
    """The section of a group's choice, without its settings for the rest of the configuration."""
    require_choice(group, name, group_choices(group))
    content = OmegaConf.load(conf_dir() / group / f"{name}.yaml")
    assert isinstance(content, DictConfig)
    return content.get(group, content)


def _from_weights(weights: str, overrides: Sequence[str]) -> Subject:
    keys = [override.partition("=")[0] for override in overrides]
    unnamed = [f"{group}={choice}" for group, choice in IMAGES_ONLY.items() if not _is_named(group, keys)]
    config = load_config([*overrides, *unnamed])
    if not config.data.root:
        raise ConfigError("data.root is not set: give data.root=/path/to/opv2v, or data=town for the synthetic town")
    try:
        module = build_module(replace(config, resume=None, model=replace(config.model, weights=weights)))
    except ConfigError as error:
        raise ConfigError(str(error).replace("model.weights=", "weights=")) from error
    loaded = module.record.get("weights") or {}
    if "matching" in loaded.get("lacking", ()):
        log.info("these weights do not match agents: poses are the regressed ones")
        module.model.leave_out_matching()
        config = replace(config, model=module.model.cfg)
    origin = {"weights": loaded.get("source", weights), "left_out": ", ".join(loaded.get("left_out", ())) or None}
    origin |= {key: loaded.get(key) for key in ("revision", "sha256", "license", "num_parameters")}
    name = Path(weights).stem if Path(weights).exists() else weights.replace("/", "_").replace("@", "_")
    return Subject(config, module, weights, _known(origin), Path("outputs") / name)


def _known(origin: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in origin.items() if value is not None}
