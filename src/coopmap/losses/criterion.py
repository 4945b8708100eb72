"""The objective: terms, their reduction, their names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from coopmap.config import Config
from coopmap.config.checks import ConfigError
from coopmap.config.loss import PUBLISHED_ROBUST_ALPHA, PUBLISHED_ROBUST_C, LossConfig, PixelFactors
from coopmap.losses.inputs import LossInputs, gather, recomputed
from coopmap.losses.logged import Terms
from coopmap.losses.pixels import PixelLoss
from coopmap.losses.reduce import lowest_share_weights, mean_of_sums
from coopmap.losses.terms import TERMS, Term
from coopmap.types import Prediction, Target
from coopmap.types.agents import views_per_agent


class Criterion(nn.Module):
    """Factored geometry, scale, surface and mask terms of MapAnything (arXiv 2509.13414, section 3.2), and additional
    terms.

    Upstream ``FactoredGeometryScaleRegr3DPlusNormalGMLoss`` and ``NonAmbiguousMaskLoss``. In training mode world points
    are weighted by the predicted confidence; in evaluation mode they lose their largest errors on measured data
    instead, as camera points and depth do in both modes (upstream ``ConfAndExcludeTopNPercentPixelLoss`` and
    ``ExcludeTopNPercentPixelLoss``). ``docs/losses.md`` describes every term.

    There is no host-device synchronization: masks are weights, and no control flow depends on a tensor's value.
    """

    def __init__(self, cfg: LossConfig) -> None:
        super().__init__()
        self._training_cfg = cfg
        self._evaluation_cfg = replace(
            cfg, robust_alpha=PUBLISHED_ROBUST_ALPHA, robust_c=PUBLISHED_ROBUST_C, weights_on=PixelFactors()
        )

    @property
    def cfg(self) -> LossConfig:
        """Settings in the present mode: evaluation always uses the published values, so that metrics are comparable."""
        return self._training_cfg if self.training else self._evaluation_cfg

    def forward(
        self, prediction: Prediction, target: Target, teacher: Prediction | None = None
    ) -> tuple[Float[Tensor, ""], Terms]:
        """Total loss and every term, detached.

        Terms have upstream's names without class prefixes: ``pts3d_avg``, ``pose_trans_view1``, ``scale``,
        ``pts3d_conf_loss_avg`` (training), ``cam_pts3d_bot95%_loss_avg``, ``mask_avg``. They include their weight,
        except ``mask``. Where there is nothing to measure, as in views without valid pixels, they are 0, and
        ``terms.measured`` is 0: means over batches weight them by it.

        Args:
            prediction: of the model.
            target: ground truth.
            teacher: prediction of a frozen model, for ``loss.weights.scale_distillation``; not needed in evaluation.

        Raises:
            ConfigError: a term with a weight needs data that the target lacks, or a teacher that is missing.
        """
        with torch.autocast(device_type=target.depth.device.type, enabled=False):
            return self._sum_terms(gather(self.cfg, prediction, target, teacher))

    def _sum_terms(self, everything: LossInputs) -> tuple[Tensor, Terms]:
        total = everything.weight.new_zeros(())
        logged = Terms()
        for term, weight in self._present_terms(everything):
            inputs = everything.shared if term.in_view0 and everything.target.foreign is not None else everything
            values = recomputed(term.compute, inputs) if term.recompute else term.compute(inputs)
            if isinstance(values, PixelLoss):
                values = self._reduce_pixels(term, weight, values, inputs, logged)
            else:
                add = logged.add_views if values.ndim else logged.add
                add(term.name(self.cfg), weight * values if term.logs_weight else values, term.measured(inputs))
                values = weight * values
            total = total + self._share_of_total(term, inputs) * values.sum()

        logged.true_matches = vars(everything).get("true_matches")  # kept there once a term has asked for them
        return total, logged

    def _share_of_total(self, term: Term, inputs: LossInputs) -> float:
        """What scales a term in training: losses of views are summed over views, and means over pairs must not lose
        weight beside them where an agent has several views.
        """
        if not (self.training and self.cfg.view_scaling):
            return 1.0
        num_views = inputs.weight.shape[1]
        return 2 / max(2, num_views // views_per_agent(inputs.target) if term.of_pairs else num_views)

    def _present_terms(self, inputs: LossInputs) -> Iterator[tuple[Term, float]]:
        """Terms with a weight; raises ConfigError where the data lacks what one of them needs."""
        for term in TERMS:
            weight = getattr(self.cfg.weights, term.key)
            if weight == 0:
                continue
            if missing := [f"Target.{field}" for field in term.needs if getattr(inputs.target, field) is None]:
                raise ConfigError(
                    f"loss.weights.{term.key}={weight}: this data has no {' and no '.join(missing)}; "
                    f"expected 0, or data with it (a rig: data.layout=cameras)"
                )
            if term.key == "scale_distillation" and inputs.teacher is None:
                if self.training:
                    raise ConfigError(f"loss.weights.{term.key}={weight}: there is no teacher to learn from")
                continue
            yield term, weight

    def _reduce_pixels(
        self, term: Term, weight: float, loss: PixelLoss, inputs: LossInputs, logged: Terms
    ) -> Float[Tensor, " v"]:
        """Loss of each view: confidence-weighted or without the largest errors; the plain mean is logged too."""
        cfg, name, counted = self.cfg, term.name(self.cfg), inputs.weight
        if term.by_confidence and self.training and cfg.confidence_alpha is not None:
            suffix, total = "conf_loss", inputs.total_weight
            sums, plain = loss.confident_sum(counted, inputs.prediction.confidence, weight, cfg.confidence_alpha)
        else:
            kept = 100 - cfg.exclude_top_percent
            suffix = f"bot{kept:g}%_loss"
            values = loss.values()
            plain = weight * (values * counted).sum(dim=3).sum(dim=2)  # in the order of `weighted_sum`
            share = torch.where(inputs.target.is_synthetic, 1.0, kept / 100)
            counted = counted * lowest_share_weights(values, inputs.valid, share, least=kept / 100)
            sums, total = weight * loss.weighted_sum(counted), counted.sum(dim=(2, 3))
        logged.add_views(name, mean_of_sums(plain, inputs.total_weight), term.measured(inputs))
        reduced = mean_of_sums(sums, total)
        present = total > 0
        logged.add_views(f"{name}_{suffix}", reduced, present, present.any(dim=0))
        return reduced


def build_loss(cfg: Config) -> Criterion:
    """The objective: ``total, terms = criterion(prediction, target)``; in training mode until ``.eval()``."""
    return Criterion(cfg.loss)
