"""A frozen copy of the initial weights, for distillation."""

from __future__ import annotations

import torch
from torch import nn

from coopmap.config import Config, ConfigError
from coopmap.models import build_model
from coopmap.types import Observation, Prediction


class FrozenTeacher:
    """A frozen model.

    Not a module, so that its owner does not count its parameters as its own: they are in no optimizer, no
    checkpoint and no DDP bucket, and a module's ``train()`` leaves it in evaluation mode.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model.eval().requires_grad_(False)

    @torch.no_grad()
    def __call__(self, observation: Observation) -> Prediction:
        """Predict on the observation's device; the weights are moved there on first use."""
        return self.model.to(observation.images.device)(observation)


def build_teacher(config: Config) -> FrozenTeacher | None:
    """The teacher that ``loss.weights.scale_distillation`` needs: ``model.weights``, whatever a run resumes from.

    Raises:
        ConfigError: there are no weights to start from.
    """
    weight = config.loss.weights.scale_distillation
    if weight == 0:
        return None
    if config.model.weights is None:
        raise ConfigError(
            f"loss.weights.scale_distillation={weight}: the teacher is a frozen copy of the start weights, and there "
            f"are none; set model.weights, or the weight to 0"
        )
    return FrozenTeacher(build_model(config))
