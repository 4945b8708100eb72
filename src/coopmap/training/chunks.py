"""Steps that do not fit into the device's memory, in smaller chunks with the same gradient."""

from __future__ import annotations

import gc
import logging
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from coopmap.types import Batch, Observation, Prediction
from coopmap.types.records import TensorRecord

log = logging.getLogger(__name__)

Learner = Any
"""A :class:`coopmap.training.module.PoseLearner`."""


class ChunkedSteps:
    """Runs the forward pass of a training step; after it ran out of memory once, in chunks.

    The objective is no sum over samples: terms are means over the known pixels of the whole batch. So a batch that does
    not fit is predicted sample by sample without gradients, the objective is computed of all predictions together, and
    each sample is predicted once more, to carry the gradient of the objective on to the weights. That is the same
    gradient, for one more forward pass and the memory of one sample. It comes as one function of the weights, so
    that gradients are added up, reduced over ranks and clipped as ever.
    """

    def __init__(self) -> None:
        self._too_large: tuple[int, int] | None = None
        self._batch: tuple[Batch, int] | None = None

    def run(self, module: Learner, batch: Batch, micro_batch: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Total loss and terms.

        Raises:
            torch.OutOfMemoryError: a batch of one sample is too large; or ranks share out parameters, and would wait
                for one another if one of them called the model more often.
        """
        samples, views = batch.target.depth.shape[:2]
        self._batch = batch, micro_batch
        if self._too_large is None or samples * views < self._too_large[0] * self._too_large[1]:
            try:
                return module.loss_of(batch, micro_batch)
            except torch.OutOfMemoryError as error:
                if samples == 1 or module.device_mesh is not None:
                    raise torch.OutOfMemoryError(_advice(samples, views, error)) from error
                self.after_out_of_memory(samples, views)
        self._batch = None
        return chunked_loss(module, batch, micro_batch)

    def backward(self, module: Learner, loss: Tensor) -> None:
        """The backward pass of a loss from :meth:`run`.

        Raises:
            torch.OutOfMemoryError: it is too large, and what it has added to gradients so far cannot be taken back.
        """
        trainer, (batch, self._batch) = module.trainer, (self._batch, None)
        try:
            loss.backward()
        except torch.OutOfMemoryError as error:
            scales = getattr(trainer.precision_plugin, "scaler", None) is not None
            takes_back = trainer.world_size == 1 and trainer.accumulate_grad_batches == 1 and not scales
            samples, views = (1, 0) if batch is None else batch[0].target.depth.shape[:2]
            if batch is None or samples == 1 or not takes_back:
                raise
            del loss, error
            module.zero_grad(set_to_none=True)
            self.after_out_of_memory(samples, views)
            with trainer.precision_plugin.train_step_context():  # as the step that ran out: this is no part of it
                loss = chunked_loss(module, *batch)[0]
            loss.backward()

    def after_out_of_memory(self, samples: int, views: int) -> None:
        """From here on, batches of this size run in chunks."""
        self._too_large = samples, views
        log.warning(
            "out of memory with %d samples of %d views: this step is computed again in %d chunks, as is every batch of "
            "this size from now on; same gradient, one forward pass more. A smaller data.max_views_per_gpu or "
            "model.checkpointing avoids it",
            samples,
            views,
            samples,
        )
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _advice(samples: int, views: int, error: Exception) -> str:
    reason = "a single sample" if samples == 1 else f"{samples} samples"
    split = "cannot be split" if samples == 1 else "are not split with strategy=fsdp"
    return (
        f"out of memory with {reason} of {views} views, which {split}: switch on model.checkpointing, or use fewer "
        f"views (data.max_views_per_gpu), fewer agents or smaller panoramas ({str(error).splitlines()[0]})"
    )


def chunked_loss(module: Learner, batch: Batch, micro_batch: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Total loss, with the gradient of each sample computed by itself, and terms."""
    observation, teaching = module.given(batch, micro_batch)
    samples = range(len(batch.target.depth))

    def predict(index: int) -> Prediction:
        module.tie_random_numbers(micro_batch, index)  # the same numbers both times
        return module(_sample(observation, index))

    with torch.no_grad():
        whole = _joined([predict(index) for index in samples])
    leaves = whole.map(lambda tensor: tensor.detach().requires_grad_(tensor.is_floating_point()))
    with torch.enable_grad():
        total, terms = module.criterion(leaves, batch.target, **teaching)
    outputs = [tensor for tensor in _tensors(leaves) if tensor.requires_grad]
    gradients = dict(
        zip(map(id, outputs), torch.autograd.grad(total, outputs, allow_unused=True, retain_graph=False), strict=True)
    )
    weights = [parameter for parameter in module.parameters() if parameter.requires_grad]
    sums = [torch.zeros_like(weight) for weight in weights]
    for index in samples:
        with torch.enable_grad():
            found = predict(index)
        ends, given = [], []
        for output, leaf in zip(_tensors(found), _tensors(leaves), strict=True):
            gradient = gradients.get(id(leaf))
            if output.requires_grad and gradient is not None:
                ends.append(output)
                given.append(gradient[index : index + 1])
        parts = torch.autograd.grad(ends, weights, given, allow_unused=True)
        for together, part in zip(sums, parts, strict=True):
            if part is not None:
                together += part
    return _WithGradients.apply(total.detach(), sums, *weights), terms


class _WithGradients(torch.autograd.Function):
    """A value whose derivatives are known."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, gradients: list[Tensor], *weights: Tensor) -> Tensor:
        ctx.gradients = gradients
        return value.clone()

    @staticmethod
    def backward(ctx: Any, factor: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *(gradient * factor for gradient in ctx.gradients)


def _sample(observation: Observation, index: int) -> Observation:
    return observation.map(lambda tensor: tensor[index : index + 1])


def _joined(predictions: list[Any]) -> Any:
    """One record of several, sample after sample."""
    changes: dict[str, Any] = {}
    for field in fields(predictions[0]):
        values = [getattr(each, field.name) for each in predictions]
        if isinstance(values[0], Tensor):
            changes[field.name] = torch.cat(values)
        elif isinstance(values[0], TensorRecord):
            changes[field.name] = _joined(values)
    return replace(predictions[0], **changes)


def _tensors(record: Any) -> list[Tensor]:
    found: list[Tensor] = []
    for field in fields(record):
        value = getattr(record, field.name)
        if isinstance(value, Tensor):
            found.append(value)
        elif is_dataclass(value):
            found.extend(_tensors(value))
    return found
