"""Configuration of a training run: optimizer, trainer, checkpoints, logs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from coopmap.config.checks import require, require_choice

LOGGER_MODES = ("auto", "csv", "wandb", "offline")
TRAINED_TENSORS = ("all", "biases")
STATE_BITS = (8, 32)
PROGRESS_MODES = ("auto", "bar", "lines", "none")


@dataclass
class AdaptationConfig:
    """Which part of the model is trained.

    Attributes:
        name: label for logs and tables.
        only: train these parts alone, by the name of the model's child, or by a pattern (``matching*``) that some name
            has to match; empty = all.
        tensors: ``all`` tensors of these parts, or ``biases``: only biases and the parameters of norms.
        frozen: parts that keep their weights.
        lora: parts that keep their weights, except for low-rank updates of their linear layers.
        lora_rank: inner dimension of an update.
        lora_alpha: updates are scaled by ``lora_alpha / lora_rank``.
    """

    name: str = "full"
    only: list[str] = field(default_factory=list)
    tensors: str = "all"
    frozen: list[str] = field(default_factory=list)
    lora: list[str] = field(default_factory=list)
    lora_rank: int = 16
    lora_alpha: float = 16.0

    def __post_init__(self) -> None:
        require_choice("optim.train.tensors", self.tensors, TRAINED_TENSORS)
        require(self.lora_rank >= 1, "optim.train.lora_rank", self.lora_rank, "at least 1")
        require(self.lora_alpha > 0, "optim.train.lora_alpha", self.lora_alpha, "a positive number")
        both = sorted(set(self.only) & {*self.frozen, *self.lora})
        require(not both, "optim.train.only", both, "parts that are neither in optim.train.frozen nor in .lora")


@dataclass
class OptimConfig:
    """AdamW with linear warm-up and cosine decay, both counted in optimizer steps.

    Attributes:
        lr: peak learning rate.
        lr_of: peak learning rate of single parts, by the name of the model's child (``encoder``, ``info_sharing``,
            ...); 0 freezes the part.
        betas: AdamW's averaging coefficients.
        weight_decay: of weight matrices; norms, biases, tokens and position embeddings have none.
        warmup_fraction: share of all steps over which the learning rate rises to its peak.
        final_lr_fraction: learning rate at the last step, as a share of the peak.
        max_nonfinite_steps: this many skipped steps in a row end the run. A step is skipped, and changes no weight, if
            its loss or gradient is not finite, or the gradient is a ``spike``.
        max_skipped_steps: this many skipped steps in all, since the start or the last resume, end the run too.
        spike: a gradient whose norm is so many times the usual one (a running mean, before clipping) skips its step;
            null = never.
        state_bits: of each value of AdamW's averages, 32 or 8; 8 needs torchao and keeps them in a quarter of the
            memory, with ``strategy=ddp`` or one GPU.
        train: which part of the model is trained.
    """

    lr: float = 1e-4
    lr_of: dict[str, float] = field(default_factory=dict)
    betas: list[float] = field(default_factory=lambda: [0.9, 0.95])
    weight_decay: float = 0.05
    warmup_fraction: float = 0.1
    final_lr_fraction: float = 0.01
    max_nonfinite_steps: int = 20
    max_skipped_steps: int = 200
    spike: float | None = 1000.0
    state_bits: int = 32
    train: AdaptationConfig = field(default_factory=AdaptationConfig)

    def __post_init__(self) -> None:
        require(self.state_bits in STATE_BITS, "optim.state_bits", self.state_bits, "8 or 32")
        require(self.lr > 0, "optim.lr", self.lr, "a positive learning rate")
        for part, lr in self.lr_of.items():
            require(lr >= 0, f"optim.lr_of.{part}", lr, "a learning rate of at least 0")
        valid_betas = len(self.betas) == 2 and all(0 <= beta < 1 for beta in self.betas)
        require(valid_betas, "optim.betas", self.betas, "two numbers in [0, 1)")
        require(self.weight_decay >= 0, "optim.weight_decay", self.weight_decay, "at least 0")
        require(0 <= self.warmup_fraction < 1, "optim.warmup_fraction", self.warmup_fraction, "a share in [0, 1)")
        require(
            0 <= self.final_lr_fraction <= 1, "optim.final_lr_fraction", self.final_lr_fraction, "a share in [0, 1]"
        )
        for key in ("max_nonfinite_steps", "max_skipped_steps"):
            require(getattr(self, key) >= 1, f"optim.{key}", getattr(self, key), "at least 1")
        require(self.spike is None or self.spike > 1, "optim.spike", self.spike, "a factor above 1, or null")


@dataclass
class TrainerConfig:
    """Arguments of Lightning's ``Trainer``, passed on unchanged; null keeps Lightning's default. Omitted are

    those that the program sets itself: loggers, callbacks, plugins and output folder.

    Attributes:
        accelerator: kind of device: ``auto``, ``cpu`` or ``gpu``.
        strategy: ``auto``: what the group ``strategy`` says; anything else goes to Lightning in its place.
        devices: their number, a list of their indices, or ``auto``: all.
        num_nodes: number of machines.
        precision: ``32-true``, ``bf16-mixed`` or ``16-mixed``.
        fast_dev_run: this many batches of training and validation, and nothing saved.
        max_epochs: end after this many epochs.
        min_epochs: do not end before this many epochs.
        max_steps: end after this many optimizer steps.
        min_steps: do not end before this many optimizer steps.
        max_time: end after this time, ``DD:HH:MM:SS``.
        limit_train_batches: number of training batches per epoch, or their share.
        limit_val_batches: number of batches per validation, or their share.
        limit_test_batches: number of batches per test, or their share.
        overfit_batches: train and validate on this many training batches only.
        val_check_interval: validate after this many batches, or this share of an epoch.
        check_val_every_n_epoch: number of epochs between validations.
        num_sanity_val_steps: validation batches before training; ``callbacks.validate_at_start`` replaces them.
        log_every_n_steps: steps between two rows of training metrics.
        enable_model_summary: Lightning's table of layers; the log already lists parts, sizes and learning rates.
        accumulate_grad_batches: batches whose gradients are added up for one optimizer step.
        gradient_clip_val: largest norm of the gradient; null = no limit.
        gradient_clip_algorithm: ``norm``.
        deterministic: use deterministic algorithms, which are slower; ``warn`` only warns where there are none.
        benchmark: let cuDNN benchmark algorithms.
        inference_mode: validate in inference mode; off, since metrics that are reset in it could not be updated in
            training.
        profiler: ``simple``, ``advanced`` or ``pytorch``.
        detect_anomaly: look for NaN in the backward pass; slow.
        sync_batchnorm: average batch statistics over devices; the model has none.
    """

    accelerator: Any = "auto"
    strategy: Any = "auto"
    devices: Any = "auto"
    num_nodes: Any = None
    precision: Any = None
    fast_dev_run: Any = None
    max_epochs: Any = 100
    min_epochs: Any = None
    max_steps: Any = None
    min_steps: Any = None
    max_time: Any = None
    limit_train_batches: Any = None
    limit_val_batches: Any = None
    limit_test_batches: Any = None
    overfit_batches: Any = None
    val_check_interval: Any = None
    check_val_every_n_epoch: Any = None
    num_sanity_val_steps: Any = 0  # validation at step 0 replaces it
    log_every_n_steps: Any = 50
    enable_model_summary: Any = False  # the log lists parts, sizes and learning rates
    accumulate_grad_batches: Any = None
    gradient_clip_val: Any = 1.0
    gradient_clip_algorithm: Any = None
    deterministic: Any = None
    benchmark: Any = None
    inference_mode: Any = False  # metrics reset in inference mode could not be updated in training
    profiler: Any = None
    detect_anomaly: Any = None
    sync_batchnorm: Any = None

    def __post_init__(self) -> None:
        algorithm = self.gradient_clip_algorithm
        require(algorithm in (None, "norm"), "trainer.gradient_clip_algorithm", algorithm, "norm")


@dataclass
class CheckpointConfig:
    """When ``last.ckpt`` is written; after every validation in any case, when ``best.ckpt`` is written too if it is
    better.

    Attributes:
        monitor: validation metric that decides what is best (lowest).
        every_n_steps: optimizer steps between checkpoints; null = not by steps.
        every_n_minutes: time between checkpoints; null = not by time.
    """

    monitor: str = "val/pose_trans_avg"
    every_n_steps: int | None = None
    every_n_minutes: float | None = 10.0

    def __post_init__(self) -> None:
        steps, minutes = self.every_n_steps, self.every_n_minutes
        require(steps is None or steps >= 1, "checkpoint.every_n_steps", steps, "at least 1, or null")
        require(minutes is None or minutes > 0, "checkpoint.every_n_minutes", minutes, "a positive time, or null")


@dataclass
class LoggerConfig:
    """Where metrics go besides ``metrics.csv``, which is always written.

    Attributes:
        mode: ``wandb`` (online), ``offline`` (W&B files, to be synced later), ``csv`` (nothing else), or
            ``auto``: ``wandb`` when ``WANDB_API_KEY`` is set, else ``csv``.
        project: of the run at W&B.
        entity: user or team that the project belongs to.
        group: group of the run at W&B; null = the experiment.
        tags: of the run at W&B.
    """

    mode: str = "auto"
    project: str = "coopmap"
    entity: str | None = None
    group: str | None = None
    tags: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        require_choice("logger.mode", self.mode, LOGGER_MODES)


@dataclass
class CallbacksConfig:
    """Progress display and the validation before training.

    Attributes:
        progress: ``bar`` (rich), ``lines`` (a log line at intervals), ``none``, or ``auto``: a bar on a terminal,
            lines elsewhere.
        progress_seconds: time between two lines.
        validate_at_start: validate before the first step, so that every metric has a zero-shot value.
        live_frames: so many frames of the validation are drawn at every validation, into the run's ``gallery`` and to
            W&B; 0 = no pictures and no curves before the end.
        live_clouds_every: validations between two pictures of points; new best checkpoints have them in any case.
    """

    progress: str = "auto"
    progress_seconds: float = 30.0
    validate_at_start: bool = True
    live_frames: int = 3
    live_clouds_every: int = 5

    def __post_init__(self) -> None:
        require(self.live_frames >= 0, "callbacks.live_frames", self.live_frames, "0 or more")
        require(self.live_clouds_every >= 1, "callbacks.live_clouds_every", self.live_clouds_every, "at least 1")
        require_choice("callbacks.progress", self.progress, PROGRESS_MODES)
        require(self.progress_seconds > 0, "callbacks.progress_seconds", self.progress_seconds, "a positive time")
