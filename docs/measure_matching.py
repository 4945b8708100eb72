"""Time of matching and alignment beside the released model at full size, for docs/matching.md.

python docs/measure_matching.py [VIEWS]

V1 with random weights, panoramas of 252 x 1008, four agents unless said; on a GPU if there is one. Of an answer: the
model's pass, and in it matching, alignment, averaging and the bundle of all pairs. Of a training step: matching and
alignment forward and backward, on inputs of their own, beside three of the model's passes, which is what its step takes
at least.

On a GPU, a second table: answers and steps (forward and backward, everything checkpointed, bfloat16) with and without;
how long the host takes to start their operations, and how long the GPU computes.
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
Row = dict[str, float]


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
        alone = seconds(lambda: answer(prediction, trunk, observation))
    model.matching.train()
    prediction = replace(prediction, depth=leaf(prediction.depth), rays=leaf(prediction.rays))
    trunk = trunk._replace(layers={number: leaf(tokens) for number, tokens in trunk.layers.items()})

    def step() -> None:
        matches = answer(prediction, trunk, observation).matches
        (matches.scores.square().mean() + matches.pose.square().mean()).backward()

    taken = seconds(step)
    print(f"{views} agents on {DEVICE}, {torch.get_num_threads()} CPU threads")
    print("| | the model (ms) | matching and alignment (ms) | share |")
    print("|---|---:|---:|---:|")
    for label, one, other in (("answer", whole, alone), ("training step", 3 * whole, taken)):
        print(f"| {label} | {1e3 * one:,.0f} | {1e3 * other:,.1f} | {other / one:.2%} |")
    if DEVICE.type == "cuda":
        model.matching.after_decoding = answer
        on_a_gpu(model, observation)


def on_a_gpu(model: MapAnything, observation: Observation) -> None:
    """Print how long the GPU computes, and how long operations take to be started."""
    answer = model.matching.after_decoding
    print("| | until done (ms) | until started (ms) | the GPU computes (ms) | kernels |")
    print("|---|---:|---:|---:|---:|")
    for label, run in (("answer", answered), ("training step", trained)):
        for name, hook in (("without", lambda prediction, trunk, seen: prediction), ("with", answer)):
            model.matching.after_decoding = hook
            model.train(run is trained)
            row = timed(lambda run=run: run(model, observation))  # type: ignore[misc]
            print(
                f"| {label} {name} | {row['done']:.1f} | {row['started']:.1f} | {row['busy']:.1f} | {row['kernels']} |"
            )


def answered(model: MapAnything, observation: Observation) -> None:
    with torch.no_grad(), torch.autocast(DEVICE.type, dtype=torch.bfloat16):
        model(observation)


def trained(model: MapAnything, observation: Observation) -> None:
    model.zero_grad(set_to_none=True)
    with torch.autocast(DEVICE.type, dtype=torch.bfloat16):
        answer = model(observation)
    loss = answer.depth.float().mean() + answer.rays.float().mean() + answer.pose_trans.float().mean()
    if answer.matches is not None:
        loss = loss + answer.matches.scores.float().square().mean() + answer.matches.pose.float().square().mean()
    loss.backward()


def timed(run: Callable[[], Any]) -> Row:
    """Milliseconds, and the number of kernels."""
    done = seconds(run)
    start = time.perf_counter()
    run()
    started = time.perf_counter() - start
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        run()
        torch.cuda.synchronize()
    kernels = [event for event in profile.key_averages() if event.self_device_time_total > 0]
    busy = sum(event.self_device_time_total for event in kernels) / 1e3
    return {"done": 1e3 * done, "started": 1e3 * started, "busy": busy, "kernels": sum(e.count for e in kernels)}


if __name__ == "__main__":
    main()
