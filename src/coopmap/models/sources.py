"""Where weights come from: files, folders and hub ids, read into a state dict on the CPU."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from coopmap.models.torchfile import TensorRef, TorchFile

logger = logging.getLogger(__name__)

HUB_ID = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w.-]+))?")
FOLDER_FILE = "model.safetensors"
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
    """

    tensors: Mapping[str, Tensor]
    source: str = "state dict"
    revision: str | None = None
    sha256: str | None = None
    license: str | None = None
    ignored: tuple[str, ...] = ()
    is_backbone: bool = False


def read_weights(source: str | Path | Mapping[str, Tensor]) -> Weights:
    """Read weights from wherever ``source`` points to.

    Args:
        source: state dict; file (``.safetensors``, or anything that ``torch.save`` wrote: a state dict, upstream's
            ``{"model": ...}``, a Lightning checkpoint, an official DINOv2 backbone); folder with
            ``model.safetensors``; or hub id ``owner/name[@revision]``. What exists as a path is one: only other names
            reach for the network.

    Raises:
        FileNotFoundError: if ``source`` is neither.
        ValueError: if the file holds no weights or is damaged.
    """
    if isinstance(source, Mapping):
        return _weights(source, "state dict")
    path = Path(source).expanduser()
    if path.is_dir():
        if not (path / FOLDER_FILE).is_file():
            raise FileNotFoundError(f"{path}: expected a file {FOLDER_FILE} in this folder")
        return replace(_read_file(path / FOLDER_FILE), license=_license(path / "README.md"))
    if path.is_file():
        return _read_file(path)
    if (match := HUB_ID.fullmatch(str(source))) and path.suffix.lower() not in {".ckpt", ".pt", ".pth", ".safetensors"}:
        return _read_hub(match["repo"], match["revision"])
    raise FileNotFoundError(f"model.weights={source}: no such file or folder, and not a hub id owner/name[@revision]")


def _read_hub(repo: str, revision: str | None) -> Weights:
    from huggingface_hub import hf_hub_download  # only a hub id needs it
    from huggingface_hub.utils import EntryNotFoundError

    file = Path(hf_hub_download(repo, FOLDER_FILE, revision=revision))
    commit = file.parent.name  # .../snapshots/<commit>/model.safetensors
    if revision is None:
        logger.warning("%s may change; to repeat this run, use model.weights=%s@%s", repo, repo, commit)
    try:
        card = Path(hf_hub_download(repo, "README.md", revision=commit))
    except EntryNotFoundError:
        card = file.parent / "README.md"
    return replace(_read_file(file), source=repo, revision=commit, license=_license(card))


def _license(card: Path) -> str | None:
    """The ``license:`` line of a model card."""
    if not card.is_file():
        return None
    match = re.search(r"^license:\s*(\S+)", card.read_text(encoding="utf-8", errors="replace"), re.MULTILINE)
    return match[1] if match else None


def _read_file(path: Path) -> Weights:
    with path.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    if path.suffix == ".safetensors":
        return _weights(load_file(path), str(path), sha256=sha256)
    file = TorchFile(path)
    references = _find_state_dict(file.content)
    if not references:
        raise ValueError(f"{path}: holds no tensors under 'model', 'state_dict' or at the top level")
    tensors = {name: file.tensor(reference) for name, reference in references.items()}
    return _weights(tensors, str(path), sha256=sha256, ignored=tuple(sorted(file.ignored)))


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

    Lightning and DDP put a prefix before every name, ``torch.compile`` one before the names of what it compiled.
    """
    named = {name.replace("_orig_mod.", ""): tensor for name, tensor in tensors.items()}
    if DINOV2_ONLY in named:
        named = {f"encoder.model.{name}": tensor for name, tensor in named.items() if name != DINOV2_ONLY}
        return Weights(named, source, is_backbone=True, **provenance)
    for prefix in ("module.", "model."):
        if any(name.startswith(f"{prefix}encoder.model.") for name in named):
            # A Lightning module may hold other tensors, of its losses or metrics; they are no weights.
            named = {name.removeprefix(prefix): tensor for name, tensor in named.items() if name.startswith(prefix)}
    return Weights(named, source, **provenance)
