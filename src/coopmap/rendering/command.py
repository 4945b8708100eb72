"""From what a rendering is asked for to its files."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from coopmap.config.render import RenderConfig
from coopmap.data.dataset import FrameDataset
from coopmap.data.normalization import normalize
from coopmap.data.opv2v import FrameError
from coopmap.data.opv2v.depth import LidarDepth
from coopmap.data.requests import SampleRequest
from coopmap.data.samples import SkippedSample
from coopmap.data.surroundings import read_surroundings
from coopmap.evaluation.data import EvaluationData
from coopmap.evaluation.subject import Subject, open_subject
from coopmap.inference.loading import choose_device
from coopmap.models.placement import as_matched
from coopmap.models.precision import computes_bf16
from coopmap.rendering.outputs import write_files
from coopmap.rendering.summary import summarize
from coopmap.rendering.suspects import NOTHING
from coopmap.rendering.tables import agents_table
from coopmap.runs.outputs import check_output_folder, make_output_folder, replace_outputs
from coopmap.training.scenes import scene_of
from coopmap.types import Batch, Prediction, Sample
from coopmap.viz.scene_page import ScenePage, write_scene

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rendering:
    """What a rendering produced.

    Attributes:
        folder: with all files.
        summary: content of ``summary.json``.
    """

    folder: Path
    summary: dict[str, Any]


def render(asked: RenderConfig, overrides: Sequence[str] = ()) -> Rendering:
    """Predict a sample and write everything that shows it.

    Args:
        asked: what to render.
        overrides: of the composed or stored configuration.

    Raises:
        ConfigError: something requested does not exist or does not fit.
        DataError: the sample cannot be read.
    """
    subject = open_subject(asked, overrides)
    data = EvaluationData(subject.config, asked.split)
    data.prepare_data()
    dataset = data.dataset(asked.split)
    position = asked.position(len(dataset))
    folder = Path(asked.output) if asked.output is not None else subject.folder / "render" / f"{asked.split}_{position}"
    check_output_folder("output", folder)
    sample = read_sample(dataset, position)
    around = read_surroundings(dataset.index, sample.meta, with_sweeps=True)
    prediction, batch = predict(subject, sample, position)
    placed = as_matched(subject.module.model, prediction, batch.observation)
    scene = replace(
        scene_of(placed, batch.observation, batch.target, sample.meta, around=around),
        title=f"{asked.split} {position}: {sample.meta.scenario} / {sample.meta.frame}",
    )
    folder = make_output_folder(folder)
    origin = _origin(asked, subject, sample, position)
    summary = origin | summarize(scene, prediction, placed, batch.target)
    files = write_files(folder, scene, summary, asked.pose_source, _sparse_depth(dataset, position))
    page = ScenePage(
        facts=_facts(origin), tables=[agents_table(summary)], source=asked.pose_source, points=asked.points
    )
    shown = replace(scene, warnings=[*scene.warnings, *(line for line in summary["suspect"] if line != NOTHING)])
    files.append(folder / "pointcloud.html")
    write_scene(files[-1], shown, page)
    replace_outputs(folder, "render", files)
    log.info("%d files of %d agents", len(files), len(scene.agents))
    return Rendering(folder, summary)


def _origin(asked: RenderConfig, subject: Subject, sample: Sample, position: int) -> dict[str, Any]:
    """Which sample, which model, and what it was given."""
    return {
        "split": asked.split,
        "index": position,
        "scenario": sample.meta.scenario,
        "frame": sample.meta.frame,
        "agents": list(dict.fromkeys(sample.meta.agents)),
        "model": {"name": subject.name, **subject.origin},
        "inputs": subject.config.describe_inputs(),
        "pose_from": subject.config.model.pose_from,
        "pose_source": asked.pose_source,
    }


def read_sample(dataset: FrameDataset, position: int) -> Sample:
    """A sample as evaluation has it: without augmentation.

    Raises:
        FrameError: files are missing or damaged.
    """
    frame = int(dataset.frames[position])
    sample = dataset[SampleRequest(frame, int(dataset.num_agents[position]))]
    if isinstance(sample, SkippedSample):
        ref = dataset.index.frame(frame)
        raise FrameError(f"{ref.scenario}/{ref.frame}", "; ".join(sample.skipped))
    return normalize(sample)


@torch.no_grad()
def predict(subject: Subject, sample: Sample, position: int) -> tuple[Prediction, Batch]:
    """The model's prediction of a single sample at the precision of training, and the sample as a batch.

    The observation of the batch is what the model was given.
    """
    module = subject.module.to(choose_device("auto")).eval()
    batch = Batch.collate([sample]).to(module.device)
    batch = replace(batch, observation=module.with_inputs(batch.observation, position))
    is_bf16 = "bf16" in str(subject.config.trainer.precision) and computes_bf16(module.device.type)
    with torch.autocast(module.device.type, torch.bfloat16, enabled=is_bf16):
        prediction = module(batch.observation)
    prediction = prediction.map(lambda values: values.float() if values.is_floating_point() else values)
    return prediction.to("cpu", False), batch.to("cpu", False)


def _sparse_depth(dataset: FrameDataset, position: int) -> Float[Tensor, "v h w"] | None:
    """Ranges of each agent's own LiDAR points on the views' pixels, 0 = none; ``None`` if there are no sweeps."""
    config = replace(dataset.config, cache_root=None, neighbor_ticks=0)
    source = LidarDepth(dataset.index, config.depth.max_m, merge_agents=False)
    sparse = FrameDataset(dataset.index, dataset.poses, source, config, augment=False)
    request = SampleRequest(int(dataset.frames[position]), int(dataset.num_agents[position]))
    read = sparse[request]
    if isinstance(read, SkippedSample):
        log.warning("no sparse depth: %s", "; ".join(read.skipped))
        return None
    return read.target.depth


def _facts(origin: dict[str, Any]) -> dict[str, str]:
    """What stands above the points."""
    model = origin["model"]
    facts: dict[str, Any] = {"model": model["name"], "checkpoint": model.get("checkpoint") or model.get("weights")}
    facts |= {"inputs": origin["inputs"]}
    facts |= {"pose from": origin["pose_from"], "scenario": origin["scenario"], "frame": origin["frame"]}
    return {label: str(value) for label, value in facts.items() if value}
