"""A run's weights in upstream's released format, with a model card."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from html import escape
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from coopmap.config import ConfigError
from coopmap.config.data import DataConfig
from coopmap.config.model import ModelConfig
from coopmap.models import MapAnything, load_weights
from coopmap.models.naming import canonical_names
from coopmap.models.sources import read_weights
from coopmap.models.upstream import absent_parts, present_parts, released_tensors, upstream_config
from coopmap.report.files import NO_ROOM
from coopmap.runs.stored import StoredCheckpoint, open_checkpoint

log = logging.getLogger(__name__)

CARD = """\
---
{header}---
# {title}

A MapAnything model (feed-forward metric 3D reconstruction) trained with coopmap.

| | |
|---|---|
{rows}

Images of a view: {camera} ({keys}).

    from mapanything.models import MapAnything
    model = MapAnything.from_pretrained("FOLDER", strict=True)
{notes}"""


def export(
    checkpoint: str | Path,
    output: str | Path,
    weights: str | None = None,
    license: str | None = None,
    without_matching: bool = False,
) -> Path:
    """Write a checkpoint in upstream's released format.

    Args:
        checkpoint: of a training run.
        output: folder to write.
        weights: provide the encoders of geometric inputs that the model lacks.
        license: for the model card; default: that of the weights that the run started from.
        without_matching: leave out the matching head; poses are those that the head regresses then.

    Returns:
        The folder.

    Raises:
        ConfigError: no such checkpoint, the model is not one that upstream can build, or parts are missing.
    """
    output = Path(output).expanduser()
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ConfigError(f"output={output}: exists already; choose another folder")
    source = open_checkpoint(checkpoint)
    try:
        trained = _without_matching(source.config().model) if without_matching else source.config().model
        description = upstream_config(trained)
        model, lender = _complete_model(source, trained, weights)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{checkpoint}: {error}") from error

    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(mkdtemp(prefix=f".{output.name}.", suffix=".tmp", dir=output.parent))  # a name that nobody has
    try:
        tensors, aliases = released_tensors(model)
        contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
        with _naming_want_of_room(output):
            save_file(contiguous, temporary / "model.safetensors", metadata={"format": "pt", **aliases})
        (temporary / "config.json").write_text(json.dumps(description, indent=2, sort_keys=True) + "\n")
        # safetensors files are readable by the owner only; give the weights the same permissions as the rest.
        shutil.copymode(temporary / "config.json", temporary / "model.safetensors")
        (temporary / "README.md").write_text(_card(source, license, lender, without_matching))
        if output.exists():
            output.rmdir()
        temporary.chmod(0o777 & ~_umask())
        temporary.rename(output)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return output


@contextmanager
def _naming_want_of_room(output: Path) -> Iterator[None]:
    """Safetensors' error for want of space as the system's; it has the number in its text alone."""
    try:
        yield
    except SafetensorError as error:
        for number in NO_ROOM:
            if f"(os error {number})" in str(error):
                raise OSError(number, os.strerror(number), str(output)) from error
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _without_matching(stored: ModelConfig) -> ModelConfig:
    """The same model with regressed poses alone; of priors that matching weighed it has no encoders."""
    inputs = replace(stored.inputs, pose=stored.inputs.pose and not stored.matching.prior)
    matching = replace(stored.matching, enabled=False, prior=False, gravity=False)
    return replace(stored, inputs=inputs, matching=matching, pose_from="head")


def _complete_model(
    source: StoredCheckpoint, stored: ModelConfig, weights: str | None
) -> tuple[MapAnything, dict[str, Any] | None]:
    """The model with all parts of upstream's, and the record of the weights that provided the missing ones."""
    config = replace(stored, inputs=replace(stored.inputs, rays=True, depth=True, pose=True, rig=False))
    with torch.device("meta"):
        model = MapAnything(config)
    trained, absent = present_parts(stored), absent_parts(stored)
    if absent and weights is None:
        base = source.weights.get("source") or "facebook/map-anything"
        raise ConfigError(
            f"the model was trained without {', '.join(absent)}, which upstream's loader requires; give weights=... "
            f"(for instance weights={base}), whose encoders are then used"
        )
    canonical = canonical_names(model)
    parts = {canonical.get(name, name).split(".")[0] for name in read_weights(source.path).tensors}
    foreign = parts - set(trained) - (set() if stored.matching.enabled else {"matching"})
    if foreign:
        raise ConfigError(f"the checkpoint has parts that upstream lacks: {', '.join(sorted(foreign))}")
    load_weights(model, source.path, submodules=trained)
    lender = load_weights(model, str(weights), submodules=absent).record() if absent else None
    return model, lender


def _card(source: StoredCheckpoint, license: str | None, lender: dict[str, Any] | None, without_matching: bool) -> str:
    """The model card."""
    base, config = source.weights, source.config()
    inherited = base.get("license")
    if license and inherited and license.lower() != inherited.lower():
        log.warning("license=%s, but the weights that the run started from are under %s", license, inherited)
    license = license or inherited
    if license is None:
        log.warning("the license is unknown; the model card names none (give license=...)")
    header = {"license": license, "base_model": base["source"] if base.get("revision") else None}
    lines = [f"{key}: {_word(value)}\n" for key, value in header.items() if value]
    lines.append("library_name: pytorch\ntags:\n- image-to-3d\n- model_hub_mixin\n- pytorch_model_hub_mixin\n")
    rows = {
        "architecture": config.model.name,
        "experiment": config.experiment,
        "checkpoint": f"{source.path.name}, step {source.step}",
        "run": config.run_dir,
        "source revision": source.record.get("git_revision"),
        "started from": _origin(base),
        "left out": "matching: poses are regressed here" if without_matching else "",
        "encoders of geometric inputs borrowed from": _origin(lender or {}),
    }
    return CARD.format(
        header="".join(lines),
        title=_cell(f"{config.model.name}, {config.experiment}"),
        rows="\n".join(f"| {label} | {_cell(value)} |" for label, value in rows.items() if value),
        camera=_views(config.data),
        keys=_cell(_keys(config.data)),
        notes="\nThe lent encoders were not trained with this model: use it with images alone.\n" if lender else "",
    )


def _line(value: object) -> str:
    """Text of a checkpoint, which may be anybody's, on one line."""
    return " ".join(str(value).split())


def _word(value: str) -> str:
    """A value in the card's header, quoted if it is more than a word."""
    return value if re.fullmatch(r"[\w.@/+-]+", value) else json.dumps(_line(value))


def _cell(value: object) -> str:
    """Text of a checkpoint as text in Markdown, without a table's bars and without HTML."""
    return escape(_line(value), quote=False).replace("|", "\\|")


def _views(data: DataConfig) -> str:
    """What the model was shown, in words."""
    panorama, mosaic, cameras = data.panorama, data.mosaic, data.cameras
    if data.layout == "mosaic":
        return (
            f"a vehicle's left, front, right and rear camera side by side, {mosaic.width} x {mosaic.height} pixels "
            "each; rays are the calibrated lines of sight in the vehicle's frame, and rays and depth that come out are "
            "seen from its LiDAR"
        )
    if data.layout == "cameras":
        return f"single cameras of a vehicle, {cameras.width} x {cameras.height} pixels"
    return f"panoramas of {panorama.width} x {panorama.height} pixels around each vehicle"


def _keys(data: DataConfig) -> str:
    """The settings that make such views, without those at their defaults."""
    section = data.layout if data.layout in ("mosaic", "cameras") else "panorama"
    settings = getattr(data, section)
    defaults = asdict(type(settings)())
    changed = [f"data.{section}.{key}={value}" for key, value in asdict(settings).items() if value != defaults[key]]
    return " ".join([f"data.layout={data.layout}", *changed])


def _origin(record: Mapping[str, Any]) -> str | None:
    if not record:
        return None
    revision = f" at {record['revision']}" if record.get("revision") else ""
    details = [f"sha256 {record['sha256']}" if record.get("sha256") else "", record.get("license") or ""]
    return f"{record['source']}{revision} ({', '.join(filter(None, details))})"
