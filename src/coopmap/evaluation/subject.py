"""What is evaluated: a checkpoint with its configuration, or weights in a configuration composed for them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from coopmap.config import Config, ConfigError, load_config
from coopmap.config.checks import require_choice
from coopmap.config.compose import from_yaml
from coopmap.config.data import DataConfig
from coopmap.config.groups import conf_dir, config_groups, group_choices
from coopmap.config.stored import ModelChoice
from coopmap.config.stored_text import stored_mapping
from coopmap.config.task import TaskConfig
from coopmap.models import MapAnything
from coopmap.models.finite import require_finite
from coopmap.runs.find import find_checkpoint
from coopmap.runs.reader import same_place
from coopmap.runs.stored import StoredCheckpoint, open_checkpoint, without_writing
from coopmap.training.assembly import build_module
from coopmap.training.module import PoseLearner

log = logging.getLogger(__name__)

IMAGES_ONLY = {"task": "images_only", "priors": "none"}
"""Choices under which a model gets nothing but images."""
SHAPE_OF_VIEWS = ("layout", "panorama", "cameras", "mosaic", "fused_patch_px")
"""Keys of ``data`` that say what the model looks at; a checkpoint's own are kept."""
CHOICE_OF_FRAMES = (
    "min_agents",
    "max_agents",
    "communication_range_m",
    "include_rsu",
    "neighbor_ticks",
    "max_val_frames",
    "splits",
    "exclude",
)
"""Keys of ``data`` that say which frames and agents are measured, wherever the data lie."""


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
        "trained_with": trained_with.describe_inputs(in_evaluation=False),
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
    trained_on = stored.data
    if "data" in keys:
        composed = load_config([override for override in overrides if override.startswith(("data=", "data."))])
        stored.data = _data_of(composed.data, trained_on, keys["data"])
    single = [override for override in overrides if override.partition("=")[0] not in ("data", *IMAGES_ONLY)]
    _refuse_groups(single)
    config = without_writing(from_yaml(OmegaConf.to_yaml(stored), single), overrides)
    if "data" in keys:
        _tell_choice_of_frames(config.data, trained_on, keys)
    return replace(config, data=_without_cache_of_other_data(config.data, trained_on, keys))


def _refuse_groups(overrides: Iterable[str]) -> None:
    """Say what can be done where a group is chosen that a stored configuration has settled."""
    for override in overrides:
        group, _, value = override.partition("=")
        if group in config_groups() and not value.startswith("{"):
            raise ConfigError(
                f"{override}: a run keeps the model, the objective and the settings that it was trained with; of "
                "groups, data=, task= and priors= can be chosen again, and single keys can be changed (coopmap help "
                f"{group}). Another configuration around its weights alone: weights=CHECKPOINT {override}"
            )


def _data_of(composed: DataConfig, trained_on: Any, choice: str) -> Any:
    """Data of a choice, in the shape of the model's own views.

    Raises:
        ConfigError: the choice is one of views, of another kind than the model's.
    """
    if composed.layout not in (trained_on.layout, DataConfig.layout):
        raise ConfigError(
            f"data={choice}: views of data.layout={composed.layout}, but the model was trained on those of "
            f"data.layout={trained_on.layout}, which an evaluation keeps; for other frames give data.root=FOLDER, for "
            f"other views evaluate a model that was trained with data={choice}"
        )
    shape = {key: trained_on[key] for key in SHAPE_OF_VIEWS if key in trained_on}
    return OmegaConf.merge(OmegaConf.structured(composed), shape)


def _tell_choice_of_frames(data: DataConfig, trained_on: Any, keys: Mapping[str, str]) -> None:
    """Log settings of a choice that, beside the place of the data, decide what is measured."""
    changed = [
        f"data.{key}={getattr(data, key)} (in training {trained_on[key]})"
        for key in CHOICE_OF_FRAMES
        if not _is_named(f"data.{key}", keys) and key in trained_on and getattr(data, key) != trained_on[key]
    ]
    if changed:
        log.info("data=%s also has %s", keys["data"], ", ".join(changed))


def _without_cache_of_other_data(data: DataConfig, trained_on: Any, keys: Mapping[str, str]) -> DataConfig:
    """Leave out the cache of a run that is measured on other data, unless one is named."""
    if data.cache_root is None or "data.cache_root" in keys or same_place(data.root, trained_on.root):
        return data
    log.info(
        "data.cache_root=%s holds views of data.root=%s: those of %s are made from files, unless you give "
        "data.cache_root=FOLDER",
        data.cache_root, trained_on.root, data.root,
    )  # fmt: skip
    return replace(data, cache_root=None)


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
    assert isinstance(module.model, MapAnything)
    module.model.answer_with(loaded.get("lacking", ()))
    config = replace(config, model=replace(module.model.cfg, weights=config.model.weights))
    origin = {"weights": loaded.get("source", weights), "left_out": ", ".join(loaded.get("left_out", ())) or None}
    origin |= {key: loaded.get(key) for key in ("revision", "sha256", "license", "num_parameters")}
    name = Path(weights).stem if Path(weights).exists() else weights.replace("/", "_").replace("@", "_")
    return Subject(config, module, weights, _known(origin), Path("outputs") / name)


def _known(origin: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in origin.items() if value is not None}
