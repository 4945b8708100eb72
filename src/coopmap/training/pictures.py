"""Pictures of what a model matches between two agents of a sample."""

from __future__ import annotations

from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import TypeVar

import lightning as L
import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from coopmap.data.normalization import normalize
from coopmap.geometry.cells import compare, neighbors
from coopmap.geometry.pairs import pair_ends
from coopmap.metrics import agent_poses, measure, predicted_pose
from coopmap.metrics.aggregate import COVISIBLE
from coopmap.models.addons.matching import Matching
from coopmap.models.addons.matching.cells import cell_points
from coopmap.models.addons.matching.matches import between
from coopmap.training.module import PoseLearner
from coopmap.training.scenes import one_row, view_image
from coopmap.types import Batch, Observation, Prediction, SkippedBatch, Target
from coopmap.types.agents import cameras_per_agent
from coopmap.viz.matches import PairPicture, draw_matches

Record = TypeVar("Record", Prediction, Observation, Target)

BATCHES_LOOKED_AT = 12
"""Batches of validation of which the example at the end of training is the median."""
LEAST_AGREEMENT = 0.5
"""Share of its weight that the alignment must have kept of a match that is drawn."""


def matching_head(model: nn.Module) -> Matching | None:
    """The part of the model that matches, or ``None``."""
    return next((part for part in model.modules() if isinstance(part, Matching)), None)


@torch.no_grad()
def pair_picture(
    head: Matching, prediction: Prediction, observation: Observation, target: Target, row: int, pair: int
) -> PairPicture:
    """A pair of agents of one sample of a batch, to be drawn.

    Args:
        head: that matched.
        prediction: of the batch.
        observation: likewise.
        target: likewise.
        row: of the sample.
        pair: number of the pair ``i < j``, ordered 01, 02, ..., 12, ...
    """
    prediction, observation, target = _single(prediction, row), _single(observation, row), _single(target, row)
    matches = prediction.matches
    assert matches is not None
    views = cameras_per_agent(observation)
    true, answer = (agent_poses(pose, target)[0] for pose in (target.pose, predicted_pose(prediction)))
    i, j = (int(end[pair]) for end in pair_ends(len(true)))
    points = matched_points(head, prediction, observation, pair)
    used = matches.inlier[0, pair] > LEAST_AGREEMENT
    places = _places(matches.matched[0, pair][used], observation, head.patch_size)
    row_of = {name: float(values[0, pair]) for name, values in measure(prediction, target).pairs.items()}
    caption = (
        f"{row_of['trans_m']:.2f} m, {row_of['rot_deg']:.2f} deg off; co-visibility {row_of['covisibility']:.0%}, "
        f"expected {row_of['covisibility_pred']:.0%}; confidence {row_of['confidence']:.0%}"
    )
    return PairPicture(
        (i, j),
        tuple(_picture(observation, agent, views) for agent in (i, j)),  # type: ignore[arg-type]
        places,
        matches.weight[0, pair][used].cpu().double().numpy(),
        tuple(of_agent[used].cpu().double().numpy() for of_agent in points),  # type: ignore[arg-type]
        true.cpu().numpy(),
        answer.cpu().numpy(),
        caption,
    )


def _single(record: Record, row: int) -> Record:
    return record.map(lambda values: values[row : row + 1])


def matched_points(
    head: Matching, prediction: Prediction, observation: Observation, pair: int
) -> tuple[Float[Tensor, "m 3"], Float[Tensor, "m 3"]]:
    """The points of the matches of a pair of a single sample, in either agent's frame; a prediction lacks them.

    The first half of the matches are of cells of ``i``: their centers, and where in or around their best cells of ``j``
    they lie; the second half the other way around.
    """
    matches = prediction.matches
    assert matches is not None
    patch, agents = head.patch_size, matches.unmatched.shape[1]
    i, j = (int(end[pair]) for end in pair_ends(agents))
    points = cell_points(prediction, observation, patch, head.cfg.rays)
    grid = prediction.depth.shape[2] // patch, prediction.depth.shape[3] // patch
    found: dict[int, list[Tensor]] = {i: [], j: []}
    for asking, asked, cells in zip((i, j), (j, i), matches.matched[0, pair].chunk(2), strict=True):
        cell, other = cells.unbind(-1) if asking == i else cells.flip(-1).unbind(-1)
        around = neighbors(other, grid)
        logits = compare(matches.query[:1, asking, cell][:, None], matches.keys[:1, asked, None], around[None, None])
        found[asking].append(points.center[0, asking][cell])
        found[asked].append(between(logits[0, 0], points.parts[0, asked][around].flatten(1, 2)))
    return torch.cat(found[i]), torch.cat(found[j])


def _places(cells: Int[Tensor, "m 2"], observation: Observation, patch: int) -> Float[np.ndarray, "m 2 2"]:
    """Centers of cells in the agents' pictures, whose views stand side by side."""
    height, width = (int(size) // patch for size in observation.rays.shape[2:4])
    view, cell = np.divmod(cells.cpu().numpy(), height * width)
    row, column = np.divmod(cell, width)
    return np.stack([view * width + column + 0.5, row + 0.5], axis=-1) * patch


def _picture(observation: Observation, agent: int, views: int) -> UInt8[np.ndarray, "h w 3"]:
    """What an agent sees: its views side by side, at the size of the rays."""
    sample = one_row(observation, 0)
    return np.concatenate([view_image(sample, view) for view in range(agent * views, (agent + 1) * views)], axis=1)


def draw_pair(module: PoseLearner, batch: Batch, row: int, pair: int) -> UInt8[np.ndarray, "h w 3"] | None:
    """A pair of a sample as the model matches it; ``None`` if it does not match."""
    head = matching_head(module.model) if isinstance(module.model, nn.Module) else None
    if head is None:
        return None
    observation, prediction = _predicted(module, batch)
    names = tuple(dict.fromkeys(batch.metas[row].agents))
    return draw_matches(pair_picture(head, prediction, observation, batch.target, row, pair), names)


@torch.no_grad()
def _predicted(module: PoseLearner, batch: Batch) -> tuple[Observation, Prediction]:
    """At the precision of validations: a pair that hangs in the balance falls elsewhere at another."""
    observation = module.with_inputs(batch.observation, 0)
    trainer = module._trainer
    with nullcontext() if trainer is None else trainer.precision_plugin.forward_context():
        return observation, module(observation)


def draw_example(module: PoseLearner, datamodule: L.LightningDataModule) -> UInt8[np.ndarray, "h w 3"] | None:
    """The pair with the median error among the co-visible ones of the first batches of validation.

    ``None`` if the model does not match or there is no such pair.
    """
    if not isinstance(module.model, nn.Module) or matching_head(module.model) is None:
        return None
    module.eval()
    found: list[tuple[float, Batch, int, int]] = []
    for batch in islice(datamodule.val_dataloader(), BATCHES_LOOKED_AT):
        if isinstance(batch, SkippedBatch):
            continue
        moved = normalize(batch.to(module.device))
        rows = measure(_predicted(module, moved)[1], moved.target).pairs
        usable = (rows["covisibility"] > COVISIBLE) & rows["trans_m"].isfinite()
        found += [(float(rows["trans_m"][row, pair]), batch, row, pair) for row, pair in usable.nonzero().tolist()]
    if not found:
        return None
    _, batch, row, pair = sorted(found, key=lambda entry: entry[0])[len(found) // 2]
    return draw_pair(module, normalize(batch.to(module.device)), row, pair)


def write_example(module: PoseLearner, datamodule: L.LightningDataModule, file: Path) -> Path | None:
    """:func:`draw_example` as a file; the path if there is one."""
    picture = draw_example(module, datamodule)
    if picture is None:
        return None
    import cv2

    cv2.imwrite(str(file), picture[..., ::-1])
    return file
