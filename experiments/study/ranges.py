"""Errors of ranges at cells by distance, which are half of the error of aligned poses.

    python experiments/study/ranges.py RUN [OVERRIDE ...]

of a run of a matching model, on the ``test`` split. An error is that of the network's range at the center of a cell,
against the known range there; beside it the error of always answering the median range of the cell's row of patches
(over the whole split), which knows the ground and nothing of the street.
"""

from __future__ import annotations

import sys
from itertools import pairwise

import torch
from torch import Tensor

from coopmap.config.evaluate import EvaluateConfig
from coopmap.evaluation.data import EvaluationData
from coopmap.evaluation.subject import open_subject
from coopmap.geometry.cells import at_centers
from coopmap.report.tables import Column, Row, Section, Table

EDGES_M = (0, 5, 10, 15, 20, 30, 50, 100)


@torch.no_grad()
def collect(run: str, overrides: list[str]) -> tuple[Tensor, Tensor, Tensor]:
    """Row of patches, true range and answered range of each cell whose range is known, in meters."""
    subject = open_subject(EvaluateConfig(run=run, split="test"), overrides)
    module, patch = subject.module.eval(), subject.config.model.encoder.patch_size
    data, cells = EvaluationData(subject.config, "test"), []
    for number, loaded in enumerate(data.val_dataloader()):
        batch = data.on_after_batch_transfer(loaded, 0)
        depth, target = module(module.with_inputs(batch.observation, number)).depth, batch.target
        row = torch.arange(depth.shape[-2]).float()[:, None].expand(depth.shape) // patch
        valid = at_centers(target.valid, patch)
        cells.append(torch.stack([at_centers(values, patch)[valid] for values in (row, target.depth, depth)]))
    row, true, answered = torch.cat(cells, dim=1)
    return row.long(), true, answered


def row_medians(row: Tensor, true: Tensor) -> Tensor:
    """The median true range of its row, for each cell."""
    medians = torch.zeros(int(row.max()) + 1)
    for number in row.unique():
        medians[number] = true[row == number].median()
    return medians[row]


def main() -> None:
    """Print the table."""
    if not sys.argv[1:]:
        sys.exit(__doc__)
    row, true, answered = collect(sys.argv[1], sys.argv[2:])
    guessed, rows = row_medians(row, true), []
    for low, high in [*pairwise(EDGES_M), (0, float("inf"))]:
        here = (true >= low) & (true < high)
        if here.any():
            t, a, g = true[here], answered[here], guessed[here]
            label = "all" if high == float("inf") else f"{low} to {high} m"
            errors = [f"{((a - t).abs()).median():.2f}", f"{((a - t).abs() / t).median():.1%}"]
            errors += [f"{((a - t) / t).median():+.1%}", f"{((g - t).abs() / t).median():.0%}"]
            rows.append(Row([label, int(here.sum()), *errors]))
    names = ("distance", "cells", "error, median (m)", "relative", "bias", "median of the row")
    columns = [Column(name, align="left" if name == "distance" else "right") for name in names]
    print(Table("Errors of ranges", columns, [Section(rows)]).markdown())


if __name__ == "__main__":
    main()
