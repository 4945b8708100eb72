"""A record of each measured sample, and the hook that collects records while Lightning validates."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning as L
import torch
from jaxtyping import Float
from torch import Tensor

from coopmap.evaluation.bound import Bound
from coopmap.evaluation.probes import Probe
from coopmap.evaluation.refinement import most_covisible, predict_from_each_agent, refine
from coopmap.geometry import relative_pose
from coopmap.geometry.pairs import pair_ends
from coopmap.metrics import MeanPoseBaseline, Rows, agent_poses, pair_errors, predicted_pose, slow_rows
from coopmap.metrics.reduce import or_unanswered
from coopmap.models.placement import as_matched
from coopmap.report.files import write_csv
from coopmap.runs.outputs import make_output_folder
from coopmap.types import Batch, Observation, Prediction, SampleMeta, SkippedBatch, Target

METHODS = {
    "model": "model",
    "refined": "model, refined",
    "chosen": "model, reference chosen",
    "prior": "pose priors",
    "training_mean": "training mean",
    "gps": "noisy GPS",
    "gps_icp": "GPS + ICP on LiDAR",
    "matching_rig": "SIFT + PoseLib on the rigs",
    "matching": "SIFT + LiDAR ranges",
    "xfeat_rig": "XFeat + PoseLib on the rigs",
    "xfeat": "XFeat + LiDAR ranges",
    "bound_own_ranges": "bound: true matches, own ranges",
    "bound_own_matches": "bound: own matches, true ranges",
    "bound": "bound: true matches, true ranges",
}
"""Methods, in the order of the tables; columns of all but the model begin with the key."""

PAIR_ERRORS = ("trans_m", "rot_deg")


@dataclass
class SampleRecord:
    """One measured sample.

    Attributes:
        meta: which sample.
        agents: distinct agents, the reference first.
        figures: by name, of the sample.
        pairs: by name, one value for each pair of agents ``i < j``.
        poses: ``T_0_j`` of the agents by method, and under ``true``.
        world: true ``T_world_0``; ``None`` where nothing is known.
        street: what its scenario says of its street (:func:`~coopmap.data.opv2v.protocol.read_street`).
    """

    meta: SampleMeta
    agents: tuple[str, ...]
    figures: dict[str, float]
    pairs: dict[str, list[float]]
    poses: dict[str, Float[Tensor, "n 4 4"]] = field(default_factory=dict)
    world: Float[Tensor, "4 4"] | None = None
    street: Mapping[str, str] = field(default_factory=dict)

    @property
    def order(self) -> tuple[str, int, tuple[str, ...]]:
        """What records are sorted and identified by."""
        return self.meta.scenario, int(self.meta.frame), self.meta.agents

    def add_method(self, name: str, pose: Float[Tensor, "n 4 4"], true: Float[Tensor, "n 4 4"] | None = None) -> None:
        """Add a method: its poses, and its errors as further metrics.

        Args:
            name: a key of :data:`METHODS`, not ``model``.
            pose: in any frame common to the agents.
            true: the truth to compare with; by default the record's.
        """
        true = self.poses["true"] if true is None else true
        self.poses[name] = relative_pose(pose[:1], pose).float().cpu()
        errors = pair_errors(pose[None], true[None].to(pose))
        for column in PAIR_ERRORS:
            values = errors[column][0].tolist()
            self.pairs[f"{name}_{column}"] = values
            self.figures[f"{name}_{column}"] = sum(values) / len(values) if values else float("nan")

    def add_pairs(self, name: str, pose: Float[Tensor, "n n 4 4"], true: Float[Tensor, "n 4 4"] | None = None) -> None:
        """Add a method that has no pose for some pairs of agents: their errors are NaN.

        Args:
            name: a key of :data:`METHODS`, not ``model``.
            pose: ``T_i_j``; NaN where there is none.
            true: as for :meth:`add_method`.
        """
        true = (self.poses["true"] if true is None else true).to(pose)
        self.poses[name] = pose[0].float().cpu()
        first, second = pair_ends(len(pose))
        answer = torch.stack([torch.eye(4).to(pose).expand(len(first), 4, 4), pose[first, second]], dim=1)
        errors = pair_errors(answer, torch.stack([true[first], true[second]], dim=1))
        errors = {column: or_unanswered(errors[column]) for column in PAIR_ERRORS}
        self.figures[f"{name}_answered"] = float(errors["trans_m"].isfinite().double().mean())
        for column in PAIR_ERRORS:
            values = errors[column][:, 0]
            self.pairs[f"{name}_{column}"] = values.tolist()
            self.figures[f"{name}_{column}"] = float(values.nanmean())

    def sample_row(self) -> dict[str, Any]:
        """Its row in ``samples.csv``."""
        return {**self._key(), "agents": " ".join(self.agents), **self.figures}

    def pair_rows(self) -> list[dict[str, Any]]:
        """Its rows in ``pairs.csv``: agent ids in place of the columns ``i`` and ``j``."""
        figures = {name: values for name, values in self.pairs.items() if name not in ("i", "j")}
        ends = zip(self.pairs["i"], self.pairs["j"], strict=True)
        return [
            {**self._key(), "agent_i": self.agents[int(i)], "agent_j": self.agents[int(j)]}
            | {name: values[row] for name, values in figures.items()}
            for row, (i, j) in enumerate(ends)
        ]

    def _key(self) -> dict[str, str]:
        return {"scenario": self.meta.scenario, "frame": self.meta.frame, **self.street}


class InputCount:
    """How many views came with which geometric input, as the model received them."""

    def __init__(self, takes: Mapping[str, bool]) -> None:
        self.takes = takes
        self.views = 0
        self.given = dict.fromkeys(("rays", "depth", "pose", "rig", "gravity"), 0)

    def update(self, observation: Observation) -> None:
        """Count a batch."""
        batch, num_views = observation.images.shape[:2]
        self.views += batch * num_views
        present = {
            "rays": observation.rays,
            "depth": observation.depth_prior,
            "pose": observation.pose_prior,
            "rig": observation.rig_pose,
            "gravity": observation.gravity,
        }
        for name, value in present.items():
            if value is not None and self.takes.get(name, False):
                mask = getattr(observation, f"{name}_given", None)
                self.given[name] += batch * num_views if mask is None else int(mask.sum())


class RowWriter:
    """A CSV file that grows while samples are measured, so that a crash loses nothing."""

    def __init__(self, file: Path) -> None:
        make_output_folder(file.parent)
        self._stream = file.open("w", newline="")
        self._writer: csv.DictWriter | None = None

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Append rows; the first decides the columns."""
        if self._writer is None and rows:
            self._writer = csv.DictWriter(self._stream, list(rows[0]), extrasaction="ignore")
            self._writer.writeheader()
        if self._writer is not None:
            self._writer.writerows([_readable(row) for row in rows])
        self._stream.flush()

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


def write_table(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """A CSV file with all columns that any row has, written atomically."""
    write_csv([_readable(row) for row in rows], file)


def _readable(row: Mapping[str, Any]) -> dict[str, Any]:
    """Six digits suffice; undefined values are left empty."""
    return {
        name: ("" if value != value else f"{value:.6g}") if isinstance(value, float) else value
        for name, value in row.items()
    }


class Recorder(L.Callback):
    """Collects a record of each sample, from the inputs and predictions of the validation loop.

    Args:
        samples_file: grows with each batch.
        refined: also refine the poses, and choose a reference, which takes one more pass of the model for every agent
            but the first.
        probes: by name; most take one more pass of the model.
        bound: also measure what the inputs allow.
        with_mean: also measure the training set's mean pose.

    Attributes:
        records: of this rank, in the order of measurement.
        inputs: what the model received.
    """

    def __init__(
        self,
        samples_file: Path,
        refined: bool = False,
        probes: Mapping[str, Probe] | None = None,
        bound: Bound | None = None,
        with_mean: bool = True,
    ) -> None:
        self.refined, self.probes, self.bound, self.with_mean = refined, probes or {}, bound, with_mean
        self.records: list[SampleRecord] = []
        self.inputs = InputCount({})
        self._writer = RowWriter(samples_file)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Find out which inputs the model can use."""
        cfg: Any = getattr(pl_module.model, "cfg", None)
        self.inputs = InputCount({} if cfg is None else vars(cfg.inputs) | {"gravity": cfg.matching.gravity})

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Batch | SkippedBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Turn the output of a validation step into records."""
        if isinstance(batch, SkippedBatch) or outputs is None:
            return
        observation, prediction = outputs["observation"], outputs["prediction"]
        self.inputs.update(observation)
        refined: dict[str, Float[Tensor, "b n 4 4"]] = {}
        if self.refined:
            with trainer.precision_plugin.forward_context():
                poses, confidence = predict_from_each_agent(pl_module.model, observation, prediction)  # type: ignore[arg-type]
            num_agents = poses.shape[1]
            of_agents = torch.stack([agent_poses(passed, batch.target) for passed in poses.unbind(1)], dim=1)
            refined["refined"] = refine(of_agents, confidence.unflatten(2, (num_agents, -1)).mean(dim=-1))
            if prediction.matches is not None and num_agents > 1:
                chosen = most_covisible(prediction.matches, num_agents)
                refined["chosen"] = of_agents[torch.arange(len(chosen), device=chosen.device), chosen]
        placed = as_matched(pl_module.model, prediction, observation)  # type: ignore[arg-type]
        rows = outputs["rows"] | slow_rows(placed, batch.target)
        received = observation if self.inputs.takes.get("pose", False) else None
        mean = pl_module.baseline if self.with_mean else None
        added = records_of(batch, prediction, rows, refined, mean, received)  # type: ignore[arg-type]
        if self.bound is not None:
            found = self.bound.measure(observation, prediction, batch.target, outputs["true_matches"])
            for name, poses_of_samples in found.items():
                for record, poses in zip(added, poses_of_samples, strict=True):
                    record.add_pairs(name, poses)
        for probe in self.probes.values():
            for record, columns in zip(added, probe.columns(batch, observation, prediction), strict=True):
                record.pairs |= columns
        self.records += added
        self._writer.write([record.sample_row() for record in added])

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Close the file of samples."""
        self._writer.close()


def records_of(
    batch: Batch,
    prediction: Prediction,
    rows: Rows,
    refined: Mapping[str, Float[Tensor, "b n 4 4"]] | None = None,
    baseline: MeanPoseBaseline | None = None,
    received: Observation | None = None,
) -> list[SampleRecord]:
    """Records of the samples of a batch.

    Args:
        batch: the samples.
        prediction: for them.
        rows: what was measured of it.
        refined: further poses of agents, by method.
        baseline: the training mean.
        received: the observation that a model with pose priors was given.
    """
    target = batch.target
    figures, pairs = (
        {name: column.tolist() for name, column in columns.items()} for columns in (rows.samples, rows.pairs)
    )
    true = _in_reference(target.pose, target)
    world = agent_poses(target.pose, target)[:, 0].double().cpu()
    world[:, :3, 3] += world.new_tensor([meta.origin for meta in batch.metas])
    answers = {"model": _in_reference(predicted_pose(prediction), target), "true": true}
    further = dict(refined or {})
    has_prior = _has_prior(received, len(true))
    if received is not None and received.pose_prior is not None:
        further["prior"] = _in_reference(received.pose_prior, target)
    if baseline is not None:
        further["training_mean"] = baseline.predict(true.shape[1], len(true)).to(true)
    records = []
    for row, meta in enumerate(batch.metas):
        record = SampleRecord(
            meta,
            tuple(dict.fromkeys(meta.agents)),
            {name: values[row] for name, values in figures.items()},
            {name: values[row] for name, values in pairs.items()},
            {name: pose[row].float().cpu() for name, pose in answers.items()},
            world[row],
        )
        for name, pose in further.items():
            if name != "prior" or has_prior[row]:
                record.add_method(name, pose[row], true[row])
        records.append(record)
    return records


def _has_prior(received: Observation | None, num_samples: int) -> list[bool]:
    """Which samples came with a pose prior for every view."""
    if received is None or received.pose_prior is None:
        return [False] * num_samples
    given: list[bool] = [True] * num_samples if received.pose_given is None else received.pose_given.all(1).tolist()
    return given


def _in_reference(pose: Float[Tensor, "b v 4 4"], target: Target) -> Float[Tensor, "b n 4 4"]:
    """``T_0_j`` of the agents, double precision."""
    of_agents = agent_poses(pose, target)
    return relative_pose(of_agents[:, :1], of_agents)


def gathered(records: Sequence[SampleRecord], extra: Any = None) -> tuple[list[SampleRecord], list[Any]]:
    """Records of all ranks in one order, each sample once, and each rank's other data; a collective call."""
    shares: list[Any] = [(list(records), extra)]
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        shares = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(shares, (list(records), extra))
    once = {record.order: record for share, _ in shares for record in share}
    return [once[key] for key in sorted(once)], [extra for _, extra in shares]
