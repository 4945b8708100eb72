"""The inputs of a term of the objective."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from coopmap.config.checks import ConfigError
from coopmap.config.loss import LossConfig
from coopmap.losses.cells import TrueMatches, true_matches
from coopmap.losses.normalized import NormalizedPair, normalize
from coopmap.types import PairMatches, Prediction, Target, prediction_in_view0


@dataclass(frozen=True)
class LossInputs:
    """One batch, as every term gets it.

    Attributes:
        cfg: settings in the present mode.
        prediction: in meters, float32; in view 0's frame, by its own view 0 with ``loss.convert_to_view0``.
        target: ground truth.
        pair: both in view 0's frame, each divided by its own mean point distance.
        factor: weight of each pixel in the regression terms, whether its depth is known or not; in [0, 1].
        teacher: a frozen model's prediction for the same batch, if there is such a model.
    """

    cfg: LossConfig
    prediction: Prediction
    target: Target
    pair: NormalizedPair
    factor: Float[Tensor, "b v h w"]
    teacher: Prediction | None = None

    @property
    def weight(self) -> Float[Tensor, "b v h w"]:
        """Weight of each pixel in the terms that need its depth."""
        return self.pair.weight

    @cached_property
    def shared(self) -> LossInputs:
        """The same without the depth of foreign views, for terms that compare in view 0's frame."""
        return replace(self, pair=replace(self.pair, weight=self.pair.shared_weight))

    @cached_property
    def total_weight(self) -> Float[Tensor, "b v"]:
        """Its sum over the pixels of each view."""
        return self.pair.weight.sum(dim=(2, 3))

    @property
    def matches(self) -> PairMatches | None:
        """Predicted matches, if there are any."""
        return self.prediction.matches

    @cached_property
    def true_matches(self) -> TrueMatches | None:
        """True matches of the same cells, for all terms that need them."""
        if self.matches is None:
            return None
        return true_matches(self.target, self.matches.unmatched.shape[2], self.cfg.dense_share)

    @cached_property
    def valid(self) -> Bool[Tensor, "b v h w"]:
        """Pixels with known depth and a non-zero weight."""
        return self.pair.weight > 0

    @cached_property
    def dense(self) -> Bool[Tensor, "b v h w"]:
        """Those of them that have normals and gradients."""
        return dense_pixels(self.target, self.cfg) & self.valid

    @cached_property
    def has_depth(self) -> Bool[Tensor, "b v"]:
        """Views with such a pixel."""
        return self.valid.flatten(2).any(dim=-1)


def gather(cfg: LossConfig, prediction: Prediction, target: Target, teacher: Prediction | None = None) -> LossInputs:
    """Convert a batch to the inputs of the terms, in float32.

    Raises:
        ConfigError: see :func:`pixel_factor`.
    """
    prediction = prediction.map(lambda value: value.float() if value.is_floating_point() else value)
    if cfg.convert_to_view0:
        prediction = prediction_in_view0(prediction)
    factor = pixel_factor(target, cfg)
    return LossInputs(cfg, prediction, target, normalize(prediction, target, factor), factor, teacher)


def pixel_factor(target: Target, cfg: LossConfig) -> Float[Tensor, "b v h w"]:
    """Product of the factors of what a pixel shows; 1 for everything else.

    Raises:
        ConfigError: a factor is set and the data does not identify the pixels it concerns.
    """
    factor = target.depth.new_ones(()).expand_as(target.depth)
    for key, field in (("moving_vehicles", "moving"), ("own_body", "own_body")):
        value = getattr(cfg.weights_on, key)
        if value == 1:
            continue
        pixels = getattr(target, field)
        if pixels is None:
            raise ConfigError(
                f"loss.weights_on.{key}={value}: the data does not say which pixels these are (Target.{field}); "
                f"expected 1, or data that does"
            )
        factor = torch.where(pixels, factor * value, factor)
    return factor


def dense_pixels(target: Target, cfg: LossConfig) -> Bool[Tensor, "b v h w"]:
    """Valid pixels of the views whose depth is dense enough to have normals and gradients."""
    if cfg.normals == "synthetic":
        return target.valid & target.is_synthetic[:, None, None, None]
    covered = target.non_ambiguous.sum(dim=(-2, -1), keepdim=True)
    known = (target.valid & target.non_ambiguous).sum(dim=(-2, -1), keepdim=True)
    return target.valid & (known >= cfg.dense_share * covered)


def recomputed(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function of whole maps, with gradient checkpointing: only its arguments are kept for the backward pass.

    It is recomputed there. Losses are a small part of a training step's time, but their activations would be alive when
    memory peaks: between forward and backward pass.
    """
    return checkpoint(function, *arguments, use_reentrant=False, preserve_rng_state=False)
