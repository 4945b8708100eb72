"""What a resumed run takes from its checkpoint and what from its configuration, and what is said about it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
from torch import nn

from coopmap.config import Config, ConfigError
from coopmap.config.train import OptimConfig
from coopmap.data import OPV2VDataModule
from coopmap.models.torchfile import TorchFile
from coopmap.models.unpickling import TensorRef
from coopmap.runs.folder import RunFolder
from coopmap.runs.logs import release_log
from coopmap.runs.provenance import git_revision
from coopmap.runs.resume import applied
from coopmap.training.module import PoseLearner
from coopmap.training.optim import build_optimizer, parameter_groups, warmup_cosine

log = logging.getLogger(__name__)

MAX_NAMED = 3


def check_resumable(run: RunFolder, module: PoseLearner, datamodule: OPV2VDataModule, config: Config) -> None:
    """Compare a checkpoint with what it is to be loaded into, from its structure alone: no tensor is read.

    Raises:
        ConfigError: model, parameter groups, or what batches are counted in differ.
    """
    assert run.resume_from is not None
    optim = config.optim
    content = TorchFile(run.resume_from).content
    try:
        stored = {name: ref.shape for name, ref in content["state_dict"].items() if isinstance(ref, TensorRef)}
        groups = [(group["name"], len(group["params"])) for group in content["optimizer_states"][0]["param_groups"]]
        position = content[type(datamodule).__qualname__]
    except (KeyError, IndexError, TypeError, AttributeError):
        raise ConfigError(
            f"{run.resume_from}: holds no state of a training to continue (of other data, or weights alone?); start a "
            f"new run from its weights: init_from={run.resume_from}"
        ) from None
    own = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    if differing := _differing(stored, own):
        raise ConfigError(f"cannot resume {run.resume_from}: its model differs from the configured one: {differing}")
    expected = [(group["name"], len(group["params"])) for group in parameter_groups(module.model, optim)]  # type: ignore[arg-type]
    if groups != expected:
        raise ConfigError(
            f"cannot resume {run.resume_from}: its optimizer has other parameters ({_groups(groups)}) than optim.lr_of "
            f"and optim.train choose ({_groups(expected)}); start a new run from its weights: "
            f"init_from={run.resume_from}"
        )
    values = [value for state in content["optimizer_states"][0]["state"].values() for value in state.values()]
    stored_bits = 8 if any(isinstance(value, Mapping) for value in values) else 32
    if values and stored_bits != optim.state_bits and "optimizer" not in config.resume_reset:
        raise ConfigError(
            f"cannot resume {run.resume_from}: its averages have {stored_bits} bits, and optim.state_bits="
            f"{optim.state_bits}: leave that as it was, or begin them anew: resume_reset=[optimizer]"
        )
    datamodule.check_state(position)


def _differing(stored: Mapping[str, tuple[int, ...]], own: Mapping[str, tuple[int, ...]]) -> str:
    parts = (
        ("only in the checkpoint", [name for name in stored if name not in own]),
        ("only in the configured model", [name for name in own if name not in stored]),
        (
            "of another shape",
            [f"{name} {stored[name]} -> {own[name]}" for name in own if stored.get(name, own[name]) != own[name]],
        ),
    )
    return "; ".join(
        f"{len(names)} tensors {what} ({', '.join(names[:MAX_NAMED])}{', ...' if len(names) > MAX_NAMED else ''})"
        for what, names in parts
        if names
    )


def _groups(groups: Sequence[tuple[str, int]]) -> str:
    return ", ".join(f"{name}: {count}" for name, count in groups)


class RecordStart(L.Callback):
    """Records the start of a run in its folder: at once if it is new, and once all has loaded if it is resumed.

    A resume that fails so leaves the folder as it was.

    Args:
        run: the folder.
        config: as it runs.
        overrides: the command line.
    """

    def __init__(self, run: RunFolder, config: Config, overrides: Sequence[str]) -> None:
        self.run, self.config, self.overrides = run, config, overrides
        self._is_recorded = False

    def record(self) -> None:
        """Write ``config.yaml`` and ``starts.json``, once. Rank 0 only."""
        if self._is_recorded:
            return
        self._is_recorded = True
        if self.run.resume_from is not None:
            self._say_what_changed()
        resumed = self.run.resume_from is not None
        self.run.record(self.config, applied(self.overrides) if resumed else self.overrides)
        release_log()

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """See that the ranks, which have just come together, have one folder.

        Raises:
            ConfigError: they differ; on all ranks.
        """
        own, strategy = str(self.run.path), trainer.strategy
        if not strategy.reduce_boolean_decision(own == strategy.broadcast(own)):
            raise ConfigError(
                f"run_dir={own}: not the same on all ranks; machines that are started one by one, and a script that "
                "trains several times, draw a name for the run on every rank: give run_dir=DIR, the same to all"
            )

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Have the optimizer find no state in the checkpoint if it is to begin anew."""
        if "optimizer" in self.config.resume_reset and trainer.state.fn == "fit":
            for state in checkpoint["optimizer_states"]:
                state["state"] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Apply the settings of the optimizer, which Lightning has just replaced by those of the checkpoint."""
        assert isinstance(pl_module, PoseLearner)
        if self.run.resume_from is not None:
            scheduler = trainer.lr_scheduler_configs[0].scheduler
            if "schedule" in self.config.resume_reset:
                pl_module.schedule_start, scheduler.last_epoch = trainer.global_step, 0
            _shift_schedule(trainer, pl_module)
            apply_settings(trainer.optimizers[0], scheduler, pl_module.model, self.config.optim)  # type: ignore[arg-type]
        if trainer.is_global_zero and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            if self.run.resume_from is not None:
                self._say_number_of_ranks(trainer)
                self._say_what_begins_anew(trainer)
            self.record()

    def _say_what_changed(self) -> None:
        try:
            before = (self.run.read_starts() or [{}])[-1]
        except ConfigError:  # named when the new start is recorded
            return
        old, new = before.get("git_revision"), git_revision()["git_revision"]
        if old != new and before:
            log.warning(
                "resume: the code is another revision, %s before, %s now: figures before and after may differ by more "
                "than training",
                _short(old),
                _short(new),
            )

    def _say_what_begins_anew(self, trainer: L.Trainer) -> None:
        left = int(trainer.estimated_stepping_batches) - trainer.global_step
        if "optimizer" in self.config.resume_reset:
            log.info("resume: the optimizer's averages begin anew")
        if "schedule" in self.config.resume_reset:
            log.info("resume: the learning rate's schedule begins anew, over the %d steps that are left", left)

    def _say_number_of_ranks(self, trainer: L.Trainer) -> None:
        assert self.run.resume_from is not None
        state = TorchFile(Path(self.run.resume_from)).content.get(type(trainer.datamodule).__qualname__, {})  # type: ignore[attr-defined]
        before = state.get("world_size"), state.get("accumulate")
        now = trainer.world_size, trainer.accumulate_grad_batches
        if before in (now, (None, None)):
            return
        log.warning(
            "resume: %s process(es) x trainer.accumulate_grad_batches=%s before, %d x %d now: batches come in the same "
            "order, and an optimizer step averages %d of them in place of %d",
            *before,
            *now,
            now[0] * now[1],
            before[0] * before[1],
        )


def _shift_schedule(trainer: L.Trainer, module: PoseLearner) -> None:
    """Have a schedule that was begun anew extend over the steps from there to the end."""
    if module.schedule_start:
        steps = int(trainer.estimated_stepping_batches) - module.schedule_start
        scheduler = trainer.lr_scheduler_configs[0].scheduler
        scheduler.lr_lambdas = [warmup_cosine(steps, module.optim)] * len(scheduler.lr_lambdas)  # type: ignore[union-attr]


def _short(revision: str | None) -> str:
    return "unknown" if revision is None else revision[:10]


def apply_settings(optimizer: Any, scheduler: Any, model: nn.Module, cfg: OptimConfig) -> None:
    """Replace the settings in a restored optimizer by the configured ones; equal ones stay the same to the bit."""
    for group, fresh in zip(optimizer.param_groups, build_optimizer(model, cfg).param_groups, strict=True):
        group.update({name: value for name, value in fresh.items() if name not in ("params", "lr")})
        group["initial_lr"] = fresh["lr"]
    scheduler.base_lrs = [group["initial_lr"] for group in optimizer.param_groups]
    for group, factor in zip(optimizer.param_groups, scheduler.lr_lambdas, strict=True):
        group["lr"] = group["initial_lr"] * factor(scheduler.last_epoch)
