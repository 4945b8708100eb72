"""Time of matching and alignment beside the released model at full size, for docs/matching.md.

python docs/measure_matching.py [VIEWS]

V1 with random weights, panoramas of 252 x 1008, four agents unless said; on a GPU if there is one. Of an answer: the
model's pass, and in it matching, alignment, averaging and the bundle of all pairs. Of a training step: matching and
alignment forward and backward, on inputs of their own, beside three of the model's passes, which is what its step takes
at least.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from coopmap import load_config
from coopmap.models import MapAnything
from coopmap.models.addons.base import Trunk
from coopmap.types import Observation, Prediction

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
HEIGHT, WIDTH = 252, 1008
CALLS = 2


def seconds(run: Callable[[], Any]) -> float:
    """The fastest of a few calls, after one to warm up; after all that was started is done."""
    taken = []
    for _ in range(CALLS + 1):
        start = time.perf_counter()
        run()
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - start)
    return min(taken[1:])


def leaf(value: Tensor) -> Tensor:
    """The same numbers, whose gradient is asked for."""
    return value.detach().clone().requires_grad_()


def main() -> None:
    """Print a table."""
    views = int(sys.argv[1]) if sys.argv[1:] else 4
    changes = ["model=mapanything_v1", "model.matching.enabled=true", "model.pose_from=alignment"]
    model = MapAnything(load_config(["machine=laptop", *changes]).model)
    model.to(DEVICE).eval()
    rays = torch.nn.functional.normalize(torch.randn(1, views, HEIGHT, WIDTH, 3, device=DEVICE), dim=-1)
    observation = Observation(images=torch.rand(1, views, 3, HEIGHT, WIDTH, device=DEVICE), rays=rays)
    given: list[tuple[Prediction, Trunk]] = []
    answer = model.matching.after_decoding
    model.matching.after_decoding = lambda prediction, trunk, seen: given.append((prediction, trunk)) or prediction
    with torch.no_grad():
        whole = seconds(lambda: model(observation))
        prediction, trunk = given[-1]
        answered = seconds(lambda: answer(prediction, trunk, observation))
    model.matching.train()
    prediction = replace(prediction, depth=leaf(prediction.depth), rays=leaf(prediction.rays))
    trunk = trunk._replace(layers={number: leaf(tokens) for number, tokens in trunk.layers.items()})

    def step() -> None:
        matches = answer(prediction, trunk, observation).matches
        (matches.scores.square().mean() + matches.pose.square().mean()).backward()

    trained = seconds(step)
    print(f"{views} agents on {DEVICE}, {torch.get_num_threads()} CPU threads")
    print("| | the model (ms) | matching and alignment (ms) | share |")
    print("|---|---:|---:|---:|")
    for label, one, other in (("answer", whole, answered), ("training step", 3 * whole, trained)):
        print(f"| {label} | {1e3 * one:,.0f} | {1e3 * other:,.1f} | {other / one:.2%} |")


if __name__ == "__main__":
    main()
