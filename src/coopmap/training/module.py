"""The LightningModule: wires model, objective and metrics together."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn

from coopmap.config.checks import ConfigError
from coopmap.config.priors import PriorsConfig
from coopmap.config.task import TaskConfig
from coopmap.config.train import OptimConfig
from coopmap.metrics import (
    BASELINE_COLUMNS,
    MeanPoseBaseline,
    Measures,
    agent_poses,
    mask_warning,
    measure,
    pose_rows,
    truth_warning,
)
from coopmap.metrics.term_means import TermMeans
from coopmap.models.counting import outline
from coopmap.models.finite import require_finite
from coopmap.training.chunks import ChunkedSteps
from coopmap.training.counters import count_batches_anew
from coopmap.training.inputs import draw_inputs
from coopmap.training.loss_scaling import skip_if, unscale
from coopmap.training.optim import build_optimizer, gradient_norms, warmup_cosine, whole
from coopmap.training.skipping import Skipping
from coopmap.types import Batch, Observation, Prediction, SkippedBatch

log = logging.getLogger(__name__)


class NonFiniteError(RuntimeError):
    """Too many steps were skipped, or figures are no numbers."""


class PoseLearner(L.LightningModule):
    """Trains a model to predict geometry and relative poses; the model sees only an Observation.

    Args:
        model: Observation to Prediction.
        criterion: (Prediction, Target) to total loss and named terms.
        optim: optimizer and schedule.
        seed: random numbers of a training step depend on it and the place of the batch in the global order alone, so
            that a resumed run repeats them, on any number of ranks.
        record: plain values to keep in every checkpoint (configuration, revision, ...).
        task, priors: which geometric inputs samples come with, in training at random; images only by default.
    """

    def __init__(
        self,
        model: Callable[[Observation], Prediction] | nn.Module,
        criterion: nn.Module,
        optim: OptimConfig,
        seed: int = 0,
        record: dict[str, Any] | None = None,
        task: TaskConfig | None = None,
        priors: PriorsConfig | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.criterion = criterion
        self.optim, self.seed, self.record = optim, seed, record or {}
        self.task, self.priors = task or TaskConfig(), priors or PriorsConfig()
        self.teacher: Callable[[Observation], Prediction] | None = None  # not a module: see coopmap.training.teacher
        self.baseline: MeanPoseBaseline | None = None
        self.terms = TermMeans()
        self.measures, self.baseline_error = Measures(), Measures(*BASELINE_COLUMNS)
        self.skipping = Skipping(optim)
        self.chunks = ChunkedSteps()
        self._last_terms: dict[str, Tensor] = {}
        self._last_observation: Observation | None = None
        self._whole: tuple[nn.Module, ...] = ()  # no module of this one
        self.schedule_start = 0
        """Optimizer step at which the learning rate's schedule began: see ``resume_reset``."""
        self.is_at_start = False
        """True during the zero-shot validation: the mask of an untrained head is not worth a warning."""

    def setup(self, stage: str) -> None:
        """Learn the training set's mean pose, unless a checkpoint has it."""
        if self.baseline is None and (poses := self.trainer.datamodule.train_relative_poses()):  # type: ignore[attr-defined]
            self.baseline = MeanPoseBaseline().fit(poses)

    def configure_model(self) -> None:
        """Share the model out over the ranks, with ``strategy=fsdp``."""
        if self.device_mesh is not None:
            from coopmap.training.fully_sharded import is_sharded, shard

            assert isinstance(self.model, nn.Module)
            if not is_sharded(self.model):
                self._whole = (outline(self.model),)
            shard(self.model, self.device_mesh["data_parallel"])

    @property
    def countable(self) -> nn.Module:
        """The model, or its :func:`~coopmap.models.counting.outline` once ranks share it out: to count its work."""
        assert isinstance(self.model, nn.Module)
        return self._whole[0] if self._whole else self.model

    def forward(self, observation: Observation) -> Prediction:
        """Predict from what a deployed agent has."""
        return self.model(observation)

    def with_inputs(self, observation: Observation, *key: int) -> Observation:
        """The observation with the geometric inputs that are given; the same ``key`` draws the same."""
        task = self.task if self.training else self.task.for_evaluation()
        priors = self.priors if self.training else self.priors.for_evaluation()
        generator = torch.Generator(observation.images.device).manual_seed(_random_number(self.seed, *key))
        return draw_inputs(observation, task, priors, generator)

    # Training

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Tie the step's random numbers to the step."""
        self.tie_random_numbers(self._micro_batch(batch_idx))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Total loss of a batch."""
        total, terms = self.chunks.run(self, batch, self._micro_batch(batch_idx))
        self._last_terms = {"loss": total.detach(), **terms}
        if self._logs_this_step():
            size = len(batch.metas)
            # Single views are left out: Lightning would repeat view 3's last value in a step that has two views.
            figures = {f"train/{name}": value for name, value in terms.items() if "_view" not in name}
            # Lightning's LearningRateMonitor would need a name of its own for each half, decayed or not, of every part.
            rates = {f"lr/{group['name']}": group["lr"] for group in self.optimizers().param_groups}  # type: ignore[union-attr]
            self.log_dict({**figures, **rates}, batch_size=size)
            # The mean over ranks; terms are those of rank 0, since ranks may have different ones.
            self.log("train/loss", total.detach(), batch_size=size, prog_bar=True, sync_dist=True)
        return total

    def loss_of(self, batch: Batch, micro_batch: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Total loss and terms of a batch at a place of the global order, which its random inputs depend on."""
        observation, teaching = self.given(batch, micro_batch)
        return self.criterion(self(observation), batch.target, **teaching)

    def given(self, batch: Batch, micro_batch: int) -> tuple[Observation, dict[str, Prediction]]:
        """What the model gets of a batch, and what the objective gets besides the target."""
        observation = self.with_inputs(batch.observation, micro_batch, 1)
        return observation, {} if self.teacher is None else {"teacher": self.teacher(observation)}

    def tie_random_numbers(self, *place: int) -> None:
        """Have the random numbers that follow depend on the seed and a place of the global order alone."""
        torch.manual_seed(_random_number(self.seed, *place))

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """The backward pass, in chunks where it runs out of memory."""
        self.chunks.backward(self, loss)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the norm over all parameters; have the optimizer skip the step if it is not finite or a spike (no host
        sync).
        """
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        unscale(optimizer, scaler)
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        if self._logs_this_step():
            self.log_dict({f"grad_norm/{part}": norm for part, norm in gradient_norms(optimizer).items()})
        norm = whole(nn.utils.clip_grad_norm_(parameters, gradient_clip_val or float("inf")))
        skip_if(self.skipping.judge(norm).float(), optimizer, scaler)
        if self._logs_this_step():
            self.log("train/grad_norm", norm)
            self.log("train/skipped_steps", self.skipping.count.float())

    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: torch.optim.Optimizer | LightningOptimizer,
        optimizer_closure: Callable[[], Any] | None = None,
    ) -> None:
        """Step, and let go of the gradients, which Lightning would keep through the next forward pass."""
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        optimizer.zero_grad(set_to_none=True)

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Stop a run that has diverged; checks only when metrics are logged, to avoid a GPU sync in every step.

        Raises:
            NonFiniteError: after ``optim.max_nonfinite_steps`` skipped steps in a row, or ``optim.max_skipped_steps``
                in all.
        """
        if self.global_step % self.trainer.log_every_n_steps and not self.trainer.is_last_batch:  # type: ignore[attr-defined]
            return
        if (spent := self.skipping.spent()) is not None:
            culprits = [name for name, value in self._last_terms.items() if not value.isfinite()]
            raise NonFiniteError(
                f"loss or gradient not finite, or over optim.spike={self.optim.spike} times the usual, {spent}, up to "
                f"step {self.global_step}; not finite now: {', '.join(culprits) or 'no term of the loss'}. Lower "
                "optim.lr or optim.lr_of, or see what coopmap replay says of the batches in the run's folder skipped/; "
                "none of these steps has changed the weights."
            )

    def _micro_batch(self, batch_idx: int) -> int:
        return self.trainer.datamodule.micro_batch(batch_idx)  # type: ignore[attr-defined]

    def _logs_this_step(self) -> bool:
        return (self.global_step + 1) % self.trainer.log_every_n_steps == 0  # type: ignore[attr-defined]

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW with linear warm-up and cosine decay over the optimizer steps of the whole run."""
        assert isinstance(self.model, nn.Module)
        shards = getattr(self.trainer.strategy, "shards_optimizer", False)
        optimizer = build_optimizer(self.model, self.optim, shards)
        factor = warmup_cosine(int(self.trainer.estimated_stepping_batches), self.optim)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    # Validation and test

    def test_step(self, batch: Batch | SkippedBatch, batch_idx: int) -> dict[str, Any] | None:
        """The test split is evaluated like the validation split."""
        return self.validation_step(batch, batch_idx)

    def on_test_epoch_end(self) -> None:
        """Log means over the split."""
        self._log_measures("test")

    def on_validation_epoch_end(self) -> None:
        """Log means over the split."""
        self._log_measures("val")

    def validation_step(self, batch: Batch | SkippedBatch, batch_idx: int) -> dict[str, Any] | None:
        """Add a batch to terms and metrics; the output is for callbacks, ``None`` if there is nothing to add."""
        if isinstance(batch, SkippedBatch):
            self._keep_step(None)
            return None
        observation = self.with_inputs(batch.observation, batch_idx)
        self._keep_step(observation)
        prediction, target = self(observation), batch.target
        if self.trainer.datamodule.is_repeated(batch_idx):  # type: ignore[attr-defined]
            return None
        total, terms = self.criterion(prediction, target)
        self.terms.update({"loss": total, **terms}, len(batch.metas), terms.measured)
        rows = measure(prediction, target)
        self.measures.update(rows)
        if self.baseline is not None:
            pose = agent_poses(target.pose, target)
            self.baseline_error.update(pose_rows(self.baseline.predict(pose.shape[1], len(pose)).to(pose), pose))
        output = {"observation": observation, "prediction": prediction, "rows": rows}
        return output | {"true_matches": terms.true_matches}

    def _keep_step(self, observation: Observation | None) -> None:
        """Where ranks share the model out, each pass takes all of them: one without a batch passes its last one again.

        Raises:
            ConfigError: it has had none yet.
        """
        if self.device_mesh is None:
            return
        if observation is not None:
            self._last_observation = observation
        elif self._last_observation is not None:
            self(self._last_observation)
        else:
            raise ConfigError(
                "no frame of the first batch of a validation can be read, and with strategy=fsdp each rank needs one: "
                "leave such frames out (data.exclude; coopmap check fix_list=bad.txt finds them), or use strategy=ddp"
            )

    def _log_measures(self, split: str) -> None:
        figures = self.measures.compute()
        self.measures.reset()
        if self.global_rank == 0 and not self.is_at_start and (warning := mask_warning(figures, split)):
            log.warning(warning)
        if self.baseline is not None:
            figures |= {f"baseline_{name}": value for name, value in self.baseline_error.compute().items()}
            self.baseline_error.reset()
        terms = self.terms.compute(self.device)
        self.terms.reset()
        if self.global_rank == 0 and (warning := truth_warning(self.terms.unmeasured, split)):
            log.warning(warning)
        # Terms and metrics are reduced over all ranks already.
        self.log_dict({f"{split}/{name}": value for name, value in (terms | figures).items()}, sync_dist=False)

    # Checkpoints: plain values and tensors only, so that they load with weights_only=True

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the record, the baseline and what batches were counted in."""
        checkpoint["coopmap"] = {
            **self.record,
            "accumulate": 1 if self._trainer is None else self._trainer.accumulate_grad_batches,
            "schedule_start": self.schedule_start,
            "mean_poses": self.baseline.mean_poses if self.baseline is not None else {},
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the baseline along; count batches anew if an optimizer step has another number of them now.

        Raises:
            ConfigError: there is NaN or infinity in the weights.
        """
        try:
            require_finite(checkpoint.get("state_dict", {}), "the checkpoint")
        except ValueError as error:
            raise ConfigError(str(error)) from error
        if self._trainer is not None:  # what only measures a checkpoint has none
            count_batches_anew(checkpoint, self._trainer.accumulate_grad_batches)
        self.schedule_start = checkpoint["coopmap"].get("schedule_start", 0)
        if mean_poses := checkpoint["coopmap"]["mean_poses"]:
            self.baseline = MeanPoseBaseline()
            self.baseline.mean_poses = mean_poses


def _random_number(*key: int) -> int:
    """A seed that depends on all numbers of the key."""
    return int(np.random.SeedSequence(key).generate_state(1)[0])
