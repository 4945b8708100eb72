"""The root of the configuration."""

from __future__ import annotations

from dataclasses import dataclass, field

from coopmap.config.checks import ConfigError, require
from coopmap.config.data import DataConfig
from coopmap.config.loss import LossConfig
from coopmap.config.model import ModelConfig
from coopmap.config.task import INPUTS, TaskConfig
from coopmap.config.train import CallbacksConfig, CheckpointConfig, LoggerConfig, OptimConfig, TrainerConfig


@dataclass
class Config:
    """Everything a run depends on.

    Attributes:
        experiment: name of the experiment file, and of the folder that its runs share.
        machine: kind of machine that device, precision and sizes were chosen for.
        seed: of weights, sampling and augmentation.
        resume: ``auto`` (the newest unfinished run of this experiment with this very configuration; a new run where
            there is none), a run folder, a checkpoint file, or null: a new run.
        runs_root: folder of all runs.
        run_dir: folder of this run.
    """

    experiment: str = "cyl_posefix"
    machine: str = "auto"
    seed: int = 0
    resume: str | None = None
    runs_root: str = "runs"
    run_dir: str = "${runs_root}/${experiment}/${run_id:}_seed${seed}${sweep_suffix:}"
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    task: TaskConfig = field(default_factory=TaskConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)
    callbacks: CallbacksConfig = field(default_factory=CallbacksConfig)

    def __post_init__(self) -> None:
        require(0 <= self.seed < 2**32, "seed", self.seed, "0 to 2**32 - 1")
        for kind in INPUTS:
            if self.task.may_give(kind) and not getattr(self.model.inputs, kind):
                raise ConfigError(
                    f"task={self.task.name} gives {kind}, but the model has no encoder for it (model.inputs.{kind} is "
                    f"false): choose another task, or a model that was trained with {kind}"
                )
