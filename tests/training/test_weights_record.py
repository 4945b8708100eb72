"""Runs and checkpoints tell where their first weights came from."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_model

from coopmap import ConfigError, build_model, load_config
from coopmap.training.assembly import build_module

Saved = Callable[..., dict[str, Any]]


@pytest.fixture
def release(tiny_model: tuple[str, ...], tmp_path: Path) -> Path:
    """A folder with weights and a model card."""
    folder = tmp_path / "release"
    folder.mkdir()
    save_model(build_model(load_config(tiny_model)), str(folder / "model.safetensors"))
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    return folder


@pytest.fixture
def saved(tiny_model: tuple[str, ...]) -> Saved:
    """What a run with given overrides puts into its checkpoints."""

    def save(*overrides: str) -> dict[str, Any]:
        checkpoint: dict[str, Any] = {}
        build_module(load_config([*tiny_model, *overrides])).on_save_checkpoint(checkpoint)
        return checkpoint

    return save


def test_a_run_records_its_weights_and_a_resumed_one_keeps_the_record(release, saved, tmp_path):
    checkpoint = saved(f"model.weights={release}")
    record = checkpoint["coopmap"]["weights"]
    assert (record["source"], record["license"]) == (f"{release}/model.safetensors", "apache-2.0")
    assert len(record["sha256"]) == 64
    assert record["missing"] == record["left_out"] == []

    path = tmp_path / "last.ckpt"
    torch.save(checkpoint, path)
    assert torch.load(path, weights_only=True)["coopmap"]["weights"] == record
    (release / "README.md").write_text("---\nlicense: changed\n---\n")
    assert saved(f"model.weights={release}", f"resume={path}")["coopmap"]["weights"] == record


def test_a_run_from_scratch_records_none(saved):
    assert saved()["coopmap"]["weights"] is None


def test_weights_that_do_not_fit_end_the_run_with_the_key(release, saved):
    with pytest.raises(ConfigError, match=r"^model\.weights=.*release: .*does not fit the model: its encoder has"):
        saved(f"model.weights={release}", "model.encoder.depth=2")
