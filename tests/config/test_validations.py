"""Validations of a run are counted as it makes them."""

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader

from coopmap import load_config
from coopmap.config.validations import validation_batches, validations, validations_per_epoch
from coopmap.training.loops import validate_at_the_end

SETTINGS = ["machine=laptop", "preset=none", "data.steps_per_epoch=10", "trainer.max_epochs=6"]
IN_TRAINING = "callbacks.validate_at_start=false"


class Validating(L.LightningModule):
    """Notes how many training batches it has seen when it validates, and on how many it does."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.at: list[int] = []
        self.batches = 0

    def training_step(self, batch: torch.Tensor) -> torch.Tensor:
        return (self.weight * batch).sum()

    def validation_step(self, batch: torch.Tensor) -> None:
        self.batches += 1

    def on_validation_start(self) -> None:
        self.at.append(self.trainer.fit_loop.total_batch_idx + 1)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters())


@pytest.mark.parametrize(
    ("overrides", "number"),
    [
        ([], 6),
        (["trainer.check_val_every_n_epoch=4"], 2),
        (["trainer.val_check_interval=4"], 13),
        (["trainer.val_check_interval=0.25", "trainer.max_steps=35"], 18),
        (["trainer.val_check_interval=7", "trainer.accumulate_grad_batches=3"], 24),
        (["trainer.val_check_interval=3", "trainer.accumulate_grad_batches=4", "trainer.limit_train_batches=13"], 19),
        (["trainer.check_val_every_n_epoch=2", "trainer.val_check_interval=0.5", "trainer.max_steps=36"], 4),
        (["trainer.limit_train_batches=5", "trainer.accumulate_grad_batches=2"], 6),
        (["trainer.limit_val_batches=0"], 0),
        (["trainer.limit_val_batches=0.5", "trainer.max_epochs=1"], 1),
        (["trainer.limit_val_batches=3", "trainer.max_epochs=1"], 1),
    ],
)
def test_validations_are_those_that_a_run_makes(overrides: list[str], number: int) -> None:
    config = load_config([*SETTINGS, IN_TRAINING, *overrides])
    names = (
        "max_epochs", "max_steps", "limit_train_batches", "limit_val_batches", "val_check_interval",
        "check_val_every_n_epoch", "accumulate_grad_batches",
    )  # fmt: skip
    options = {name: value for name in names if (value := getattr(config.trainer, name)) is not None}
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = L.Trainer(accelerator="cpu", num_sanity_val_steps=0, enable_checkpointing=False, **quiet, **options)
    validate_at_the_end(trainer)
    module, train = Validating(), DataLoader(torch.ones(config.data.steps_per_epoch * config.accumulate, 1))
    trainer.fit(module, train, DataLoader(torch.ones(8, 1)))
    total = config.total_steps
    assert trainer.global_step == total
    assert len(module.at) == number == validations(config, 0, total)
    assert module.batches == number * validation_batches(config, 8)
    assert validations(config) == number + (number > 0)  # the best once more
    for done in range(total + 1):
        epochs, steps = divmod(done, config.steps_per_epoch)
        batches = epochs * config.batches_per_epoch + steps * config.accumulate
        assert validations(config, 0, done) == sum(at <= batches for at in module.at)


def test_a_run_that_goes_on_has_made_the_validation_at_the_start() -> None:
    config = load_config(SETTINGS)
    assert validations(config) == 1 + 6 + 1
    assert validations(config, 30) == 3 + 1
    assert validations(config, 30, 40) == 1
    assert validations_per_epoch(config) == 1


@pytest.mark.parametrize(
    ("override", "mean"),
    [("check_val_every_n_epoch=5", 0.2), ("val_check_interval=3", 3), ("limit_val_batches=0.0", 0)],
)
def test_an_epoch_validates_so_often_on_average(override: str, mean: float) -> None:
    assert validations_per_epoch(load_config([*SETTINGS, f"trainer.{override}"])) == mean
