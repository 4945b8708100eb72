"""Loads weights into a model and accounts for every name."""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from coopmap.config.checks import require_choice
from coopmap.config.model import SUBMODULES
from coopmap.models.addons.matching import head
from coopmap.models.finite import require_finite
from coopmap.models.hub import DINOV2_SIZES, EncoderKind, WeightsMismatchError, different_encoder
from coopmap.models.mapanything import MapAnything
from coopmap.models.naming import canonical_names
from coopmap.models.priors import DenseEncoder, GlobalEncoder, silence
from coopmap.models.sources import Weights, read_weights

logger = logging.getLogger(__name__)

MAX_LISTED = 20
PRIOR_ENCODERS = tuple(name for name in SUBMODULES if name.endswith("_encoder"))
REQUIRED_PARTS = set(SUBMODULES) - set(PRIOR_ENCODERS)
REFERENCE_MARK = "info_sharing.view_pos_table"
LATER_NAMES = {f"matching.{name}" for name in head.LATER}
"""Runs from before these parameters existed may lack them; their modules say what they are then."""
ENCODER_BLOCK = re.compile(r"encoder\.model\.blocks\.(\d+)\.(.+)")
ENCODER_TAIL = re.compile(r"encoder\.model\.(blocks\.\d+|norm)(?=\.)")


@dataclass(frozen=True)
class Mismatch:
    """Names of the model that the weights lack, the reverse, and those whose shapes differ."""

    missing: Sequence[str]
    unexpected: Sequence[str]
    misshaped: Sequence[str]

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.misshaped)


@dataclass(frozen=True)
class LoadedWeights:
    """What was loaded, for logs and for the record of a run.

    Attributes:
        source: file or hub id.
        revision: commit of the hub repository.
        sha256: hash of the file.
        license: as the model card states it.
        num_parameters: numbers loaded, each shared tensor counted once.
        mismatch: what did not fit; empty after a strict load.
        left_out: parts of the weights that the model is configured not to have.
        lacking: parts of the model that the weights do not have, which keep their initial values.
        ignored: pickled classes that were not rebuilt.
        submodules: the requested parts; empty = all.
        base: the same for the weights that these were trained from, if one of our checkpoints records it.
    """

    source: str
    revision: str | None
    sha256: str | None
    license: str | None
    num_parameters: int
    mismatch: Mismatch
    left_out: tuple[str, ...]
    ignored: tuple[str, ...]
    submodules: tuple[str, ...] = ()
    lacking: tuple[str, ...] = ()
    base: Mapping[str, Any] | None = None

    def record(self) -> dict[str, Any]:
        """Provenance of a run's weights as plain values, for its folder and its checkpoints."""
        values = asdict(self)
        values |= values.pop("mismatch")
        return {key: list(value) if isinstance(value, list | tuple) else value for key, value in values.items()}


class _Match(NamedTuple):
    """Tensors of the weights and of the model, by canonical name; ``new`` are parts that the weights lack."""

    given: Mapping[str, Tensor]
    own: Mapping[str, Tensor]
    mismatch: Mismatch
    left_out: tuple[str, ...]
    new: Collection[str]


def load_weights(
    model: MapAnything,
    source: str | Path | Mapping[str, Tensor],
    strict: bool = True,
    submodules: Sequence[str] = (),
) -> LoadedWeights:
    """Load weights into ``model``; see :func:`~coopmap.models.sources.read_weights` for what ``source`` may be.

    Shared tensors may be stored under one of their names or all. Encoders of geometric inputs that the configuration
    leaves out (``model.inputs``) are skipped and reported in ``left_out``, as is the mark of the reference view
    (``model.info_sharing.mark_reference``). Such encoders, and parts that no public model has, may be missing entirely;
    they then keep their initial values, and encoders start without influence. An official DINOv2 backbone fills the
    encoder; when it has as many blocks as encoder and multi-view transformer together, its last blocks start the latter
    (upstream's DINO initialization of V1.1).

    Args:
        model: on any device; a model on the meta device takes over the tensors as they are, memory-mapped on the CPU.
        source: path, hub id or state dict.
        strict: raise if a name is missing, unexpected or of another shape; otherwise load what fits.
        submodules: top-level parts to load (``encoder``, ``info_sharing``, ...); empty = all.

    Raises:
        FileNotFoundError: if there is no such source.
        ValueError: if the source cannot be read, or holds NaN or infinity.
        WeightsMismatchError: see ``strict``; also if two names of a shared tensor hold different values.
    """
    for name in submodules:
        require_choice("model.weights_only_submodules", name, SUBMODULES)
    needs_encoder = strict and (not submodules or "encoder" in submodules)
    encoder = EncoderKind(model.cfg.encoder.depth, model.cfg.encoder.dim)
    weights = read_weights(source, encoder if needs_encoder else None)
    canonical = canonical_names(model)
    match = _match(weights, model, canonical, submodules)
    if match.mismatch:
        if strict:
            raise WeightsMismatchError(_explain(weights, match))
        logger.warning("%s; loading what fits", _headline(weights, match))
    loaded = {
        name: tensor
        for name, tensor in match.given.items()
        if name in match.own and name not in match.mismatch.misshaped
    }
    require_finite(loaded, weights.source)
    _copy(model, loaded, canonical)
    if not (weights.is_backbone or submodules):
        _silence_encoders(model, match.new)
    report = LoadedWeights(
        source=weights.source,
        revision=weights.revision,
        sha256=weights.sha256,
        license=weights.license,
        num_parameters=_count(loaded),
        mismatch=match.mismatch,
        left_out=match.left_out,
        ignored=weights.ignored,
        submodules=tuple(submodules),
        lacking=tuple(sorted(match.new)),
        base=weights.base,
    )
    _log(report)
    return report


def _match(weights: Weights, model: MapAnything, canonical: Mapping[str, str], submodules: Sequence[str]) -> _Match:
    own = {name: value for name, value in model.state_dict().items() if canonical[name] == name}
    tensors, wanted = dict(weights.tensors), set(own)
    if weights.is_backbone:
        tensors = _continue_backbone(tensors, model)
        wanted = {name for name in own if _part(name) == "encoder"} | (set(tensors) & set(own))
        left_out = {_module(name) for name in set(tensors) - set(own) if ENCODER_TAIL.match(name)}
        tensors = {name: tensor for name, tensor in tensors.items() if _module(name) not in left_out}
    else:
        left_out = {_part(name) for name in tensors} & {name for name in PRIOR_ENCODERS if not hasattr(model, name)}
        left_out |= {REFERENCE_MARK} & set(tensors) - set(own)
        tensors = {name: tensor for name, tensor in tensors.items() if not {name, _part(name)} & left_out}
    given = _by_canonical_name(tensors, canonical)
    new = {_part(name) for name in own} - REQUIRED_PARTS - {_part(name) for name in given}
    if new:
        logger.info("%s: not in these weights, trained from scratch", ", ".join(sorted(new)))
    wanted = {name for name in wanted if _part(name) not in new} - LATER_NAMES
    if submodules:
        wanted = {name for name in wanted if _part(name) in submodules}
        given = {name: tensor for name, tensor in given.items() if _part(name) in submodules}
    mismatch = Mismatch(
        missing=sorted(wanted - set(given)),
        unexpected=sorted(set(given) - set(own)),
        misshaped=sorted(name for name in set(given) & set(own) if given[name].shape != own[name].shape),
    )
    return _Match(
        given, {name: own[name] for name in wanted | set(given) if name in own}, mismatch, tuple(sorted(left_out)), new
    )


def _part(name: str) -> str:
    return name.split(".", 1)[0]


def _module(name: str) -> str:
    """``encoder.model.blocks.24`` or ``encoder.model.norm`` of a name below them."""
    match = ENCODER_TAIL.match(name)
    return match[0] if match else name


def _continue_backbone(tensors: dict[str, Tensor], model: MapAnything) -> dict[str, Tensor]:
    """Name a backbone's later blocks as the multi-view transformer's, if its depth and width match.

    Its final norm goes with the last block (UniCeption ``convert_dino_to_info_sharing.py``).
    """
    blocks = {int(match[1]) for name in tensors if (match := ENCODER_BLOCK.match(name))}
    encoder, info_sharing = model.cfg.encoder, model.cfg.info_sharing
    continues = (
        len(blocks) == encoder.depth + info_sharing.depth
        and (encoder.dim, encoder.mlp) == (info_sharing.dim, info_sharing.mlp)
        and not encoder.final_norm
        and info_sharing.layer_scale is not None
    )
    if not continues:
        return tensors

    def rename(name: str) -> str:
        if (match := ENCODER_BLOCK.match(name)) and int(match[1]) >= encoder.depth:
            return f"info_sharing.self_attention_blocks.{int(match[1]) - encoder.depth}.{match[2]}"
        return name.replace("encoder.model.norm.", "info_sharing.norm.")

    return {rename(name): tensor for name, tensor in tensors.items()}


def _by_canonical_name(tensors: Mapping[str, Tensor], canonical: Mapping[str, str]) -> dict[str, Tensor]:
    """One tensor per canonical name; names that the model lacks are unchanged."""
    given: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        first = canonical.get(name, name)
        if first in given and not (given[first].data_ptr() == tensor.data_ptr() or torch.equal(given[first], tensor)):
            raise WeightsMismatchError(f"{name} and {first} are names of one tensor, but the weights hold two values")
        given[first] = tensor
    return given


def _copy(model: MapAnything, loaded: Mapping[str, Tensor], canonical: Mapping[str, str]) -> None:
    """Put the tensors into the model, one after the other; a model on the meta device takes them over uncopied."""
    state = model.state_dict()
    assign = any(value.is_meta for value in state.values())
    if assign:
        loaded = {name: tensor.to(state[name].dtype) for name, tensor in loaded.items()}
    aliased = {alias: loaded[first] for alias, first in canonical.items() if first in loaded}
    model.load_state_dict(aliased, strict=False, assign=assign)


def _silence_encoders(model: MapAnything, parts: Collection[str]) -> None:
    """New parts must not disturb trained weights."""
    for part in parts:
        module = getattr(model, part)
        if isinstance(module, DenseEncoder | GlobalEncoder):
            silence(module)


def _explain(weights: Weights, match: _Match) -> str:
    missing, unexpected, misshaped = match.mismatch.missing, match.mismatch.unexpected, match.mismatch.misshaped
    shapes = [f"{name}: {_shape(match.given[name])}, the model has {_shape(match.own[name])}" for name in misshaped]
    return "\n".join(
        [
            _headline(weights, match),
            *_listing("missing", missing, unexpected),
            *_listing("unexpected", unexpected, missing),
            *_listing("wrongly shaped", shapes, []),
            *_settings_to_change(missing, unexpected),
        ]
    )


def _settings_to_change(missing: Sequence[str], unexpected: Sequence[str]) -> list[str]:
    """What to set where a part that a setting builds is on one side alone."""
    advice = []
    if REFERENCE_MARK in missing:
        advice.append("the weights' model marks no reference view: model.info_sharing.mark_reference=false")
    if "matching" in map(_part, unexpected):
        advice.append("the weights have a matching head, the model has none: model.matching.enabled=true")
    return advice


def _headline(weights: Weights, match: _Match) -> str:
    """Describe both the weights' model and the given model."""
    line = f"{weights.source} does not fit the model"
    kinds = [_encoder_kind(state) for state in (match.given, match.own)]
    if None not in kinds and kinds[0] != kinds[1]:
        line += f": {different_encoder(*kinds)}"  # type: ignore[arg-type]
        encoder = (weights.upstream_config or {}).get("encoder_config", {})
        if encoder.get("size") in DINOV2_SIZES:
            line += f"; its config.json says {encoder.get('encoder_str', 'dinov2')} {encoder['size']}"
    return f"{line}; {_count(match.given) / 1e6:.1f} M parameters, the model has {_count(match.own) / 1e6:.1f} M"


def _encoder_kind(state: Mapping[str, Tensor]) -> EncoderKind | None:
    if "encoder.model.cls_token" not in state:
        return None
    blocks = {match[1] for name in state if (match := ENCODER_BLOCK.match(name))}
    return EncoderKind(len(blocks), state["encoder.model.cls_token"].shape[-1])


def _count(tensors: Mapping[str, Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors.values())


def _shape(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "scalar"


def _listing(title: str, names: Sequence[str], others: Sequence[str]) -> list[str]:
    if not names:
        return []
    lines = [f"{title} ({len(names)}):"]
    for name in names[:MAX_LISTED]:
        near = difflib.get_close_matches(name, others, n=1, cutoff=0.8)
        lines.append(f"  {name}" + (f" (nearest: {near[0]})" if near else ""))
    if len(names) > MAX_LISTED:
        lines.append(f"  ... and {len(names) - MAX_LISTED} more")
    return lines


def _log(report: LoadedWeights) -> None:
    origin = ", ".join(
        f"{key} {value}"
        for key, value in (
            ("revision", report.revision),
            ("sha256", report.sha256 and report.sha256[:12]),
            ("license", report.license),
        )
        if value
    )
    logger.info("%.1f M parameters from %s (%s)", report.num_parameters / 1e6, report.source, origin or "in memory")
    for what, names in (
        ("not in the configured model", report.left_out),
        ("pickled objects not rebuilt", report.ignored),
        ("missing", report.mismatch.missing),
        ("unexpected", report.mismatch.unexpected),
        ("wrongly shaped", report.mismatch.misshaped),
    ):
        if names:
            logger.info("%s: %s", what, ", ".join(names))
