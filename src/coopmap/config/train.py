"""Configuration of a training run: optimizer, checkpoints, logs."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

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
        require(0 < self.lora_alpha < math.inf, "optim.train.lora_alpha", self.lora_alpha, "a positive number")
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
        require(0 < self.lr < math.inf, "optim.lr", self.lr, "a positive learning rate")
        for part, lr in self.lr_of.items():
            require(0 <= lr < math.inf, f"optim.lr_of.{part}", lr, "a learning rate of at least 0")
        valid_betas = len(self.betas) == 2 and all(0 <= beta < 1 for beta in self.betas)
        require(valid_betas, "optim.betas", self.betas, "two numbers in [0, 1)")
        require(0 <= self.weight_decay < math.inf, "optim.weight_decay", self.weight_decay, "a number of at least 0")
        require(0 <= self.warmup_fraction < 1, "optim.warmup_fraction", self.warmup_fraction, "a share in [0, 1)")
        require(
            0 <= self.final_lr_fraction <= 1, "optim.final_lr_fraction", self.final_lr_fraction, "a share in [0, 1]"
        )
        for key in ("max_nonfinite_steps", "max_skipped_steps"):
            require(getattr(self, key) >= 1, f"optim.{key}", getattr(self, key), "at least 1")
        require(self.spike is None or self.spike > 1, "optim.spike", self.spike, "a factor above 1, or null")


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
