import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest.mock import MagicMock

import lightning as L
import pytest
import torch
from torch import Tensor, nn

from coopmap import build_loss, load_config
from coopmap.config.train import OptimConfig
from coopmap.data import OPV2VDataModule
from coopmap.data.normalization import normalize
from coopmap.geometry.se3 import quat_trans_from_pose, relative_pose
from coopmap.losses import Criterion
from coopmap.training.assembly import build_datamodule, build_module
from coopmap.training.module import NonFiniteError, PoseLearner
from coopmap.types import Batch, Observation, Prediction, SkippedBatch, Target

Overrides = Callable[..., list[str]]


def quick_trainer(**options: Any) -> L.Trainer:
    return L.Trainer(
        **{
            "accelerator": "cpu",
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,
            "limit_val_batches": 1,
            "inference_mode": False,
            "log_every_n_steps": 1,
            "gradient_clip_val": 1.0,
            **options,
        }
    )


@pytest.fixture
def learner(overrides: Overrides) -> tuple[PoseLearner, OPV2VDataModule]:
    config = load_config(overrides())
    return build_module(config), OPV2VDataModule(config.data, config.seed)


def test_model_sees_an_observation_and_nothing_else(learner: tuple[PoseLearner, OPV2VDataModule]) -> None:
    module, data = learner
    seen: list[list[type]] = []
    module.model.register_forward_pre_hook(
        lambda _, given, named: seen.append([type(value) for value in (*given, *named.values())]), with_kwargs=True
    )
    quick_trainer(max_epochs=1, limit_train_batches=1).fit(module, datamodule=data)
    assert seen == [[Observation]] * 2  # one step, one validation batch


class Cheater(nn.Module):
    """Answers with every pose that it can find in what it is given."""

    def __init__(self, honest: nn.Module) -> None:
        super().__init__()
        self.honest = honest
        self.found: list[str] = []

    def forward(self, observation: Observation) -> Prediction:
        prediction = self.honest(observation)
        if observation.pose_prior is None:
            return prediction
        self.found.append("pose_prior")
        pose = relative_pose(observation.pose_prior[:, :1], observation.pose_prior)
        quat, trans = quat_trans_from_pose(pose)
        return replace(prediction, pose_quat=quat, pose_trans=trans)


@pytest.mark.parametrize(("task", "can_cheat"), [("images_only", False), ("augmented", False), ("posed", True)])
def test_a_cheater_finds_the_truth_only_where_the_task_hands_it_out(
    overrides: Overrides, task: str, can_cheat: bool
) -> None:
    """Ground truth is planted in the Target of every batch; what the measures say shows whether it leaks."""
    config = load_config(overrides(f"task={task}"))
    module, data = build_module(config), build_datamodule(config)
    cheater = module.model = Cheater(module.model)
    trainer = quick_trainer()
    trainer.validate(module, datamodule=data, verbose=False)
    error = float(trainer.callback_metrics["val/trans_m_mean"])
    assert (error < 1e-3) == can_cheat
    assert bool(cheater.found) == can_cheat


def test_drawn_inputs_repeat(overrides: Overrides) -> None:
    config = load_config(overrides("task=augmented"))
    seen: list[list[tuple]] = []
    for _ in range(2):
        module, data = build_module(config), build_datamodule(config)
        masks: list[tuple] = []
        module.model.register_forward_pre_hook(
            lambda _, given, masks=masks: masks.append(
                tuple(getattr(given[0], f"{kind}_given").flatten().tolist() for kind in ("rays", "depth", "pose"))
            )
        )
        quick_trainer(max_epochs=2, limit_train_batches=3).fit(module, datamodule=data)
        seen.append(masks)
    assert seen[0] == seen[1]
    training = [mask for mask in seen[0] if any(any(kind) for kind in mask)]
    assert len(training) >= 2
    assert len({str(mask) for mask in training}) > 1  # steps differ


def test_every_term_is_logged_in_training_and_validation(learner: tuple[PoseLearner, OPV2VDataModule]) -> None:
    module, data = learner
    trainer = quick_trainer(max_epochs=1)
    trainer.fit(module, datamodule=data)
    batch = normalize(next(iter(data.val_dataloader())))
    criterion = module.criterion.train()
    _, in_training = criterion(module(batch.observation), batch.target)
    _, in_validation = criterion.eval()(module(batch.observation), batch.target)
    logged = trainer.callback_metrics.keys()
    averages = {name for name in in_training if "view" not in name}
    assert averages
    assert {f"train/{name}" for name in averages} <= logged
    assert {f"val/{name}" for name in in_validation} <= logged
    assert {
        "train/loss",
        "train/grad_norm",
        "val/loss",
        "val/pose_trans_avg",
        "val/trans_m_mean",
        "val/rot_deg_mean",
        "val/baseline_trans_m_mean",
        "val/mask_iou",
        "val/depth_abs_rel",
        "val/scale_abs_rel",
        "lr/encoder",
    } <= logged


def test_validation_terms_are_means_over_samples(learner: tuple[PoseLearner, OPV2VDataModule]) -> None:
    module, data = learner
    (figures,) = quick_trainer(limit_val_batches=1.0).validate(module, datamodule=data, verbose=False)
    criterion, sums, count = module.criterion.eval(), 0.0, 0
    for batch in map(normalize, data.val_dataloader()):
        with torch.no_grad():
            _, terms = criterion(module.eval()(batch.observation), batch.target)
        sums += terms["pose_trans_avg"].item() * len(batch.metas)
        count += len(batch.metas)
    assert count >= 2
    assert figures["val/pose_trans_avg"] == pytest.approx(sums / count, rel=1e-6)


def test_batches_without_known_depth_do_not_lower_the_terms(learner: tuple[PoseLearner, OPV2VDataModule]) -> None:
    module, data = learner
    quick_trainer(limit_val_batches=1).validate(module, datamodule=data, verbose=False)
    batch = normalize(next(iter(data.val_dataloader())))
    unknown = replace(batch.target, depth=0 * batch.target.depth, valid=torch.zeros_like(batch.target.valid))
    module.eval()
    with torch.no_grad():
        module.validation_step(batch, 0)
        alone = module.terms.compute(torch.device("cpu"))
        module.validation_step(replace(batch, target=unknown), 0)
    both = module.terms.compute(torch.device("cpu"))
    assert alone["pose_trans_avg"] > 0
    for name in ("pose_trans_avg", "pts3d_avg", "scale"):
        assert both[name] == alone[name]
    assert both["loss"] != alone["loss"]  # rays, rotations and the mask are there to be measured


def test_a_batch_that_keeps_a_rank_in_step_with_the_others_is_predicted_and_not_counted(
    overrides: Overrides, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config(overrides("data.max_val_frames=1"))
    module, data = build_module(config), OPV2VDataModule(config.data, config.seed)
    monkeypatch.setattr(data, "_rank", lambda: (1, 2))
    predicted = []
    module.model.register_forward_hook(lambda *_: predicted.append(True))
    (figures,) = quick_trainer(limit_val_batches=1.0).validate(module, datamodule=data, verbose=False)
    assert len(predicted) == 1
    assert "val/loss" not in figures
    assert all(math.isnan(value) for value in figures.values()), figures


def test_a_headline_without_ground_truth_is_nan_and_said_so(
    overrides: Overrides, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Depth that is farther than data.depth.max_m everywhere, where the look at it before training missed that."""
    monkeypatch.setattr("coopmap.data.split_dataset.check_depth", lambda *args: None)
    config = load_config(overrides("data.depth.max_m=0.01"))
    module, data = build_module(config), OPV2VDataModule(config.data, config.seed)
    (figures,) = quick_trainer(limit_val_batches=1.0).validate(module, datamodule=data, verbose=False)
    for name in ("pose_trans_avg", "pts3d_avg", "scale", "depth_abs_rel"):
        assert math.isnan(figures[f"val/{name}"])
    assert figures["val/trans_m_mean"] > 0  # poses are known without depth
    assert "val/pose_trans_avg is NaN" in caplog.text
    assert "data.depth" in caplog.text


def test_the_logged_loss_is_that_of_all_ranks() -> None:
    """Lightning reduces it; single terms are rank 0's, as docs/measures.md says."""
    learner = MagicMock(teacher=None)
    learner.chunks.run.return_value = torch.tensor(3.0), {"scale": torch.tensor(1.0)}
    learner.optimizers.return_value.param_groups = []
    assert PoseLearner.training_step(learner, MagicMock(metas=("a", "b")), 0) == 3
    ((name, value), options), *further = learner.log.call_args_list
    assert (name, value) == ("train/loss", 3)
    assert options["sync_dist"] is True
    assert not further


def test_unreadable_validation_batch_is_passed_over(learner: tuple[PoseLearner, OPV2VDataModule]) -> None:
    module, _ = learner
    module.validation_step(SkippedBatch(("a.png: truncated",)), 0)
    assert module.terms.compute(torch.device("cpu")) == {}


class NaNAfter(Criterion):
    """Turns NaN at given steps."""

    def __init__(self, criterion: Criterion, steps: set[int]) -> None:
        super().__init__(criterion.cfg)
        self.steps, self.step = steps, 0

    def forward(self, prediction: Prediction, target: Target) -> tuple[Tensor, dict[str, Tensor]]:
        total, terms = super().forward(prediction, target)
        if self.training:
            self.step += 1
            if self.step in self.steps:
                return total * torch.nan, terms | {"depth_avg": total.detach() * torch.nan}
        return total, terms


def poisoned(overrides: list[str], steps: set[int]) -> tuple[PoseLearner, OPV2VDataModule]:
    config = load_config(overrides)
    module = build_module(config)
    module.criterion = NaNAfter(build_loss(config), steps)
    return module, OPV2VDataModule(config.data, config.seed)


def test_single_nonfinite_step_is_skipped(overrides: Overrides) -> None:
    module, data = poisoned(overrides("optim.max_nonfinite_steps=2"), {2})
    trainer = quick_trainer(max_steps=3, limit_val_batches=0)
    trainer.fit(module, datamodule=data)
    assert trainer.global_step == 3
    assert all(parameter.isfinite().all() for parameter in module.model.parameters())


def test_diverged_run_ends_and_says_which_term(overrides: Overrides) -> None:
    module, data = poisoned(overrides("optim.max_nonfinite_steps=2"), {2, 3})
    before: list[Tensor] = []

    class Keep(L.Callback):
        def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
            if trainer.global_step == 1:
                before.extend(parameter.detach().clone() for parameter in module.model.parameters())

    trainer = quick_trainer(max_steps=9, limit_val_batches=0, callbacks=[Keep()])
    with pytest.raises(NonFiniteError, match=r"for 2 steps, up to step 3; not finite now: loss, depth_avg\. Lower"):
        trainer.fit(module, datamodule=data)
    assert all(map(torch.equal, before, module.model.parameters()))


class Dice(nn.Module):
    """A model whose training depends on random numbers alone."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.thrown: list[float] = []

    def forward(self, observation: Observation) -> Tensor:
        self.thrown.append(torch.rand(()).item())
        return self.weight.sum()


class Identity(nn.Module):
    def forward(self, prediction: Tensor, target: Target) -> tuple[Tensor, dict[str, Tensor]]:
        return prediction, {}


def test_random_numbers_depend_on_seed_and_step_alone(overrides: Overrides) -> None:
    def thrown(seed: int, noise: int) -> list[float]:
        config = load_config(overrides())
        torch.manual_seed(noise)
        dice = Dice()
        module = PoseLearner(dice, Identity(), OptimConfig(), seed)
        data = OPV2VDataModule(config.data, config.seed)
        quick_trainer(max_steps=3, limit_val_batches=0).fit(module, datamodule=data)
        return dice.thrown

    first = thrown(seed=0, noise=1)
    assert thrown(seed=0, noise=2) == first
    assert thrown(seed=1, noise=1) != first
    assert len(set(first)) == 3


def test_batches_move_whole(learner: tuple[PoseLearner, OPV2VDataModule]) -> None:
    _, data = learner
    batch = next(iter(data.train_dataloader()))
    assert isinstance(batch, Batch)
    assert batch.to("meta").target.pose.is_meta


def test_no_gradient_is_kept_through_a_forward_pass(learner: tuple[PoseLearner, OPV2VDataModule]) -> None:
    """At its end, activations are most; while gradients accumulate they stay."""
    module, data = learner
    kept: list[int] = []
    module.model.register_forward_pre_hook(
        lambda model, _: kept.append(sum(parameter.grad is not None for parameter in model.parameters()))
    )
    trainer = quick_trainer(max_epochs=1, limit_train_batches=3, limit_val_batches=0, accumulate_grad_batches=2)
    trainer.fit(module, datamodule=data)
    assert trainer.global_step == 2
    assert kept[0] == kept[2] == 0 < kept[1]
