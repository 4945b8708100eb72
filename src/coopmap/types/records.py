"""Records that pass between data, model, losses and metrics.

Axes are OpenCV, lengths meters, quaternions ``(x, y, z, w)``; see ``docs/conventions.md``.
Shapes are given for a batch; one sample of a dataset lacks the leading ``b``.

Shape legend: ``b`` batch, ``v`` view, ``h w`` pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from coopmap.geometry.pairs import pair_ends


class TensorRecord:
    """Dataclass mixin: apply a function to every tensor field, move, pin and stack records."""

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """Return a copy in which ``function`` was applied to every tensor field."""
        changes: dict[str, Any] = {}
        for field in fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                changes[field.name] = function(value)
            elif isinstance(value, TensorRecord):
                changes[field.name] = value.map(function)
        return replace(self, **changes)  # type: ignore[type-var]

    def to(self, device: torch.device | str, non_blocking: bool = True) -> Self:
        """Return a copy on ``device`` (asynchronous where the source is pinned)."""
        return self.map(lambda tensor: _moved(tensor, lambda stored: stored.to(device, non_blocking=non_blocking)))

    def pin_memory(self) -> Self:
        """Return a copy in page-locked memory; ``DataLoader(pin_memory=True)`` calls this."""
        return self.map(lambda tensor: _moved(tensor, Tensor.pin_memory))

    @classmethod
    def stack(cls, records: Sequence[Self]) -> Self:
        """Stack equally shaped records along a new leading dimension; what they share in memory stays shared.

        Raises:
            ValueError: if a field is set in some records and ``None`` in others.
        """
        first = records[0]
        columns = {}
        for field in fields(first):  # type: ignore[arg-type]
            values = [getattr(record, field.name) for record in records]
            present = [isinstance(value, Tensor) for value in values]
            if any(present) != all(present):
                raise ValueError(f"{cls.__name__}.{field.name} is set in only some of the records to stack")
            columns[field.name] = _stacked(values) if all(present) else values[0]
        return cls(**columns)


def _stacked(values: list[Tensor]) -> Tensor:
    """``torch.stack``, without copies of what is one and the same tensor, as the rays of a panorama are."""
    first = values[0]
    if all(_is_same_memory(value, first) for value in values):
        return first.expand(len(values), *first.shape)
    return torch.stack(values)


def _is_same_memory(a: Tensor, b: Tensor) -> bool:
    return a is b or (
        a.device.type == "cpu"
        and (a.data_ptr(), a.dtype, a.shape, a.stride()) == (b.data_ptr(), b.dtype, b.shape, b.stride())
    )


def _moved(tensor: Tensor, move: Callable[[Tensor], Tensor]) -> Tensor:
    """Move only what is stored of a tensor that was expanded."""
    stored = tensor
    for dimension, (size, stride) in enumerate(zip(tensor.shape, tensor.stride(), strict=True)):
        if stride == 0 and size > 1:
            stored = stored.narrow(dimension, 0, 1)
    return move(stored).expand(tensor.shape)


@dataclass(frozen=True)
class Observation(TensorRecord):
    """What a deployed car has; all that a model may see.

    Attributes:
        images: RGB, DINOv2-normalized; bytes on their way from a loader to the device.
        rays: calibrated (nominal) unit rays of the pixels, in the view's own frame; in a mosaic the cameras' lines of
            sight, which start at the cameras (``camera_pose``).
        depth_prior: measured range along ``rays``, 0 = unknown; ``None`` when there is no such sensor.
        pose_prior: rough ``T_world_view`` (GPS, say), in the world of ``Target.pose``; ``None`` when there is none.
        pose_sigma: standard deviation that the source of ``pose_prior`` states: meters along either horizontal axis,
            radians of yaw; ``None`` = exact.
        rays_given, depth_given, pose_given, rig_given: views whose rays, depth, pose or rig pose the model may use;
            ``None`` means all.
        depth_is_metric, pose_is_metric: views whose prior is in meters; ``None`` means all.
        camera_angle: when a view's images are those of its ``k`` cameras (agent-grouped): angle between a camera's
            optical axis and what a cell of the panorama shows in it, radians; infinity where the camera does not see
            the cell. Cells are pixels if the images are warped onto the panorama, else patches.
        camera_grid: where the centers of those patches lie in each camera: ``(x, y)`` from -1 to 1 over the image.
        camera_pose: ``T_view_camera`` of an agent's cameras in slot order, where they are apart (agent-grouped images,
            mosaics).
        agent: number of the car that each view belongs to; ``None`` = every view is a car of its own.
        slot: camera slot of each view (front, left, rear, right); ``None`` = views are agents.
        rig_pose: calibrated ``T_agent_view``; ``None`` = views are agents.
        ground_height_m: calibrated height of the origin of each view's agent, its LiDAR, above the ground under the
            car; ``None`` = unknown.
        gravity: direction of gravity in the view's frame, a unit vector, as an inertial sensor measures it: roll and
            pitch, but not heading; ``None`` = unknown.
    """

    images: Float[Tensor, "b v 3 h w"] | Float[Tensor, "b v k 3 h w"] | UInt8[Tensor, "b v *k 3 h w"]
    rays: Float[Tensor, "b v h w 3"]
    depth_prior: Float[Tensor, "b v h w"] | None = None
    pose_prior: Float[Tensor, "b v 4 4"] | None = None
    pose_sigma: Float[Tensor, "b v 2"] | None = None
    rays_given: Bool[Tensor, "b v"] | None = None
    depth_given: Bool[Tensor, "b v"] | None = None
    pose_given: Bool[Tensor, "b v"] | None = None
    rig_given: Bool[Tensor, "b v"] | None = None
    depth_is_metric: Bool[Tensor, "b v"] | None = None
    pose_is_metric: Bool[Tensor, "b v"] | None = None
    camera_angle: Float[Tensor, "b v k gh gw"] | None = None
    camera_grid: Float[Tensor, "b v k gh gw 2"] | None = None
    camera_pose: Float[Tensor, "b v k 4 4"] | None = None
    agent: Int[Tensor, "b v"] | None = None
    slot: Int[Tensor, "b v"] | None = None
    rig_pose: Float[Tensor, "b v 4 4"] | None = None
    ground_height_m: Float[Tensor, "b v"] | None = None
    gravity: Float[Tensor, "b v 3"] | None = None


@dataclass(frozen=True)
class Target(TensorRecord):
    """Ground truth; never reaches the model.

    Attributes:
        rays: unit direction of what each pixel shows, in the view's frame (nominal where depth is unknown).
        depth: range along ``rays``, 0 = unknown.
        valid: depth is known.
        non_ambiguous: some camera covers the pixel (a fact of calibration).
        pose: ``T_world_view``; a world whose coordinates are kilometers is moved to the sample by whole kilometers,
            since single precision would round those of a real map (UTM) by up to half a meter.
        is_metric: lengths of the sample are meters.
        is_synthetic: depth is rendered, dense and exact, rather than measured.
        moving: pixel shows a moving vehicle; ``None`` = nothing is known.
        own_body: pixel shows the car that carries the camera; ``None`` = nothing is known.
        agent: number of the car that each view belongs to; ``None`` = every view is a car of its own.
        rig_pose: calibrated ``T_agent_view``; ``None`` = views are agents.
        ground_height_m: height of the origin of each view's agent, its LiDAR, above the ground under the car, from
            calibration; ``None`` = nothing is known.
        foreign: views of an agent of another scenario, which shares nothing with the others; its pose means nothing to
            them. ``None`` = there is none.
        views_per_agent: how many views each agent has, one after another; ``None`` = as ``agent`` says, which is on the
            device.
    """

    rays: Float[Tensor, "b v h w 3"]
    depth: Float[Tensor, "b v h w"]
    valid: Bool[Tensor, "b v h w"]
    non_ambiguous: Bool[Tensor, "b v h w"]
    pose: Float[Tensor, "b v 4 4"]
    is_metric: Bool[Tensor, " b"]
    is_synthetic: Bool[Tensor, " b"]
    moving: Bool[Tensor, "b v h w"] | None = None
    own_body: Bool[Tensor, "b v h w"] | None = None
    agent: Int[Tensor, "b v"] | None = None
    rig_pose: Float[Tensor, "b v 4 4"] | None = None
    ground_height_m: Float[Tensor, "b v"] | None = None
    foreign: Bool[Tensor, "b v"] | None = None
    views_per_agent: int | None = None

    @property
    def points_view(self) -> Float[Tensor, "b v h w 3"]:
        """Points in the frame of their own view; zero where depth is unknown."""
        return self.rays * self.depth[..., None]

    @property
    def points_world(self) -> Float[Tensor, "b v h w 3"]:
        """Points in the world frame (meaningful where ``valid``)."""
        rotation, translation = self.pose[..., :3, :3], self.pose[..., :3, 3]
        return torch.einsum("...vij,...vhwj->...vhwi", rotation, self.points_view) + translation[..., None, None, :]


@dataclass(frozen=True)
class PairMatches(TensorRecord):
    """What the images of two agents have in common, for every pair of agents ``i < j`` (ordered 01, 02, ..., 12, ...).

    Cells are the patches of all views of an agent, ``c`` of them.

    Attributes:
        scores: logit of "cell ``k`` of ``i`` shows what cell ``l`` of ``j`` shows" at ``[..., k, l]``.
        unmatched: logit of "this cell shows nothing that the other agent sees", of each agent's cells.
        query: descriptor of the center of each agent's cells, times a learned sharpness.
        keys: descriptors of the parts of each agent's cells; with ``query`` of the other agent, logits of where in or
            around a cell its match lies.
        range_sigma: relative standard deviation of the predicted range of each agent's cells.
        pose: ``T_i_j`` from matches and the network's own points.
        lengthening: factor that the translation of ``pose`` contains, which makes up for how matches lean.
        information: inverse covariance of ``pose`` if it is right: rotation (rad), translation (m), see
            :class:`coopmap.geometry.alignment.Alignment`; as much of it as errors of right poses show.
        degenerate: the matches do not determine a pose.
        confidence_logit: logit of "``pose`` is within 2 m and 5 degrees".
        covisibility_logit: logit of the share of what either agent sees that the other sees too.
        matched: cells of ``i`` and of ``j`` that the alignment used, as indices.
        weight: confidence of each of these matches.
        inlier: share of its weight that the alignment kept.
        combined: ``T_i_j`` from ``pose`` and pose priors, which poses of views are averaged from; ``None``: these are
            averaged from ``pose``.
        prior_known: both agents have a pose prior; ``None``: no priors are combined.
    """

    scores: Float[Tensor, "b p c c"]
    unmatched: Float[Tensor, "b n c"]
    query: Float[Tensor, "b n c f"]
    keys: Float[Tensor, "b n c s f"]
    range_sigma: Float[Tensor, "b n c"]
    pose: Float[Tensor, "b p 4 4"]
    lengthening: Float[Tensor, "b p"]
    information: Float[Tensor, "b p 6 6"]
    degenerate: Bool[Tensor, "b p"]
    confidence_logit: Float[Tensor, "b p"]
    covisibility_logit: Float[Tensor, "b p"]
    matched: Int[Tensor, "b p m 2"]
    weight: Float[Tensor, "b p m"]
    inlier: Float[Tensor, "b p m"]
    combined: Float[Tensor, "b p 4 4"] | None = None
    prior_known: Bool[Tensor, "b p"] | None = None

    @property
    def confidence(self) -> Float[Tensor, "b p"]:
        """Expected probability that ``pose`` is within 2 m and 5 degrees."""
        return self.confidence_logit.sigmoid()

    @property
    def covisibility(self) -> Float[Tensor, "b p"]:
        """Expected share of what either agent sees that the other sees too."""
        return self.covisibility_logit.sigmoid()

    @property
    def sigma(self) -> Float[Tensor, "b p 6"]:
        """Standard deviations of the errors of ``pose`` if its matches are right: rotation about and translation along
        i's axes, radians and meters; infinite where the matches determine none.
        """
        inverse = torch.linalg.inv_ex(self.information.double())[0]
        variance = inverse.diagonal(dim1=-2, dim2=-1).nan_to_num(nan=torch.inf).clamp(min=0)
        return torch.where(self.degenerate[..., None], torch.inf, variance.sqrt()).to(self.information)

    @property
    def determined(self) -> Bool[Tensor, "b p"]:
        """Pairs with a relative pose: their matches or their pose priors determine it."""
        return ~self.degenerate if self.prior_known is None else ~self.degenerate | self.prior_known

    @property
    def support(self) -> Float[Tensor, "b n"]:
        """Of each agent's pose relative to the first: the confidence of the weakest pair in the surest chain of pairs
        that links them; 0 where none does, 1 of the first.
        """
        agents = self.unmatched.shape[1]
        i, j = pair_ends(agents, self.confidence_logit.device)
        link = self.confidence_logit.new_zeros(len(self.confidence_logit), agents, agents)
        link[:, i, j] = torch.where(self.determined, self.confidence, 0.0)
        link = link + link.mT
        support = torch.zeros_like(link[:, 0])
        support[:, 0] = 1.0
        for _ in range(agents - 1):
            support = torch.maximum(support, torch.minimum(support[..., None], link).amax(dim=1))
        return support


@dataclass(frozen=True)
class Prediction(TensorRecord):
    """MapAnything's factored output: metric (already multiplied by ``scale``), in the frame of view 0.

    Attributes:
        rays: predicted unit rays, view frame.
        depth: range along ``rays``.
        pose_trans: position of the view in view 0's frame.
        pose_quat: unit quaternion ``(x, y, z, w)`` of ``T_view0_view``.
        scale: metric scale of the sample; dividing lengths by it gives the network's raw output.
        confidence: >= 1.
        mask_logits: logit of ``non_ambiguous``.
        points_view: points in their own view's frame.
        points_world: points in view 0's frame.
        matches: of all pairs of agents, if the model matches (``model.matching``) and there is a pair.
    """

    rays: Float[Tensor, "b v h w 3"]
    depth: Float[Tensor, "b v h w"]
    pose_trans: Float[Tensor, "b v 3"]
    pose_quat: Float[Tensor, "b v 4"]
    scale: Float[Tensor, " b"]
    confidence: Float[Tensor, "b v h w"]
    mask_logits: Float[Tensor, "b v h w"]
    points_view: Float[Tensor, "b v h w 3"]
    points_world: Float[Tensor, "b v h w 3"]
    matches: PairMatches | None = None


@dataclass(frozen=True)
class SampleMeta:
    """Where a sample comes from.

    Attributes:
        scenario, frame: which.
        agents: one id per view, the reference agent first.
        origin: point of the scenario's world from which the sample's poses count, OpenCV axes, meters; not zero where
            a world is far from its own (:func:`~coopmap.data.world.world_origin`).
    """

    scenario: str
    frame: str
    agents: tuple[str, ...]
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Sample:
    """One frame seen by ``v`` views (no batch dimension).

    ``skipped`` names what could not be read on the way to this sample (path and reason).
    """

    observation: Observation
    target: Target
    meta: SampleMeta
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True)
class Batch:
    """Samples with the same number of views, stacked; ``skipped`` gathers those of the samples."""

    observation: Observation
    target: Target
    metas: tuple[SampleMeta, ...]
    skipped: tuple[str, ...] = ()

    @classmethod
    def collate(cls, samples: Sequence[Sample]) -> Batch:
        """Stack samples; all must have the same number of views."""
        return cls(
            Observation.stack([sample.observation for sample in samples]),
            Target.stack([sample.target for sample in samples]),
            tuple(sample.meta for sample in samples),
            tuple(text for sample in samples for text in sample.skipped),
        )

    def to(self, device: torch.device | str, non_blocking: bool = True) -> Batch:
        """Return a copy on ``device``."""
        return replace(
            self, observation=self.observation.to(device, non_blocking), target=self.target.to(device, non_blocking)
        )

    def pin_memory(self) -> Batch:
        """Return a copy in page-locked memory."""
        return replace(self, observation=self.observation.pin_memory(), target=self.target.pin_memory())


@dataclass(frozen=True)
class SkippedBatch:
    """An evaluation batch of which no sample could be read."""

    skipped: tuple[str, ...]

    def to(self, device: torch.device | str, non_blocking: bool = True) -> SkippedBatch:
        """Itself: there is nothing to move (Lightning asks)."""
        return self
