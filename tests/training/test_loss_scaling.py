"""float16's loss scale: gradients are clipped and judged as they are, and skipped steps change nothing."""

from collections.abc import Sequence

import lightning as L
import pytest
import torch
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import Tensor, nn
from torch.utils.data import DataLoader

from coopmap.config.train import OptimConfig
from coopmap.training.module import PoseLearner


class Regression(PoseLearner):
    """A linear layer, and the norm of its gradient as the optimizer gets it, in every step."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(4, 4), nn.Identity(), OptimConfig(lr=0.1, weight_decay=0.0, spike=10.0))
        self.norms: list[Tensor] = []
        self.weights: list[Tensor] = []

    def setup(self, stage: str) -> None:
        """No poses to learn a mean of."""

    def on_train_batch_start(self, batch: Tensor, batch_idx: int) -> None:  # type: ignore[override]
        """Keep the weights before the step."""
        self.weights.append(self.model.weight.detach().clone())  # type: ignore[union-attr]

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:  # type: ignore[override]
        """Small gradients, but where a batch asks for more."""
        return (self.model(batch) * batch).mean()

    def backward(self, loss: Tensor, *args: object, **kwargs: object) -> None:
        """Without chunks."""
        loss.backward()

    def configure_gradient_clipping(self, optimizer: torch.optim.Optimizer, *args: object, **kwargs: object) -> None:
        """As the program does, and keep the norm."""
        super().configure_gradient_clipping(optimizer, 1.0, "norm")
        self.norms.append(nn.utils.get_total_norm([each.grad for each in self.parameters() if each.grad is not None]))

    def on_train_batch_end(self, outputs: object, batch: Tensor, batch_idx: int) -> None:  # type: ignore[override]
        """No budget of skipped steps here."""


def fit(precision: str, factors: Sequence[float]) -> Regression:
    """Steps on the same numbers, times a factor each."""
    torch.manual_seed(0)
    module, sample = Regression(), torch.rand(8, 4)
    trainer = L.Trainer(
        max_epochs=1,
        accelerator="cpu",
        plugins=[] if precision == "32-true" else [MixedPrecision(precision, "cpu")],  # type: ignore[arg-type]
        gradient_clip_val=1.0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=10_000,
    )
    trainer.fit(module, DataLoader([sample * factor for factor in factors], batch_size=None))
    return module


def test_gradients_are_clipped_and_taken_in_as_without_a_scale() -> None:
    scaled, plain = fit("16-mixed", [0.1] * 3), fit("32-true", [0.1] * 3)
    assert 0 < float(plain.norms[0]) < 0.1  # far from clipped
    torch.testing.assert_close(scaled.norms, plain.norms, rtol=0.02, atol=0)
    torch.testing.assert_close(scaled.model.weight, plain.model.weight, rtol=0, atol=1e-3)


@pytest.mark.parametrize("precision", ["16-mixed", "32-true"])
def test_a_spike_changes_nothing(precision: str) -> None:
    module = fit(precision, [0.1] * 25 + [1.0, 0.1])
    assert int(module.skipping.count) == 1
    assert torch.equal(module.weights[25], module.weights[26])  # before and after the 26th step
    assert not torch.equal(module.weights[26], module.model.weight)


def test_an_overflow_changes_nothing_and_counts() -> None:
    module = fit("16-mixed", [0.1, 300.0, 0.1])  # 300 squared is no float16
    assert int(module.skipping.count) == 1
    assert torch.equal(module.weights[1], module.weights[2])
    assert module.model.weight.isfinite().all()
