"""Pictures and curves while training runs."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
from jaxtyping import UInt8
from lightning.pytorch.loggers import WandbLogger

from coopmap.config.train import CallbacksConfig
from coopmap.data.dataset import FrameDataset
from coopmap.data.opv2v import DataError
from coopmap.data.surroundings import Surroundings, read_surroundings
from coopmap.models.placement import as_matched
from coopmap.runs.metrics_file import read_metrics
from coopmap.training.gallery import Gallery, Stage
from coopmap.training.scenes import scene_of
from coopmap.types import Batch, SampleMeta, SkippedBatch
from coopmap.viz.run_curves import write_run_curves
from coopmap.viz.scene import PRED, Scene
from coopmap.viz.scene_cloud import placed, predicted_clouds, thinned

log = logging.getLogger(__name__)

SHOWN = {
    "pose_trans_avg": "val/pose_trans_avg",
    "translation (m)": "val/trans_m_mean",
    "rotation (deg)": "val/rot_deg_mean",
}
WANDB_POINTS = 30_000


class LivePictures(L.Callback):
    """At every validation, the same few frames as pictures into the gallery of the run and to W&B.

    Predictions are those that validation has just made: nothing is computed twice. Only the first process draws. A
    failure to draw is logged and never ends a run.

    Args:
        folder: of the run.
        cfg: ``live_frames``, ``live_clouds_every``.
        monitor: metric that decides what is best (lowest), as for checkpoints.
    """

    def __init__(self, folder: Path, cfg: CallbacksConfig, monitor: str) -> None:
        self.gallery, self.cfg, self.monitor = Gallery(folder / "gallery"), cfg, monitor
        self._curves = folder / "curves.html", folder / "metrics.csv"
        self._scenes: dict[int, Scene] = {}
        self._wanted: frozenset[int] = frozenset()
        self._around: dict[SampleMeta, Surroundings | None] = {}
        self._validations, self._best = 0, float("inf")

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Choose batches that are spread over the split."""
        self._scenes, self._wanted = {}, frozenset()
        if not self._is_due(trainer, pl_module):
            return
        batches = int(sum(trainer.num_val_batches))
        places = np.linspace(0, batches - 1, min(self.cfg.live_frames, batches))
        self._wanted = frozenset(np.rint(places).astype(int).tolist())

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Batch | SkippedBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the first sample of a chosen batch."""
        if batch_idx not in self._wanted or isinstance(batch, SkippedBatch) or outputs is None:
            return
        meta = batch.metas[0]
        if meta not in self._around:
            self._around[meta] = _surroundings(trainer, meta)
        given, predicted = outputs["observation"], outputs["prediction"]
        placed = as_matched(pl_module.model, predicted, given)  # type: ignore[arg-type]
        self._scenes[batch_idx] = scene_of(placed, given, batch.target, meta, 0, self._around[meta])

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw them, and the curves."""
        if not self._is_due(trainer, pl_module):
            return
        figures = {name: float(value) for name, value in trainer.callback_metrics.items()}
        is_best = figures.get(self.monitor, float("inf")) < self._best
        self._best = min(self._best, figures.get(self.monitor, float("inf")))
        self._validations += 1
        try:
            self._draw(trainer, figures, is_best)
            file, metrics = self._curves
            if metrics.exists():
                write_run_curves(read_metrics(metrics), file, file.parent.name)
        except Exception as error:  # a full disk, a library: hours of training are worth more than a picture
            log.warning("no pictures of this validation: %s: %s", type(error).__name__, error)
        self._scenes = {}

    def _is_due(self, trainer: L.Trainer, module: L.LightningModule) -> bool:
        """In training and before it, not when a checkpoint is measured afterwards."""
        is_live = (trainer.state.fn == "fit" and not trainer.sanity_checking) or module.is_at_start
        dry = trainer.fast_dev_run  # type: ignore[attr-defined]
        return bool(is_live and trainer.is_global_zero and not dry and self.cfg.live_frames)

    def _draw(self, trainer: L.Trainer, figures: dict[str, float], is_best: bool) -> None:
        scenes = [self._scenes[number] for number in sorted(self._scenes)]
        has_clouds = is_best or (self._validations - 1) % self.cfg.live_clouds_every == 0
        stage = Stage(
            trainer.global_step,
            [scene.title for scene in scenes],
            {label: figures[name] for label, name in SHOWN.items() if name in figures},
            is_best,
            has_clouds,
        )
        pictures = self.gallery.add(stage, scenes)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                send(logger, stage, pictures, scenes if has_clouds else ())

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run goes on with."""
        return {"validations": self._validations, "best": self._best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the counts of the run that is resumed."""
        self._validations, self._best = state_dict["validations"], state_dict["best"]


def send(
    logger: WandbLogger, stage: Stage, pictures: Sequence[UInt8[np.ndarray, "h w 3"]], scenes: Sequence[Scene]
) -> None:
    """Media to W&B, or into its files if it runs offline: a picture per frame, and points of ``scenes``."""
    import wandb

    media: dict[str, Any] = {
        f"live/frame_{number}": wandb.Image(picture, caption=f"{title}, step {stage.step}", file_type="jpg")
        for number, (picture, title) in enumerate(zip(pictures, stage.frames, strict=True))
    }
    for number, scene in enumerate(scenes):
        clouds, _ = thinned(predicted_clouds(scene), WANDB_POINTS)
        points = placed(scene, clouds, PRED) * np.array([1, -1, -1])  # y up
        colored = np.concatenate([points, *([np.concatenate([cloud.colors for cloud in clouds])] if clouds else [])], 1)
        known = np.isfinite(points).all(axis=1)  # JSON has no others; a predicted pose may be no number
        media[f"live/points_{number}"] = wandb.Object3D(colored[known])
    logger.log_metrics(media, stage.step)


def _surroundings(trainer: L.Trainer, meta: SampleMeta) -> Surroundings | None:
    """GPS, rigs and boxes of a sample; ``None`` if its files are not at hand."""
    dataset = trainer.datamodule.dataset("val")  # type: ignore[attr-defined]
    if not isinstance(dataset, FrameDataset):
        return None
    try:
        return read_surroundings(dataset.index, meta)
    except DataError:  # views come from a cache, or from another split
        return None
