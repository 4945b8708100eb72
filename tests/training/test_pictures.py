"""Pictures of matches hold what was aligned."""

from __future__ import annotations

from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch

from coopmap import load_config
from coopmap.config.synth import TownConfig
from coopmap.data.normalization import normalize
from coopmap.geometry.cells import at_centers, by_agent
from coopmap.models.addons.matching.cells import cell_points
from coopmap.models.addons.matching.matches import assignment, correspond
from coopmap.training.assembly import build_datamodule, build_module
from coopmap.training.module import PoseLearner
from coopmap.training.pictures import (
    _picture,
    _places,
    draw_pair,
    matched_points,
    matching_head,
    pair_picture,
    write_example,
)
from coopmap.types import Batch
from coopmap.types.agents import cameras_per_agent

MATCHING = ("model.matching.enabled=true", "model.pose_from=alignment")


def run_of(town: TownConfig, tiny_model: tuple[str, ...], *keys: str):
    roots = (f"data.root={town.root}", f"data.depth_root={town.depth_root}", "data.num_workers=0")
    config = load_config([*tiny_model, *roots, *keys])
    datamodule = build_datamodule(config)
    datamodule.setup("validate")
    return build_module(config).eval(), datamodule


@torch.no_grad()
def first_prediction(module: PoseLearner, datamodule):
    batch: Batch = normalize(next(iter(datamodule.val_dataloader())))
    observation = module.with_inputs(batch.observation, 0)
    return batch, observation, module(observation)


@pytest.mark.parametrize("layout", ["panorama", "cameras"])
def test_the_points_are_those_that_were_aligned(town: TownConfig, tiny_model: tuple[str, ...], layout: str) -> None:
    module, datamodule = run_of(town, tiny_model, *MATCHING, f"data.layout={layout}", "data.max_views_per_gpu=16")
    batch, observation, prediction = first_prediction(module, datamodule)
    head = matching_head(module.model)
    assert head is not None
    one, sample = (record.map(lambda values: values[:1]) for record in (prediction, observation))
    matches, views = one.matches, cameras_per_agent(sample)
    rows, columns = assignment(matches.scores, matches.unmatched)
    points = cell_points(one, sample, 14, "calibrated")
    seen = by_agent(at_centers(one.mask_logits, 14).sigmoid(), views)
    grid = one.depth.shape[2] // 14, one.depth.shape[3] // 14
    number = matches.weight.shape[-1]
    found = correspond(rows, columns, matches.query, matches.keys, points, seen, grid, number)
    for pair in range(matches.pose.shape[1]):
        of_i, of_j = matched_points(head, one, sample, pair)
        assert torch.allclose(of_i, found.points_i[0, pair], atol=1e-5)
        assert torch.allclose(of_j, found.points_j[0, pair], atol=1e-5)
    picture = pair_picture(head, prediction, observation, batch.target, 0, 0)
    assert picture.ends == (0, 1)
    assert views == (4 if layout == "cameras" else 1)
    height, width = observation.rays.shape[2:4]
    assert picture.pictures[0].shape == (height, views * width, 3)
    assert np.abs(picture.pictures[0].astype(float).mean() - 128) < 90
    assert (picture.places >= 0).all()
    assert (picture.places <= [views * width, height]).all()


def test_pictures_show_the_answer_at_the_precision_of_validations(
    town: TownConfig, tiny_model: tuple[str, ...]
) -> None:
    module, datamodule = run_of(town, tiny_model, *MATCHING)
    module.trainer = L.Trainer(accelerator="cpu", precision="bf16-mixed", logger=False, enable_checkpointing=False)
    casts: list[bool] = []
    module.model.register_forward_pre_hook(lambda *_: casts.append(torch.is_autocast_enabled("cpu")))
    assert draw_pair(module, normalize(next(iter(datamodule.val_dataloader()))), 0, 0) is not None
    assert casts == [True]


def test_of_cameras_that_are_fused_the_panorama_is_shown(town: TownConfig, tiny_model: tuple[str, ...]) -> None:
    _, datamodule = run_of(town, tiny_model, "model/fusion=mean", "data.layout=grouped")
    observation = normalize(next(iter(datamodule.val_dataloader()))).observation
    picture = _picture(observation, 1, 1)
    assert picture.shape == (*observation.rays.shape[2:4], 3)
    assert picture.reshape(-1, 3).std(axis=0).min() > 5  # no plain gray


def test_cells_lie_where_their_views_do(town: TownConfig, tiny_model: tuple[str, ...]) -> None:
    """The last cell of the second camera of two rows and four columns each."""
    _, datamodule = run_of(town, tiny_model, "data.layout=cameras", "data.cameras.height=28", "data.cameras.width=56")
    observation = normalize(next(iter(datamodule.val_dataloader()))).observation
    places = _places(torch.tensor([[0, 15], [7, 8]]), observation, 14)
    assert places.tolist() == [[[7, 7], [56 + 49, 21]], [[49, 21], [56 + 7, 7]]]


def test_an_example_is_written_if_the_model_matches(
    town: TownConfig, tiny_model: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coopmap.training.pictures.COVISIBLE", 0.0)
    file = tmp_path / "matches.png"
    assert write_example(*run_of(town, tiny_model, *MATCHING), file) == file
    assert file.stat().st_size > 10_000
    assert write_example(*run_of(town, tiny_model), tmp_path / "none.png") is None
    assert not (tmp_path / "none.png").exists()
