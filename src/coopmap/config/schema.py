"""The root of the configuration."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from coopmap.config.checks import ConfigError, require, require_choice
from coopmap.config.data import DataConfig
from coopmap.config.loss import LossConfig
from coopmap.config.model import ModelConfig
from coopmap.config.preflight import PreflightConfig
from coopmap.config.priors import PriorsConfig
from coopmap.config.strategy import STRATEGIES, StrategyConfig
from coopmap.config.task import INPUTS, TaskConfig
from coopmap.config.train import CallbacksConfig, CheckpointConfig, LoggerConfig, OptimConfig
from coopmap.config.trainer import TrainerConfig, limited

RESETS = ("optimizer", "schedule")


@dataclass(frozen=True)
class RunLength:
    """Optimizer steps that a run takes.

    Attributes:
        steps: in all; ``None`` = it has no end.
        per_epoch: of each epoch.
    """

    steps: int | None
    per_epoch: int


@dataclass
class Config:
    """Everything a run depends on.

    Attributes:
        experiment: name of the experiment file, and of the folder that its runs share.
        machine: hardware that devices, precision and memory settings are chosen for.
        preset: settings for a purpose, on top of the groups: ``demo``, ``streets`` or ``none``.
        seed: of weights, sampling and augmentation.
        resume: ``auto`` (the newest unfinished run of this experiment with the same configuration; a new run where
            there is none), ``latest`` (the run with the newest checkpoint), a run's name or folder, a checkpoint file,
            or null: a new run. Everything is taken from there: weights, optimizer, schedule, place in the data.
        resume_reset: what a resumed run begins anew, in this start alone: the state of the ``optimizer``, the learning
            rate's ``schedule`` (over the steps that are left), or both.
        init_from: a new run begins with the weights alone of this run (a name, a folder or ``latest``; its best
            checkpoint) or checkpoint file; its architecture has to be the configured one.
        runs_root: folder of all runs.
        run_dir: folder of this run.
    """

    experiment: str = "cyl_posefix"
    machine: str = "auto"
    preset: str = "none"
    seed: int = 0
    resume: str | None = None
    resume_reset: list[str] = field(default_factory=list)
    init_from: str | None = None
    runs_root: str = "runs"
    run_dir: str = "${runs_root}/${experiment}/${run_id:}_seed${seed}${sweep_suffix:}"
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    task: TaskConfig = field(default_factory=TaskConfig)
    priors: PriorsConfig = field(default_factory=PriorsConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    strategy: StrategyConfig = field(default_factory=StrategyConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)
    callbacks: CallbacksConfig = field(default_factory=CallbacksConfig)
    preflight: PreflightConfig = field(default_factory=PreflightConfig)

    def __post_init__(self) -> None:
        require(0 <= self.seed < 2**32, "seed", self.seed, "0 to 2**32 - 1")
        for part in self.resume_reset:
            require_choice("resume_reset", part, RESETS)
        self.settle_strategy()
        require(
            self.optim.state_bits == 32 or self.strategy.name not in ("ddp_zero1", "fsdp"),
            "optim.state_bits",
            self.optim.state_bits,
            f"32 with strategy={self.strategy.name}, which shares float32 averages out; strategy=ddp takes 8",
        )
        self._choose_matching()
        self._check_layout()
        self._check_patches()
        self._check_priors()
        self._check_panorama_options()
        self._check_mosaic()
        self._check_tilt()
        self._check_foreign()
        self._check_validation()
        for kind in INPUTS:
            if self.task.may_give(kind) and not getattr(self.model.inputs, kind):
                raise ConfigError(
                    f"task={self.task.name} gives {kind}, but the model has no encoder for it (model.inputs.{kind} is "
                    f"false): choose another task, or a model that was trained with {kind}"
                )

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the run."""
        epochs, steps = self.trainer.max_epochs, self.trainer.max_steps
        ends = [steps or -1, (epochs or -1) * self.steps_per_epoch]
        return min(end for end in ends if end > 0)

    def describe_inputs(self, in_evaluation: bool = True) -> str:
        """What the model is to be given, in words: in evaluation, or in training."""
        task, priors = self.task, self.priors
        if in_evaluation:
            task, priors = task.for_evaluation(), priors.for_evaluation()
        more = priors.describe() + (["directions of gravity"] if self.model.matching.gravity else [])
        return " + ".join([task.describe().removesuffix(" only"), *more]) if more else task.describe()

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of an epoch, of which ``trainer.limit_train_batches`` may leave fewer."""
        return -(-self.batches_per_epoch // self.accumulate)

    @property
    def batches_per_epoch(self) -> int:
        """Training batches of each rank, as Lightning counts."""
        batches = self.trainer.overfit_batches or self.data.steps_per_epoch * self.accumulate
        return limited(batches, self.trainer.limit_train_batches)

    @property
    def length(self) -> RunLength:
        """Both, for whoever has parts of the configuration alone."""
        return RunLength(self.total_steps, self.steps_per_epoch)

    @property
    def accumulate(self) -> int:
        """Micro-batches of an optimizer step on each rank."""
        return self.trainer.accumulate_grad_batches or 1

    def settle_strategy(self) -> None:
        """Say it in one place: ``trainer.strategy`` may name a choice of the group ``strategy``."""
        if self.trainer.strategy != "auto" and self.trainer.strategy in STRATEGIES:
            self.strategy, self.trainer.strategy = replace(self.strategy, name=self.trainer.strategy), "auto"

    def _choose_matching(self) -> None:
        """Build what the objective teaches, and answer with it, where that is left open."""
        model, taught = self.model, False
        if model.matching.enabled is None:
            regresses = model.pose_update or model.pose_correction or self.data.neighbor_ticks > 0
            asked = model.matching.prior or model.matching.gravity
            taught = asked or (self.loss.weights.matching > 0 and not regresses)
            model.matching.enabled = taught
        if model.pose_from is None:
            model.pose_from = "alignment" if taught else "head"
        model.check_pose_source()

    def _check_patches(self) -> None:
        """What the model cuts into patches has whole ones."""
        patch = self.model.encoder.patch_size
        if self.data.layout == "grouped":
            aligned = self.data.fused_patch_px
            require(aligned == patch, "data.fused_patch_px", aligned, f"model.encoder.patch_size, {patch}")
        kind = {"cameras": "cameras", "grouped": "cameras", "mosaic": "mosaic"}.get(self.data.layout, "panorama")
        for section in {kind, "panorama"} if self.data.layout == "grouped" else {kind}:
            for name in ("height", "width"):
                size = getattr(getattr(self.data, section), name)
                require(size % patch == 0, f"data.{section}.{name}", size, f"a multiple of the patch, {patch}")

    def _check_layout(self) -> None:
        kind, layouts = self.model.fusion.kind, self.model.fusion.layouts
        if self.data.layout not in layouts:
            raise ConfigError(
                f"model.fusion.kind={kind} works on data.layout={' or '.join(layouts)}, not {self.data.layout}: change "
                f"one of the two, or choose experiment=fusion_{{mean,concat,...}}, four_camera or cyl_posefix"
            )
        for key in ("rig_constraint", "view_embedding"):
            if getattr(self.model, key) and self.data.layout != "cameras":
                raise ConfigError(f"model.{key}=true is about single cameras: expected data.layout=cameras")
        if self.model.matching.enabled and self.data.neighbor_ticks:
            raise ConfigError(
                f"data.neighbor_ticks={self.data.neighbor_ticks} with model.matching.enabled=true, which matches "
                "agents of one tick: set one of the two to 0 or false"
            )

    def _check_panorama_options(self) -> None:
        pinhole = ("cameras", "mosaic")
        options = {
            "model.heads.circular": (self.model.heads.circular, pinhole),
            "model.spherical_encoding": (self.model.spherical_encoding, pinhole),
            "model.encoder.circular": (self.model.encoder.circular, ("cameras",)),  # a mosaic's stand around the car
        }
        for key, (is_on, layouts) in options.items():
            if is_on and self.data.layout in layouts:
                raise ConfigError(
                    f"{key}=true is for 360-degree panoramas, but data.layout={self.data.layout} has pinhole images: "
                    f"{key}=false, or data.layout=panorama, warped or grouped"
                )

    def _check_foreign(self) -> None:
        probability = self.data.sampling.foreign_prob
        reasons = {
            "without model.matching.enabled=true: an agent of another scenario has no pose to regress": (
                not self.model.matching.enabled
            ),
            "with trainer.overfit_batches, whose batches are measured too: measures know of no other scenario": (
                bool(self.trainer.overfit_batches)
            ),
        }
        for reason, holds in reasons.items():
            require(probability == 0 or not holds, "data.sampling.foreign_prob", probability, f"0 {reason}")

    def _check_validation(self) -> None:
        """Lightning looks at this when an epoch begins."""
        interval, batches = self.trainer.val_check_interval, self.batches_per_epoch
        require(batches > 0, "trainer.limit_train_batches", self.trainer.limit_train_batches, "a batch of each epoch")
        require(
            not isinstance(interval, int) or interval <= batches,
            "trainer.val_check_interval",
            interval,
            f"at most the {batches} batches of an epoch (data.steps_per_epoch), or their share such as 0.5",
        )

    def _check_mosaic(self) -> None:
        if self.data.layout != "mosaic":
            if self.model.plucker:
                raise ConfigError("model.plucker=true is about the cameras of a mosaic: expected data.layout=mosaic")
            return
        augmentation = self.data.augmentation
        turned = {"yaw_roll": augmentation.yaw_roll, "tilt_deg": augmentation.tilt_deg > 0}
        for key, is_on in turned.items():
            if is_on and not self.task.always_gives("rays"):
                raise ConfigError(
                    f"data.augmentation.{key}={getattr(augmentation, key)} turns the frame of a mosaic, but task="
                    f"{self.task.name} does not always give the rays that tell how: task=calibrated, or "
                    f"data.augmentation.{key}={'false' if key == 'yaw_roll' else 0}"
                )

    def _check_tilt(self) -> None:
        """What takes the road for level in a view's frame does not go with frames that are tilted."""
        tilt, model = self.data.augmentation.tilt_deg, self.model
        if tilt == 0 or self.data.layout == "cameras":  # the frames of single cameras are their own
            return
        where = f"data.augmentation.tilt_deg={tilt:g}, which tilts the frame in which"
        if model.ground_range:
            raise ConfigError(
                f"{where} model.ground_range=true has the road level: model.ground_range=false, or "
                "data.augmentation.tilt_deg=0"
            )
        sigma = model.matching.tilt_sigma_deg
        if model.matching.enabled and not model.matching.gravity and sigma is not None and sigma < tilt:
            raise ConfigError(
                f"{where} model.matching.tilt_sigma_deg={sigma:g} has agents level: expected at least {tilt:g}, or "
                "null, or model.matching.gravity=true"
            )

    def _check_priors(self) -> None:
        if self.priors.gives_pose and not self.model.inputs.pose:
            raise ConfigError(
                f"priors.agent_pose={self.priors.agent_pose}, but the model has no encoder for poses: "
                "model.inputs.pose=true, or priors.agent_pose=none"
            )
        if self.priors.rig and not self.model.inputs.rig:
            raise ConfigError(
                "priors.rig=true, but the model has no encoder for the rig: model.inputs.rig=true, or priors.rig=false"
            )
        if self.priors.rig and self.data.layout != "cameras":
            raise ConfigError(
                f"priors.rig=true needs data.layout=cameras, not {self.data.layout}: a panorama has no camera poses, "
                "and fusion blocks always know the rig"
            )
