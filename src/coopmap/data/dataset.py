"""Panoramas of one frame's agents, with ground truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int, UInt8
from torch.utils.data import Dataset

from coopmap.config.data import DataConfig, PanoramaConfig
from coopmap.config.task import TaskConfig
from coopmap.data.augmentation import jitter, roll_columns, roll_directions, roll_pose, vary_exposure
from coopmap.data.opv2v import AgentMetadata, DepthSource, FrameError, FrameRef, SplitIndex, read_agent, read_images
from coopmap.data.pose_table import PoseTable
from coopmap.data.sampling import SampleRequest
from coopmap.geometry.cameras import PanoramaCamera, camera_rays
from coopmap.geometry.panorama import PanoramaSpec, warp_images
from coopmap.geometry.rig import OPV2V_CAMERA_OF_SLOT
from coopmap.geometry.targets import central_geometry, content_geometry
from coopmap.geometry.warp_cache import WarpCache
from coopmap.types import Batch, Observation, Sample, SampleMeta, SkippedBatch, Target

IMAGE_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
IMAGE_STD = np.array([0.229, 0.224, 0.225], np.float32)
"""DINOv2's (ImageNet's) normalisation of RGB in [0, 1]."""

MAX_ATTEMPTS = 10


@dataclass(frozen=True)
class SkippedSample:
    """An evaluation sample that could not be read."""

    skipped: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Record:
    """Decoded files of one agent in one frame, slot order."""

    metadata: AgentMetadata
    images: UInt8[np.ndarray, "k h w 3"]
    depths: Float32[np.ndarray, "k h w"]


@dataclass(frozen=True, eq=False)
class View:
    """One agent's panorama (numpy); see Observation and Target for the meaning."""

    image: Float32[np.ndarray, "h w 3"]
    rays: Float32[np.ndarray, "h w 3"]
    depth: Float32[np.ndarray, "h w"]
    non_ambiguous: Bool[np.ndarray, "h w"]
    pose: Float[np.ndarray, "4 4"]


def panorama_spec(config: PanoramaConfig) -> PanoramaSpec:
    """The warp that a configuration asks for."""
    camera = PanoramaCamera(
        config.height,
        config.width,
        np.deg2rad(config.v_fov_deg),
        np.deg2rad(config.elevation_center_deg),
        config.projection,
    )
    return PanoramaSpec(camera, config.surface, config.radius_m, np.deg2rad(config.feather_deg), config.legacy_crop)


class PanoramaDataset(Dataset[Sample | SkippedSample]):
    """One sample = one frame seen by ``n`` agents within communication range, the reference agent first.

    Indexed by a :class:`SampleRequest` (what the batch samplers yield) or by a number: ``dataset[i]`` is the ``i``-th
    frame that has enough agents, on ``train`` with augmentation.

    An unreadable frame is skipped: in training another is drawn from the request's own random stream and the sample
    reports the culprit; in evaluation a :class:`SkippedSample` takes its place.

    Args:
        index: the split.
        poses: its table of poses.
        depth_source: where depth comes from.
        config: panorama, augmentation and sampling.
        augment: draw agents at random and augment (training).
        seed: of ``dataset[i]`` in training.
        task: observations hold the priors that it may give, and no others; none by default.
    """

    def __init__(
        self,
        index: SplitIndex,
        poses: PoseTable,
        depth_source: DepthSource,
        config: DataConfig,
        augment: bool,
        seed: int = 0,
        task: TaskConfig | None = None,
    ) -> None:
        self.task = task or TaskConfig()
        self.index, self.poses, self.depth_source, self.config = index, poses, depth_source, config
        self.augment, self.seed = augment, seed
        self.spec = panorama_spec(config.panorama)
        self.warps = WarpCache(self.spec, config.cache_dir)
        self.nominal_rays = camera_rays(self.spec.camera).astype(np.float32)
        self.group_sizes = poses.group_sizes(config.communication_range_m)
        self.frames = np.flatnonzero(self.group_sizes >= config.min_agents)
        self._kept: dict[tuple[int, str], Record] = {}

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def num_agents(self) -> Int[np.ndarray, " n"]:
        """Agents per evaluation sample, for each of ``frames``."""
        return np.minimum(self.group_sizes[self.frames], self.config.max_agents)

    def __getitem__(self, request: SampleRequest | int) -> Sample | SkippedSample:
        """See the class; raises IndexError past the end."""
        if not isinstance(request, SampleRequest):
            position = range(len(self))[int(request)]
            seed = self.seed + position if self.augment else None
            request = SampleRequest(int(self.frames[position]), int(self.num_agents[position]), seed)
        return self._evaluation_sample(request) if request.seed is None else self._training_sample(request)

    def _evaluation_sample(self, request: SampleRequest) -> Sample | SkippedSample:
        try:
            return self._read(request.frame, self._choose_agents(request.frame, request.num_agents, None), None)
        except FrameError as error:
            return SkippedSample((str(error),))

    def _training_sample(self, request: SampleRequest) -> Sample:
        rng = np.random.default_rng(request.seed)
        frame, skipped = request.frame, []
        for _ in range(MAX_ATTEMPTS):
            try:
                sample = self._read(frame, self._choose_agents(frame, request.num_agents, rng), rng)
            except FrameError as error:
                skipped.append(str(error))
                frame = int(rng.choice(np.flatnonzero(self.group_sizes >= request.num_agents)))
            else:
                return Sample(sample.observation, sample.target, sample.meta, tuple(skipped))
        culprits = "\n  ".join(skipped)
        raise RuntimeError(f"{MAX_ATTEMPTS} frames in a row could not be read:\n  {culprits}")

    def _choose_agents(self, frame: int, number: int, rng: np.random.Generator | None) -> Int[np.ndarray, " n"]:
        """Rows of the frame's agents, the reference first: random, or the first that hears enough and its nearest."""
        hearing = self.poses.hearing(frame, self.config.communication_range_m)
        references = np.flatnonzero(hearing.sum(axis=1) >= number)
        reference = references[0] if rng is None else rng.choice(references)
        others = np.flatnonzero(hearing[reference])
        others = others[others != reference]
        if rng is None:
            positions = self.poses.poses(frame)[:, :3, 3]
            distance = np.linalg.norm(positions[others] - positions[reference], axis=-1)
            chosen = np.sort(others[np.argsort(distance, kind="stable")[: number - 1]])
        else:
            chosen = rng.permutation(others)[: number - 1]
        return np.concatenate([[reference], chosen])

    def _read(self, frame: int, rows: Int[np.ndarray, " n"], rng: np.random.Generator | None) -> Sample:
        ref = self.index.frame(frame)
        agents = tuple(ref.agents[row] for row in rows)
        views = [self._view(record, rng) for record in self._records(frame, ref, agents)]
        image = torch.from_numpy(np.stack([view.image for view in views])).permute(0, 3, 1, 2).contiguous()
        depth = torch.from_numpy(np.stack([view.depth for view in views]))
        pose = torch.from_numpy(np.stack([view.pose for view in views]).astype(np.float32))
        nominal = torch.from_numpy(self.nominal_rays)
        target = Target(
            rays=torch.from_numpy(np.stack([view.rays for view in views])),
            depth=depth,
            valid=depth > 0,
            non_ambiguous=torch.from_numpy(np.stack([view.non_ambiguous for view in views])),
            pose=pose,
            is_metric=torch.tensor(True),
            is_synthetic=torch.tensor(self.config.is_synthetic),
        )
        observation = Observation(
            image,
            nominal.expand(len(views), *nominal.shape),
            depth_prior=depth.clone() if self.task.may_give("depth") else None,
            pose_prior=pose.clone() if self.task.may_give("pose") else None,
        )
        return Sample(observation, target, SampleMeta(ref.scenario, ref.frame, agents))

    def _records(self, frame: int, ref: FrameRef, agents: tuple[str, ...]) -> list[Record]:
        """Decoded files of some agents, from memory where they are kept."""
        missing = [agent for agent in agents if (frame, agent) not in self._kept]
        metadata = {agent: read_agent(self.index.yaml_path(ref, agent), with_vehicles=False) for agent in missing}
        depths = self.depth_source.read(ref, metadata) if missing else {}
        read = {}
        for agent in missing:
            paths = [self.index.image_path(ref, agent, camera) for camera in OPV2V_CAMERA_OF_SLOT]
            images = read_images(paths, metadata[agent].rig.image_size)
            read[frame, agent] = Record(metadata[agent], images, depths[agent])
        if self.config.keep_in_memory:
            self._kept |= read
        return [self._kept.get((frame, agent)) or read[frame, agent] for agent in agents]

    def _view(self, record: Record, rng: np.random.Generator | None) -> View:
        rig, images, depths = record.metadata.rig, record.images, record.depths
        warp = self.warps.get(rig)

        augmentation = self.config.augmentation
        if rng is not None:
            images = vary_exposure(images, augmentation, rng)
        panorama = warp_images(warp, images, rig, self.spec)
        if rng is not None:
            panorama = jitter(panorama, augmentation, rng)
        image = (panorama.astype(np.float32) / 255 - IMAGE_MEAN) / IMAGE_STD
        image[~warp.covered] = 0  # the mean colour: a pixel that no camera sees says nothing

        if self.config.panorama.geometry == "content":
            rays, depth = content_geometry(warp, rig, depths, self.nominal_rays)
        else:
            rays = self.nominal_rays
            depth = central_geometry(self.spec.camera, rig, depths, self.depth_source.is_dense)
        view = View(image, rays, depth, warp.covered, record.metadata.pose)
        if rng is not None and augmentation.yaw_roll:
            view = self._roll(view, int(rng.integers(self.spec.camera.width)))
        return view

    def _roll(self, view: View, shift: int) -> View:
        """The same car, called forward elsewhere."""
        width = self.spec.camera.width
        central = self.config.panorama.geometry == "central"
        return View(
            image=roll_columns(view.image, shift),
            rays=view.rays if central else roll_directions(view.rays, shift, width),
            depth=roll_columns(view.depth, shift),
            non_ambiguous=roll_columns(view.non_ambiguous, shift),
            pose=roll_pose(view.pose, shift, width),
        )


def collate(samples: list[Sample | SkippedSample]) -> Batch | SkippedBatch:
    """Stack the readable samples of a batch; the others are reported in ``skipped``."""
    skipped = tuple(text for sample in samples for text in sample.skipped)
    read = [sample for sample in samples if isinstance(sample, Sample)]
    if not read:
        return SkippedBatch(skipped)
    batch = Batch.collate(read)
    return Batch(batch.observation, batch.target, batch.metas, skipped)
