"""Lightning's counters of batches, when a run continues with another number of batches per optimizer step."""

from __future__ import annotations

from typing import Any


def count_batches_anew(checkpoint: dict[str, Any], accumulate: int) -> None:
    """Have the loops of a checkpoint stand at the same optimizer step with ``accumulate`` batches per step.

    Epochs and schedules are counted in optimizer steps and stay as they are; batches of an unfinished step are taken
    again, since their gradients are lost.
    """
    before = checkpoint["coopmap"].get("accumulate", accumulate)
    if before == accumulate or "loops" not in checkpoint:
        return
    progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
    for counters in (progress["total"], progress["current"]):
        ready = counters["ready"]
        # the batch in which a checkpoint is written has not been completed
        counters |= {name: ready // before * accumulate - (ready - count) for name, count in counters.items()}
