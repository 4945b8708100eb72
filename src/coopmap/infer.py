"""``coopmap infer``: points, depth and poses of a folder of images or a frame of a data set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from coopmap.cli.main import run_entry_point
from coopmap.config.infer import InferConfig, InferenceOptions

if TYPE_CHECKING:
    from jaxtyping import Bool
    from torch import Tensor, nn

    from coopmap.inference import Inference
    from coopmap.types import Observation, Prediction


def infer(
    model: nn.Module | Callable[[Observation], Prediction],
    observation: Observation,
    options: InferenceOptions | None = None,
    covered: Bool[Tensor, "v h w"] | None = None,
) -> Inference:
    """Run a model on one sample's views and post-process its prediction; see :func:`coopmap.inference.infer`."""
    from coopmap.inference import infer as run

    return run(model, observation, options, covered)


def infer_command(asked: InferConfig, overrides: Sequence[str]) -> None:
    """Run, print the poses and the paths of the written files."""
    from coopmap.inference.command import run_inference
    from coopmap.runs.logs import log_to

    log_to(None)
    for file in run_inference(asked, overrides):
        print(f"written to {file}")


def main() -> None:
    """Command line."""
    run_entry_point("infer")


if __name__ == "__main__":
    main()
