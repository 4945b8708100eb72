"""Memory and work of a training step, counted on tensors without content (``FakeTensorMode``)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_leaves

from coopmap.config import Config
from coopmap.losses import build_loss
from coopmap.losses.blocks import blocks_as_on
from coopmap.models.counting import Work, WorkCounter, hollow
from coopmap.planning.samples import Example
from coopmap.planning.state import hollow_model
from coopmap.types import Observation, Target, TensorRecord


@dataclass(frozen=True)
class StepCount:
    """A step of one rank.

    Attributes:
        views: in the batch.
        tokens: patches that pass the multi-view transformer, all views of the batch together.
        forward_flops, flops: of the forward pass, and of forward and backward with what is computed again.
        batch_bytes: of the batch itself.
        activation_bytes: at the peak, besides parameters and gradients; the batch is part of it.
        joint_bytes: at the peak, besides parameters, where gradients come into being as activations go (one process).
    """

    views: int
    tokens: int
    forward_flops: int
    flops: int
    batch_bytes: int
    activation_bytes: int
    joint_bytes: int


class _StepCounter(WorkCounter):
    """Also knows the peak beside gradients, which DDP keeps in buckets that are always there; of work, FLOPs alone."""

    def __init__(self) -> None:
        super().__init__()
        self.gradient_bytes = self.peak_beside_gradients = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if (formula := self._formulas.get(func.overloadpacket)) is not None:
            self.work += Work(flops=formula(*args, **kwargs, out_val=result))
        results = (result,) if isinstance(result, Tensor) else tree_leaves(result)
        self.watch(*(each for each in results if isinstance(each, Tensor)))
        return result

    def watch(self, *tensors: Tensor) -> None:
        super().watch(*tensors)
        self.peak_beside_gradients = max(self.peak_beside_gradients, self.live_bytes - self.gradient_bytes)

    def note_gradient(self, parameter: Tensor) -> None:
        """A parameter's gradient is complete."""
        assert parameter.grad is not None
        self.gradient_bytes += parameter.grad.untyped_storage().nbytes()


def count_step(config: Config, example: Example, batch: int) -> StepCount:
    """Count forward pass, objective and backward pass of a batch.

    Args:
        config: model, objective, precision, what is trained.
        example: a sample.
        batch: so many samples like it.
    """
    model = hollow_model(config)
    trained = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    mode = FakeTensorMode()
    with mode, torch.random.fork_rng(devices=[]):
        hollow(model, "cpu")
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(trained[name])
        observation, target = (_repeated(record, batch, mode) for record in (example.observation, example.target))
        assert isinstance(observation, Observation)
        assert isinstance(target, Target)
        with _StepCounter() as counter, blocks_as_on("cuda"):
            return _counted(model.train(), build_loss(config), config, observation, target, counter)


def _counted(
    model: nn.Module,
    criterion: nn.Module,
    config: Config,
    observation: Observation,
    target: Target,
    counter: _StepCounter,
) -> StepCount:
    tokens: list[int] = []
    hook = model.get_submodule("info_sharing").register_forward_pre_hook(
        lambda _, inputs: tokens.append(inputs[0][..., 0].numel())
    )
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(counter.note_gradient)
    weights, inputs = [*model.parameters(), *model.buffers()], [*_tensors(observation), *_tensors(target)]
    counter.forget_all()
    counter.watch(*weights)
    kept = counter.live_bytes
    counter.watch(*inputs)
    batch_bytes = counter.live_bytes - kept
    counter.peak_beside_gradients = 0
    with _autocast(config):
        prediction = model(observation)
        forward_flops = counter.work.flops
        teaching = {"teacher": prediction} if config.loss.weights.scale_distillation else {}
        total, _ = criterion(prediction, target, **teaching)
    del prediction, teaching, _
    hook.remove()
    total.backward()
    return StepCount(
        views=observation.images.shape[0] * observation.images.shape[1],
        tokens=sum(tokens),
        forward_flops=forward_flops,
        flops=counter.work.flops,
        batch_bytes=batch_bytes,
        activation_bytes=counter.peak_beside_gradients - kept,
        joint_bytes=counter.peak_bytes - kept,
    )


def _autocast(config: Config) -> Any:
    """As Lightning does it: weights are cast at every use, and the copies let go."""
    if str(config.trainer.precision) not in ("bf16-mixed", "16-mixed"):
        return nullcontext()
    return torch.autocast("cpu", torch.bfloat16, cache_enabled=False)


def _repeated(record: TensorRecord, batch: int, mode: FakeTensorMode) -> TensorRecord:
    return record.map(lambda tensor: torch.cat([mode.from_tensor(tensor)] * batch).contiguous())


def _tensors(record: TensorRecord) -> Sequence[Tensor]:
    return [value for value in vars(record).values() if isinstance(value, Tensor)]
