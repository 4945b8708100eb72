"""Where weights come from: files, folders and hub ids, read into a state dict on the CPU."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from coopmap.models.hub import (
    CARD_FILE,
    CONFIG_FILE,
    MODELS,
    WEIGHTS_FILE,
    EncoderKind,
    encoder_of,
    fetch,
    read_config,
    read_license,
)
from coopmap.models.lora import merged_state
from coopmap.models.torchfile import TorchFile
from coopmap.models.unpickling import TensorRef

HUB_ID = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")
DINOV2_ONLY = "mask_token"
"""A tensor of every official DINOv2 backbone, and of no MapAnything checkpoint."""


@dataclass(frozen=True)
class Weights:
    """A state dict and its provenance, to be recorded with every run that starts from it.

    Attributes:
        tensors: name to tensor, under MapAnything's names.
        source: file or hub id.
        revision: commit of the hub repository.
        sha256: hash of the file.
        license: as the model card states it.
        ignored: pickled classes that were not rebuilt.
        is_backbone: an official DINOv2 backbone, which has an encoder's weights only.
        upstream_config: content of the ``config.json`` beside a released file.
        base: record of the weights that these were trained from, if one of our checkpoints has it.
    """

    tensors: Mapping[str, Tensor]
    source: str = "state dict"
    revision: str | None = None
    sha256: str | None = None
    license: str | None = None
    ignored: tuple[str, ...] = ()
    is_backbone: bool = False
    upstream_config: Mapping[str, Any] | None = None
    base: Mapping[str, Any] | None = None


def read_weights(source: str | Path | Mapping[str, Tensor], expected: EncoderKind | None = None) -> Weights:
    """Read weights from wherever ``source`` points to; tensors of files are memory-mapped, and changes stay private.

    Args:
        source: state dict; file (``.safetensors``, or anything that ``torch.save`` wrote: a state dict, upstream's
            ``{"model": ...}``, a Lightning checkpoint, an official DINOv2 backbone); folder with
            ``model.safetensors``; or hub id ``owner/name[@revision]``. Whatever exists as a path is treated as one:
            only other names access the network.
        expected: encoder of the model; a hub repository with another one is not downloaded.

    Raises:
        FileNotFoundError: if ``source`` is neither, or a hub id that is not in the cache and cannot be downloaded.
        ValueError: if the file holds no weights or is damaged.
        WeightsMismatchError: see ``expected``.
    """
    if isinstance(source, Mapping):
        return _weights(source, "state dict")
    path = Path(source).expanduser()
    if path.is_dir():
        if not (path / WEIGHTS_FILE).is_file():
            raise FileNotFoundError(f"{path}: expected a file {WEIGHTS_FILE} in this folder")
        config, license = read_config(path / CONFIG_FILE), read_license(path / CARD_FILE)
        return replace(_read_file(path / WEIGHTS_FILE), license=license, upstream_config=config)
    if path.is_file():
        return _read_file(path)
    if (match := HUB_ID.fullmatch(str(source))) and path.suffix.lower() not in {".ckpt", ".pt", ".pth", ".safetensors"}:
        return _read_hub(match["repo"], match["revision"], expected)
    raise FileNotFoundError(f"model.weights={source}: no such file or folder, and not a hub id owner/name[@revision]")


def architecture(source: str | Path) -> str | None:
    """Choice of ``model`` that weights are for, as far as their ``config.json`` or their release tells; else ``None``.

    Of a hub id this may download the ``config.json``, never the weights.
    """
    path = Path(source).expanduser()
    if path.exists():
        folder = path if path.is_dir() else path.parent
        kind = EncoderKind.of_upstream_config(read_config(folder / CONFIG_FILE))
    elif match := HUB_ID.fullmatch(str(source)):
        kind = encoder_of(match["repo"], match["revision"])
    else:
        return None
    return MODELS.get(kind) if kind else None


def _read_hub(repo: str, revision: str | None, expected: EncoderKind | None) -> Weights:
    snapshot = fetch(repo, revision, expected)
    weights = _read_file(snapshot.weights)
    if snapshot.sha256 not in (None, weights.sha256):
        raise ValueError(
            f"{snapshot.weights}: not the weights that {repo}@{snapshot.revision} stands for (sha256 {weights.sha256}, "
            f"expected {snapshot.sha256}); delete the file to have it downloaded again"
        )
    return replace(
        weights,
        source=repo,
        revision=snapshot.revision,
        license=snapshot.license,
        upstream_config=snapshot.config,
    )


def read_plain(checkpoint: str | Path) -> dict[str, Any]:
    """The plain values in one of our checkpoints, including its record of the run; reads no tensors.

    Raises:
        ValueError: if it is not a ``torch.save`` archive of a dictionary.
    """
    content = TorchFile(Path(checkpoint)).content
    if not isinstance(content, dict):
        raise ValueError(f"{checkpoint}: not a checkpoint")
    return {key: _plain(content.get(key)) for key in ("global_step", "coopmap")}


def read_record(checkpoint: str | Path) -> dict[str, Any] | None:
    """The record in one of our checkpoints of the weights that its run started from; reads no tensors.

    Raises:
        ValueError: if it is not a ``torch.save`` archive of a dictionary.
    """
    return _record(read_plain(checkpoint))


def _record(content: Any) -> dict[str, Any] | None:
    ours = content.get("coopmap") if isinstance(content, dict) else None
    record = ours.get("weights") if isinstance(ours, dict) else None
    return _plain(record) if isinstance(record, dict) else None


def _plain(value: Any) -> Any:
    """Plain values only; anything else becomes ``None``."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        return [_plain(item) for item in value]
    return value if isinstance(value, str | int | float | bool) else None


def _read_file(path: Path) -> Weights:
    with path.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    if path.suffix == ".safetensors":
        try:
            return _weights(load_file(path), str(path), sha256=sha256)
        except SafetensorError as error:
            raise ValueError(f"{path}: not a safetensors file, or damaged: {error}") from error
    file = TorchFile(path)
    references = _find_state_dict(file.content)
    if not references:
        raise ValueError(f"{path}: holds no tensors under 'model', 'state_dict' or at the top level")
    tensors = {name: file.tensor(reference) for name, reference in references.items()}
    base = _record(file.content)
    provenance = {"license": base.get("license") if base else None, "base": base}
    return _weights(tensors, str(path), sha256=sha256, ignored=tuple(sorted(file.ignored)), **provenance)


def _find_state_dict(content: Any) -> dict[str, TensorRef]:
    for candidate in _candidates(content):
        found = {name: value for name, value in candidate.items() if isinstance(value, TensorRef)}
        if found and all(isinstance(name, str) for name in found):
            return found
    return {}


def _candidates(content: Any) -> Iterator[dict]:
    if isinstance(content, dict):
        for key in ("model", "state_dict"):
            if isinstance(content.get(key), dict):
                yield content[key]
        yield content


def _weights(tensors: Mapping[str, Tensor], source: str, **provenance: Any) -> Weights:
    """Give the tensors MapAnything's names.

    Lightning and DDP put a prefix before every name, ``torch.compile`` one before the names of what it compiled;
    low-rank updates are added to their weights.
    """
    named = merged_state({name.replace("_orig_mod.", ""): tensor for name, tensor in tensors.items()})
    if DINOV2_ONLY in named:
        named = {f"encoder.model.{name}": tensor for name, tensor in named.items() if name != DINOV2_ONLY}
        return Weights(named, source, is_backbone=True, **provenance)
    for prefix in ("module.", "model."):
        if any(name.startswith(f"{prefix}encoder.model.") for name in named):
            # A Lightning module may hold other tensors, of its losses or metrics; they are not weights.
            named = {name.removeprefix(prefix): tensor for name, tensor in named.items() if name.startswith(prefix)}
    return Weights(named, source, **provenance)
