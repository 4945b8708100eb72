"""Configuration of Lightning's trainer."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from coopmap.config.checks import ConfigError, require, require_choice

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
SHORT_PRECISIONS = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}
"""Lightning's own short names."""
LEAST = {
    "num_nodes": 1, "fast_dev_run": 0, "min_epochs": 0, "min_steps": 0, "overfit_batches": 0, "log_every_n_steps": 1,
    "check_val_every_n_epoch": 1, "num_sanity_val_steps": -1, "accumulate_grad_batches": 1, "gradient_clip_val": 0,
}  # fmt: skip
"""Smallest values."""


@dataclass
class TrainerConfig:
    """Arguments of Lightning's ``Trainer``; null keeps Lightning's default.

    Omitted are those that the program sets itself: loggers, callbacks, plugins and output folder.

    Attributes:
        accelerator: kind of device: ``auto``, ``cpu`` or ``gpu``.
        strategy: ``auto``: what the group ``strategy`` says; one of that group's names counts as said there, anything
            else goes to Lightning in its place.
        devices: their number, a list of their indices, or ``auto``: all.
        num_nodes: number of machines.
        precision: ``32-true``, ``bf16-mixed`` or ``16-mixed``.
        fast_dev_run: this many batches of training and validation, and nothing saved.
        max_epochs: end after this many epochs; null = no limit, if ``max_steps`` has one.
        min_epochs: do not end before this many epochs.
        max_steps: end after this many optimizer steps; null = no limit, if ``max_epochs`` has one.
        min_steps: do not end before this many optimizer steps.
        max_time: stop after this time, ``DD:HH:MM:SS``, as on a signal; ``resume=auto`` continues, for as long again.
        limit_train_batches: number of training batches per epoch, or their share.
        limit_val_batches: number of batches per validation, or their share.
        limit_test_batches: number of batches per test, or their share.
        overfit_batches: train and validate on this many training batches only.
        val_check_interval: validate after this many batches, or this share of an epoch.
        check_val_every_n_epoch: number of epochs between validations; the last step of the run is always validated.
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

    accelerator: str | None = "auto"
    strategy: str | None = "auto"
    devices: Any = "auto"
    num_nodes: int | None = None
    precision: str | None = None
    fast_dev_run: bool | int | None = None
    max_epochs: int | None = 100
    min_epochs: int | None = None
    max_steps: int | None = None
    min_steps: int | None = None
    max_time: str | None = None
    limit_train_batches: int | float | None = None
    limit_val_batches: int | float | None = None
    limit_test_batches: int | float | None = None
    overfit_batches: int | None = None
    val_check_interval: int | float | None = None
    check_val_every_n_epoch: int | None = None
    num_sanity_val_steps: int | None = 0  # validation at step 0 replaces it
    log_every_n_steps: int | None = 50
    enable_model_summary: bool | None = False  # the log lists parts, sizes and learning rates
    accumulate_grad_batches: int | None = None
    gradient_clip_val: float | None = 1.0
    gradient_clip_algorithm: str | None = None
    deterministic: bool | str | None = None
    benchmark: bool | None = None
    inference_mode: bool | None = False  # metrics reset in inference mode could not be updated in training
    profiler: str | None = None
    detect_anomaly: bool | None = None
    sync_batchnorm: bool | None = None

    def __post_init__(self) -> None:
        self.precision = SHORT_PRECISIONS.get(str(self.precision), self.precision)
        require_choice("trainer.precision", self.precision, PRECISIONS)
        self.accelerator, self.strategy = self.accelerator or "auto", self.strategy or "auto"
        self.devices = as_devices(self.devices)
        for name, least in LEAST.items():
            value = getattr(self, name)
            require(value is None or value >= least, f"trainer.{name}", value, f"at least {least}, or null")
        for name in ("limit_train_batches", "limit_val_batches", "limit_test_batches", "val_check_interval"):
            value = getattr(self, name)
            fits = value is None or (value >= 0 and (isinstance(value, int) or value <= 1))
            fits = fits and (value != 0 or name in ("limit_val_batches", "limit_test_batches"))
            require(fits, f"trainer.{name}", value, "a number of batches, or their share such as 0.5")
        require(self.max_seconds != 0, "trainer.max_time", self.max_time, "a time, DD:HH:MM:SS, such as 00:11:30:00")
        self._check_end()
        algorithm, is_strict = self.gradient_clip_algorithm, self.deterministic
        require(algorithm in (None, "norm"), "trainer.gradient_clip_algorithm", algorithm, "norm")
        require(is_strict in (None, True, False, "warn"), "trainer.deterministic", is_strict, "true, false or warn")

    @property
    def max_seconds(self) -> int | None:
        """``max_time`` in seconds; 0 if it cannot be read."""
        if self.max_time is None:
            return None
        parts = re.fullmatch(r"(\d+):(\d\d):(\d\d):(\d\d)", self.max_time.strip())
        days, hours, minutes, seconds = map(int, parts.groups()) if parts else (0, 0, 0, 0)
        return ((days * 24 + hours) * 60 + minutes) * 60 + seconds

    def _check_end(self) -> None:
        """The learning rate's schedule needs a length."""
        for name in ("max_epochs", "max_steps"):
            value = getattr(self, name)
            require(value in (None, -1) or value >= 1, f"trainer.{name}", value, "at least 1, or null: no limit")
        if self.max_epochs in (None, -1) and self.max_steps in (None, -1):
            raise ConfigError(
                "trainer.max_epochs and trainer.max_steps are both without a limit: set one of them, since the "
                "learning rate falls over the whole run (trainer.max_time stops it earlier, to be continued)"
            )


def limited(batches: int, limit: int | float | None) -> int:
    """Of so many batches those that a limit leaves, a number or a share; null = all."""
    if isinstance(limit, int):
        return min(batches, limit)
    return batches if limit is None else int(batches * limit)


def as_devices(devices: object) -> int | str | list[int]:
    """``auto``, a number of devices (-1 = all) or their indices; Lightning reads text such as ``0,1`` likewise.

    Raises:
        ConfigError: it is none of these.
    """
    if devices in (None, "auto"):
        return "auto"
    found = devices
    if isinstance(devices, str):
        words = [word.strip() for word in devices.removesuffix(",").split(",")]
        numbers = [int(word) for word in words if re.fullmatch(r"-?[0-9]+", word)]
        found = numbers if "," in devices else next(iter(numbers), None)
    if isinstance(found, list) and found and all(type(index) is int and index >= 0 for index in found):
        return found
    if type(found) is int and (found >= 1 or found == -1):
        return found
    raise ConfigError(f"trainer.devices={devices}: expected auto, their number, or a list of indices such as [0,1]")
