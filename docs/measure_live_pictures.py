"""Measure what live pictures and curves cost in a run: seconds per validation, and their share of an epoch.

python docs/measure_live_pictures.py OVERRIDES, which are those of coopmap train; one process.
"""

import itertools
import sys
import time
from collections.abc import Callable
from typing import Any

import lightning as L

from coopmap import load_config
from coopmap.train import train
from coopmap.training.callbacks.live import LivePictures

HOOKS = ("on_validation_start", "on_validation_batch_end", "on_validation_end")
spent: list[tuple[float, float]] = []
"""When a hook ended, and how long it took."""


def timed(hook: Callable[..., None]) -> Callable[..., None]:
    """The hook, with an entry in ``spent`` per call."""

    def call(*arguments: Any, **named: Any) -> None:
        begin = time.perf_counter()
        hook(*arguments, **named)
        end = time.perf_counter()
        spent.append((end, end - begin))

    return call


def main() -> None:
    """Train, and print the shares."""
    for name in HOOKS:
        setattr(LivePictures, name, timed(getattr(LivePictures, name)))
    ends: list[float] = []
    draw = LivePictures.on_validation_end

    def on_validation_end(callback: LivePictures, trainer: L.Trainer, *arguments: Any) -> None:
        draw(callback, trainer, *arguments)
        if (
            trainer.state.fn == "fit" or not ends
        ):  # the first is before training; the best checkpoint is measured after it
            ends.append(time.perf_counter())

    LivePictures.on_validation_end = on_validation_end  # type: ignore[method-assign]
    train(load_config(sys.argv[1:]))
    for number, (begin, end) in enumerate(itertools.pairwise(ends), 1):
        seconds = sum(took for when, took in spent if begin < when <= end)
        share = seconds / (end - begin)
        print(f"epoch {number}: {end - begin:.1f} s, of that pictures and curves {seconds:.2f} s, {share:.2%}")


if __name__ == "__main__":
    main()
