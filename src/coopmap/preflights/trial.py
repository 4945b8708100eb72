"""The largest batch through a trainer like the run's: forward, backward, optimizer, validation; then all as it was."""

from __future__ import annotations

import gc
import time
from dataclasses import dataclass, field
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, distributed
from torch.distributed.tensor import DTensor

from coopmap.config import Config, ConfigError
from coopmap.data import OPV2VDataModule
from coopmap.preflights.batches import TrialData
from coopmap.preflights.devices import NoDriverError, read_devices
from coopmap.preflights.exchange import Exchange, finish, heard, tell_others, timed_all_reduce
from coopmap.preflights.findings import gib
from coopmap.preflights.memory import what_needs_less
from coopmap.runs.signals import current
from coopmap.training.assembly import new_trainer, trainer_options
from coopmap.training.module import PoseLearner
from coopmap.training.run import ranks_end_together

STEPS = {"cuda": 3, "cpu": 1}
"""On a GPU the first steps choose kernels and allocate."""
LIMITS = (
    "max_epochs", "max_steps", "min_epochs", "min_steps", "fast_dev_run", "limit_train_batches",
    "limit_val_batches", "limit_test_batches", "val_check_interval", "check_val_every_n_epoch",
    "num_sanity_val_steps", "log_every_n_steps", "accumulate_grad_batches", "profiler",
)  # fmt: skip
"""Arguments of the run's trainer that its trial does without."""
NEVER = 10**9
WORD_S = 5.0
"""How long to wait for word of the rank that a broken connection comes from."""


@dataclass
class Trial:
    """What was measured on this rank.

    Attributes:
        world_size: processes that took part.
        shape: samples and agents of the largest training batch.
        batch_s: its last step.
        load_s: reading it.
        loss: of it.
        val_s: the largest validation batch.
        val_batches: of a validation, on all ranks together.
        train_peak, val_peak: bytes allocated at most on the GPU; 0 on a CPU.
        exchange: timed all-reduce, if there are several ranks.
        children: processes that the trainer has started for further ranks.
    """

    world_size: int = 1
    shape: tuple[int, int] = (0, 0)
    batch_s: float = 0.0
    load_s: float = 0.0
    loss: float = 0.0
    val_s: float = 0.0
    val_batches: int = 0
    train_peak: int = 0
    val_peak: int = 0
    exchange: Exchange | None = None
    children: list[Any] = field(default_factory=list)


def run_trial(config: Config, module: PoseLearner, datamodule: OPV2VDataModule) -> Trial:
    """Train on the largest batch, validate on the largest, and undo it: nothing of it is left in the module.

    Raises:
        ConfigError: out of memory, or the ranks cannot exchange gradients; on every rank, whichever it was.
    """
    trial = Trial()
    with isolate_rng(include_cuda=False):
        options = {name: value for name, value in trainer_options(config).items() if name not in LIMITS}
        rehearsal = Rehearsal(trial, config)
        trainer = new_trainer(
            **options,
            max_epochs=1,
            limit_val_batches=1,
            num_sanity_val_steps=0,
            log_every_n_steps=NEVER,  # no step logs
            logger=False,
            callbacks=[rehearsal],
            enable_checkpointing=False,
        )
        data = TrialData(datamodule, STEPS.get(trainer.strategy.root_device.type, 1))
        _fit(trainer, module, data, config)
    trial.world_size, trial.shape, trial.load_s, trial.val_batches = (
        trainer.world_size, data.shape, data.load_s, data.val_batches,
    )  # fmt: skip
    trial.children = list(getattr(trainer.strategy.launcher, "procs", ()))
    _forget(trainer, module)
    return trial


def _fit(trainer: L.Trainer, module: PoseLearner, data: TrialData, config: Config) -> None:
    """Train, and make one message of what goes wrong, on whichever rank."""
    is_at_start, module.is_at_start = module.is_at_start, True  # an untrained mask is no news
    try:
        with ranks_end_together(trainer):
            try:
                trainer.fit(module, datamodule=data)
            except Exception as error:
                told = explained(error, config, data, trainer.strategy.root_device)
                if told is None and trainer.world_size > 1 and (word := heard(WORD_S)):
                    told = ConfigError(word)
                tell_others(str(told or f"{type(error).__name__}: {error}"))
                if told is None:
                    raise
                raise told from error
    finally:
        module.is_at_start = is_at_start


def explained(error: Exception, config: Config, data: TrialData, device: torch.device) -> ConfigError | None:
    """What a failure of the trial means for the user; ``None`` if it is none of those that are known."""
    if isinstance(error, ConfigError):
        return error
    if not is_out_of_memory(error):
        return None
    samples, agents = data.shape
    rank = f"rank {distributed.get_rank()}: " if distributed.is_initialized() else ""
    where, held = "memory", ""
    if device.type == "cuda":
        where = f"GPU {device.index}, of which this run took {gib(torch.cuda.max_memory_allocated(device))} GiB,"
        try:
            physical = read_devices()[device.index or 0]
            held = f" ({physical.memory} now; {physical.held})"
        except (NoDriverError, IndexError):
            pass
    less = ", ".join(what_needs_less(config)) or "strategy=fsdp, or fewer pixels in data.panorama"
    wait = "; preflight.wait_for_memory=2h waits for what others hold" if device.type == "cuda" else ""
    batch = f"{samples} x {agents} agents"
    return ConfigError(
        f"{rank}out of memory in a step on the largest batch, {batch}: {where} is not enough{held}. Any "
        f"of these needs less: {less}{wait}; coopmap plan tells how much"
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Of a GPU, or of this machine."""
    text = str(error)
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)
    )


def _forget(trainer: L.Trainer, module: PoseLearner) -> None:
    """Free what the trial has allocated: its gradients, its optimizer, its buckets."""
    for parameter in module.parameters():
        parameter.grad = None
    module._last_terms = {}
    device = trainer.strategy.root_device
    trainer.strategy.optimizers = []
    trainer.strategy.model = None
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


class Kept:
    """Values of a module that a step changes, to put them back.

    Replicas keep one copy among them, on rank 0, so that ten ranks do not keep ten on one host; of what is shared out
    over ranks, each keeps its own.
    """

    def __init__(self, module: PoseLearner) -> None:
        self._has_replicas = distributed.is_initialized() and distributed.get_world_size() > 1
        keeps = not self._has_replicas or distributed.get_rank() == 0
        changing = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self._kept = [
            (tensor, _own(tensor).to("cpu", copy=True) if keeps or isinstance(tensor, DTensor) else None)
            for tensor in [*changing, *module.buffers()]
        ]

    @torch.no_grad()
    def put_back(self) -> None:
        """To the bit; a collective call, between two steps."""
        for tensor, kept in self._kept:
            if kept is not None:
                _own(tensor).copy_(kept)
            if self._has_replicas and not isinstance(tensor, DTensor):
                distributed.broadcast(tensor.detach(), 0)


def _own(tensor: Tensor) -> Tensor:
    """What this rank holds of it."""
    return tensor.to_local().detach() if isinstance(tensor, DTensor) else tensor.detach()


class Rehearsal(L.Callback):
    """Measures the steps of a trial, and undoes them."""

    def __init__(self, trial: Trial, config: Config) -> None:
        self.trial, self.config = trial, config
        self._began = 0.0
        self._kept: Kept | None = None
        self._rng: Tensor | None = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Let the ranks hear one another."""
        current().children = getattr(trainer.strategy.launcher, "procs", ())
        if trainer.world_size > 1:
            self.trial.exchange = timed_all_reduce(trainer.strategy.root_device, self.config.trainer.num_nodes or 1)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keep what will change."""
        assert isinstance(pl_module, PoseLearner)
        self._kept = Kept(pl_module)
        if pl_module.device.type == "cuda":
            self._rng = torch.cuda.get_rng_state(pl_module.device)
            torch.cuda.reset_peak_memory_stats(pl_module.device)

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        self._began = time.perf_counter()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, *args: Any) -> None:
        """Time the step; the last one counts."""
        finish(pl_module.device)
        self.trial.batch_s = time.perf_counter() - self._began
        self.trial.loss = float(outputs["loss"])
        self.trial.train_peak = _peak(pl_module.device)

    def on_validation_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        self._began = time.perf_counter()

    def on_validation_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        finish(pl_module.device)
        self.trial.val_s = time.perf_counter() - self._began
        self.trial.val_peak = _peak(pl_module.device)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Put everything back, while parameters that are shared out lie in their shares: validation changes none."""
        assert self._kept is not None
        self._kept.put_back()
        self._kept = None

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Random numbers as they were."""
        if self._rng is not None:
            torch.cuda.set_rng_state(self._rng, pl_module.device)


def _peak(device: torch.device) -> int:
    """Bytes allocated at most since the last call."""
    if device.type != "cuda":
        return 0
    peak = torch.cuda.max_memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    return peak
