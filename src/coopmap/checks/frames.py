"""One frame: read all its agents, build their views as training does, and measure both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float, Float32

from coopmap.checks.axes import FLIPS, best_assignment, dense_match, flipped_rig, image_edges, outlines
from coopmap.checks.facts import AgentFacts, FrameFacts
from coopmap.checks.reading import AgentFiles, AgentReader
from coopmap.checks.surfaces import angles_deg, predicted_coverage
from coopmap.checks.view_masks import MIN_MASK, least_valid
from coopmap.config.data import DataConfig
from coopmap.data.camera_views import CameraViews
from coopmap.data.depth_meaning import depth_meaning, share_agreeing
from coopmap.data.depth_probe import seen_surfaces
from coopmap.data.layouts import build_views
from coopmap.data.mosaic import MosaicViews
from coopmap.data.opv2v import DepthSource, SplitIndex
from coopmap.data.opv2v.depth import DenseDepth, LidarDepth
from coopmap.data.opv2v.lidar import cull_hidden, drop_own_body, sample_spacing, see
from coopmap.data.views import PanoramaViews, Record, View
from coopmap.geometry.rig import Rig
from coopmap.geometry.se3_numpy import angle_between
from coopmap.geometry.targets import SeenPoints, panorama_pixels, placed_points
from coopmap.geometry.warp_cache import rounded_rig

Depth = Float32[np.ndarray, "k h w"] | SeenPoints

MIN_LEVER_M = 1.0
"""Nearer points say nothing about directions: the car's own body."""
MIN_OUTLINE_POINTS = 20
"""Fewer outlines in a camera lie at image edges by chance: 11 of 358 sound synthetic frames fitted another camera or
sign better by 0.15, and one of the 259 with so many points in each camera."""


@dataclass(frozen=True)
class Job:
    """Frames of one split to examine, with whether to read more than their metadata."""

    split: str
    frames: tuple[tuple[int, bool], ...]


@dataclass(eq=False)
class Examiner:
    """Examines frames; sent to each process once.

    Attributes:
        config: of the data.
        indices: of each split.
        sources: where depth of each split comes from; ``None`` if there is none.
    """

    config: DataConfig
    indices: dict[str, SplitIndex]
    sources: dict[str, DepthSource | None]
    _views: dict[bool, PanoramaViews | CameraViews | MosaicViews] = field(default_factory=dict)
    _coverage: dict[str, float] = field(default_factory=dict)

    def __call__(self, job: Job) -> tuple[str, list[FrameFacts]]:
        """Facts of the frames of a job, with the split's name."""
        return job.split, [self._frame(job.split, number, whole) for number, whole in job.frames]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_views": {}, "_coverage": {}}

    def _frame(self, split: str, number: int, whole: bool) -> FrameFacts:
        cv2.setNumThreads(1)
        ref, source = self.indices[split].frame(number), self.sources[split]
        readers = [AgentReader(self.indices[split], source, ref, agent) for agent in ref.agents]
        points: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        for reader in readers:
            reader.read(whole)
        depths = depths_of({reader.agent: reader.files for reader in readers}, source) if whole else {}
        for reader in readers:
            if whole and reader.files.metadata is not None:
                self._compare_sensors(reader.facts, reader.files, source)
            if source is not None and reader.agent in depths:
                shown = self._view_facts(reader.facts, reader.files, source, depths[reader.agent])
                if shown is not None:
                    points[reader.agent] = shown
        return FrameFacts(
            [reader.facts for reader in readers],
            [problem for reader in readers for problem in reader.problems],
            self._covisibility(readers, points),
            whole,
        )

    def _compare_sensors(self, facts: AgentFacts, files: AgentFiles, source: DepthSource | None) -> None:
        """LiDAR against depth and images, images against depth; as recorded and with other signs."""
        metadata, sweep, images, stored = files.metadata, files.sweep, files.images, files.stored_depth
        assert metadata is not None
        rigs = {"": metadata.rig, **{flip: flipped_rig(metadata.pose, metadata.rig, flip) for flip in FLIPS}}
        if stored is not None and sweep is not None:
            body = drop_own_body(sweep)
            kind = source.kind if isinstance(source, DenseDepth) else "z"
            measured = seen_surfaces(stored, _seen(body, metadata.rig, sweep), metadata.rig)
            facts.scale = depth_meaning(measured, kind)
            if facts.scale is not None:
                for flip, rig in rigs.items():
                    facts.flips[flip] = share_agreeing(seen_surfaces(stored, _seen(body, rig, sweep), rig), facts.scale)
        if images is not None and stored is not None:
            facts.match = dense_match(images, stored)
            order, gain = best_assignment(facts.match)
            if gain > 0 and sweep is not None and facts.scale is not None:
                seen = _seen(drop_own_body(sweep), metadata.rig, sweep)
                dealt = seen_surfaces(stored[list(order)], seen, metadata.rig)
                facts.swapped_share = share_agreeing(dealt, facts.scale)
        elif images is not None and sweep is not None:
            edges = np.stack([image_edges(image) for image in images])
            marked = drop_own_body(sweep[outlines(sweep)])
            facts.outlines_match = _edges_at(edges, see(marked, metadata.rig))
            for flip, rig in rigs.items():
                facts.flips[flip] = float(np.diag(_edges_at(edges, see(marked, rig))).mean())

    def _view_facts(
        self, facts: AgentFacts, files: AgentFiles, source: DepthSource, depth: Depth
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """Measure an agent's views; gives their rays and depths in the agent frame, if they are a panorama."""
        assert files.metadata is not None  # what has depth was read
        rig, images = files.metadata.rig, files.images
        if images is None:  # geometry needs none
            images = np.zeros((len(rig.intrinsics), *rig.image_size, 3), np.uint8)
        record = Record(files.metadata, images, depth)
        builder = self._builder(source.is_dense)
        views = builder(facts.key.agent, record, None, None)
        facts.views, facts.view_size = len(views), views[0].depth.shape
        facts.coverage = float(np.mean([view.non_ambiguous.mean() for view in views]))
        facts.valid = float(np.mean([(view.depth > 0).mean() for view in views]))
        sparse = None if source.is_dense else files.sweep
        facts.least_valid = MIN_MASK if sparse is None else least_valid(len(sparse), sum(v.depth.size for v in views))
        facts.ray_defect = max(float(np.abs(np.linalg.norm(view.rays, axis=-1) - 1).max()) for view in views)
        facts.angle_deg = float(np.mean([_nominal_angle(view) for view in views]))
        if not isinstance(builder, PanoramaViews):
            return None
        self._panorama_facts(facts, views[0], record, builder)
        return views[0].rays, views[0].depth

    def _panorama_facts(self, facts: AgentFacts, view: View, record: Record, builder: PanoramaViews) -> None:
        rig = record.metadata.rig
        prepared = builder.warps.get(rig)
        key = builder.warps.key(rounded_rig(rig))
        if key not in self._coverage:
            self._coverage[key] = predicted_coverage(rig, builder.spec)
        facts.expected_coverage = self._coverage[key]
        known = view.depth > 0
        if isinstance(record.depth, SeenPoints):
            _, shows = panorama_pixels(record.depth, prepared.warp, rig, builder.spec, np.eye(3))
            measured, _ = placed_points(record.depth, prepared.warp, rig, builder.spec, np.eye(3))
            facts.used = len(measured) / max(int(shows.sum()), 1)  # without what densification adds
        else:
            facts.used = float(known.sum() / max(int(view.non_ambiguous.sum()), 1))
        usable = known & (view.depth > MIN_LEVER_M) & view.non_ambiguous
        if self.config.panorama.geometry == "content" and usable.any():
            points = view.rays[usable] * view.depth[usable][:, None]
            facts.surfaces = angles_deg(points, prepared.warp.winner[usable].astype(np.int64), rig)

    def _builder(self, is_dense: bool) -> PanoramaViews | CameraViews | MosaicViews:
        if is_dense not in self._views:
            self._views[is_dense] = build_views(replace(self.config, cache_dir=None), is_dense)
        return self._views[is_dense]

    def _covisibility(
        self, readers: Sequence[AgentReader], points: dict[str, tuple[np.ndarray, np.ndarray]]
    ) -> list[float]:
        """Of all pairs of agents within range."""
        chosen = [reader for reader in readers if reader.agent in points]
        if len(chosen) < 2:
            return []
        import torch

        from coopmap.metrics.covisibility import covisibility
        from coopmap.types import Target

        depth = torch.from_numpy(np.stack([points[reader.agent][1] for reader in chosen]))[None]
        poses = np.stack([reader.files.metadata.pose for reader in chosen if reader.files.metadata is not None])
        target = Target(
            rays=torch.from_numpy(np.stack([points[reader.agent][0] for reader in chosen]))[None],
            depth=depth,
            valid=depth > 0,
            non_ambiguous=depth > 0,
            pose=torch.from_numpy(poses)[None],
            is_metric=torch.tensor([True]),
            is_synthetic=torch.tensor([True]),
        )
        first, second = np.triu_indices(len(chosen), k=1)
        near = np.linalg.norm(poses[first, :3, 3] - poses[second, :3, 3], axis=1) <= self.config.communication_range_m
        return covisibility(target)[0].numpy()[near].tolist()


def depths_of(files: Mapping[str, AgentFiles], source: DepthSource | None) -> Mapping[str, Depth]:
    """What the depth source gives of the agents of a frame, from files that were read already; of sound ones alone."""
    if source is None:
        return {}
    if isinstance(source, DenseDepth):
        return {
            agent: source.ranges(each.stored_depth, each.metadata.rig)
            for agent, each in files.items()
            if each.metadata is not None and each.stored_depth is not None
        }
    assert isinstance(source, LidarDepth)
    metadata = {agent: each.metadata for agent, each in files.items() if each.metadata and each.sweep is not None}
    sweeps = {agent: each.sweep for agent, each in files.items() if agent in metadata and each.sweep is not None}
    return source.seen(sweeps, {agent: each.pose for agent, each in metadata.items()}, metadata)


def _seen(body: Float32[np.ndarray, "n 3"], rig: Rig, sweep: Float32[np.ndarray, "m 3"]) -> SeenPoints:
    return cull_hidden(see(body, rig), rig.intrinsics[:, 0, 0], sample_spacing(sweep))


def _edges_at(edges: Float32[np.ndarray, "k h w"], seen: SeenPoints) -> Float[np.ndarray, "k k"]:
    """Mean strength of each image's edges (rows) at the points that each camera (columns) sees; NaN at too few."""
    flat = edges.reshape(len(edges), -1)
    result = np.full((len(edges), len(edges)), np.nan)
    for camera in range(len(edges)):
        pixel = seen.pixel[seen.camera == camera]
        if len(pixel) >= MIN_OUTLINE_POINTS:
            result[:, camera] = flat[:, pixel].mean(axis=1)
    return result


def _nominal_angle(view: View) -> float:
    """Mean angle between nominal rays and what is shown, where that is known; degrees."""
    known = view.depth > 0
    return float(np.rad2deg(angle_between(view.rays[known], view.nominal_rays[known])).mean()) if known.any() else 0.0
