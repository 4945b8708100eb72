"""Weights on the Hugging Face hub: which revision a name stands for, and its download.

The names under which MapAnything is released have stood for different models over time, so a name alone is not enough
to repeat a run. The table pins those that are known; everything else resolves to its newest revision, with a warning.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

logger = logging.getLogger(__name__)

WEIGHTS_FILE, CONFIG_FILE, CARD_FILE = "model.safetensors", "config.json", "README.md"
COMMIT = re.compile(r"[0-9a-f]{40}")

DINOV2_SIZES = {"small": (12, 384), "base": (12, 768), "large": (24, 1024), "giant": (40, 1536)}
"""Upstream's names of the vision transformers, their numbers of blocks and widths."""

VIT_NAMES = {width: f"ViT-{letter}" for (_, width), letter in zip(DINOV2_SIZES.values(), "SBLg", strict=True)}


class WeightsMismatchError(ValueError):
    """Weights that do not fit the model; the message lists the names."""


class EncoderKind(NamedTuple):
    """What identifies an image encoder."""

    blocks: int
    width: int

    def __str__(self) -> str:
        vit = f" ({VIT_NAMES[self.width]})" if self.width in VIT_NAMES else ""
        return f"{self.blocks} blocks of width {self.width}{vit}"

    @classmethod
    def of_upstream_config(cls, config: Mapping[str, Any] | None) -> EncoderKind | None:
        """The encoder that a released ``config.json`` names, ``None`` if it names none that is known."""
        encoder = (config or {}).get("encoder_config")
        if not isinstance(encoder, Mapping) or encoder.get("size") not in DINOV2_SIZES:
            return None
        blocks, width = DINOV2_SIZES[encoder["size"]]
        kept = encoder.get("keep_first_n_layers")
        return cls(kept if isinstance(kept, int) else blocks, width)


MODELS = {EncoderKind(24, 1024): "mapanything_v1", EncoderKind(24, 1536): "mapanything_v11"}
"""Choice of ``model`` that has the encoder."""


@dataclass(frozen=True)
class Release:
    """Public weights.

    Attributes:
        encoder: their encoder.
        license: as their card states it.
        revision: commit that the bare name stands for here; ``None`` if none is pinned.
        sha256: hash of the weights at that commit.
    """

    encoder: EncoderKind
    license: str
    revision: str | None = None
    sha256: str | None = None


RELEASES = {
    "facebook/map-anything": Release(
        EncoderKind(24, 1536),
        "cc-by-nc-4.0",
        "a1d87e9086706fb9974f3be5a3e3a0ca5401c5aa",
        "981f060c64664dff3272b5f5a823d350abe71a2f144444db4cfc325f3ed5a3a0",
    ),
    "facebook/map-anything-apache": Release(
        EncoderKind(24, 1536),
        "apache-2.0",
        "00f9c245bbcb60522d1ed7f9e9d88462c6e3f38a",
        "fa06c0fdccefc5048e072c85935d5789b1e36b307f3859033c17f9dcb9fd5201",
    ),
    "facebook/map-anything-v1": Release(EncoderKind(24, 1024), "cc-by-nc-4.0"),
    "facebook/map-anything-apache-v1": Release(EncoderKind(24, 1024), "apache-2.0"),
}


@dataclass(frozen=True)
class Snapshot:
    """Files of a repository at one commit, on this machine.

    Attributes:
        revision: the commit.
        weights: safetensors file.
        config: upstream's configuration, if there is one.
        license: of the weights.
        sha256: expected hash of the weights, if known.
    """

    revision: str
    weights: Path
    config: Mapping[str, Any] | None
    license: str | None
    sha256: str | None


def fetch(repo: str, revision: str | None, expected: EncoderKind | None) -> Snapshot:
    """Bring a repository's weights into the local cache; a pinned commit in the cache needs no network.

    Args:
        repo: ``owner/name``.
        revision: commit, branch or tag; ``None`` = the pinned one, else the newest.
        expected: refuse a repository whose configuration names another encoder, before its weights are downloaded.

    Raises:
        FileNotFoundError: if it is not in the cache and cannot be downloaded.
        WeightsMismatchError: see ``expected``.
    """
    release = RELEASES.get(repo)
    pinned = release.revision if release else None
    if revision is None and pinned:
        logger.info("%s: pinned to revision %s", repo, pinned)
    wanted = revision or pinned
    file = _optional(repo, CONFIG_FILE, wanted)
    config = read_config(file) if file else None
    kind = EncoderKind.of_upstream_config(config) or (release.encoder if release and wanted == pinned else None)
    if expected and kind and kind != expected:
        raise WeightsMismatchError(f"{repo} does not fit the model: {different_encoder(kind, expected)}")

    weights = _download(repo, WEIGHTS_FILE, wanted)
    commit = weights.parent.name if COMMIT.fullmatch(weights.parent.name) else str(wanted)  # .../snapshots/<commit>/
    if not COMMIT.fullmatch(wanted or ""):
        logger.warning("%s may change; to repeat this run, use model.weights=%s@%s", repo, repo, commit)
    license = read_license(_optional(repo, CARD_FILE, commit)) or (release.license if release else None)
    sha256 = release.sha256 if release and commit == pinned else None
    return Snapshot(commit, weights, config, license, sha256)


def encoder_of(repo: str, revision: str | None = None) -> EncoderKind | None:
    """The encoder of a repository's weights: as known of the pinned release, else as its configuration names it."""
    release = RELEASES.get(repo)
    if release and revision in (None, release.revision):
        return release.encoder
    file = _optional(repo, CONFIG_FILE, revision)
    return EncoderKind.of_upstream_config(read_config(file)) if file else None


def different_encoder(kind: EncoderKind, expected: EncoderKind) -> str:
    """Says which encoders differ and which model to choose."""
    hint = f"choose model={MODELS[kind]}" if kind in MODELS else "choose another model=...?"
    return f"its encoder has {kind}, model.encoder {expected} ({hint})"


def _download(repo: str, name: str, revision: str | None) -> Path:
    from huggingface_hub import hf_hub_download  # only a hub id needs it
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    at = f"{repo}@{revision}" if revision else repo
    try:
        return Path(hf_hub_download(repo, name, revision=revision))
    except LocalEntryNotFoundError as error:
        option = f" --revision {revision}" if revision else ""
        raise FileNotFoundError(
            f"model.weights={at}: not in the local cache, and the hub cannot be reached (no network, or HF_HUB_OFFLINE "
            f"is set). Run `hf download {repo}{option}` where there is a network and copy the cache (HF_HOME), or give "
            f"model.weights=FOLDER with a copy of the repository"
        ) from error
    except EntryNotFoundError as error:
        raise FileNotFoundError(f"model.weights={at}: the repository has no file {name}") from error
    except HfHubHTTPError as error:
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise FileNotFoundError(f"model.weights={at}: the hub answers: {reason}") from error


def _optional(repo: str, name: str, revision: str | None) -> Path | None:
    try:
        return _download(repo, name, revision)
    except FileNotFoundError:
        return None


def read_config(path: Path) -> Mapping[str, Any] | None:
    """A ``config.json``; ``None`` if there is none or it is not a JSON object."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return config if isinstance(config, dict) else None


def read_license(card: Path | None) -> str | None:
    """The ``license:`` line of a model card."""
    if card is None or not card.is_file():
        return None
    match = re.search(r"^license:\s*(\S+)", card.read_text(encoding="utf-8", errors="replace"), re.MULTILINE)
    return match[1] if match else None
