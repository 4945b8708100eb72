"""What a scene shows: agents, what they saw and what a model made of it, in the frame of the reference agent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8

PRED, TRUE, GPS = "pred", "gt", "gps"
"""Sources of poses."""


@dataclass(frozen=True, eq=False)
class SceneView:
    """A view with its prediction and, where known, the truth; OpenCV axes, meters.

    Attributes:
        agent: number of the agent.
        name: of the view among those of the agent, a camera say; may be empty.
        pose: ``T_scene_view`` by source: ``pred``, ``gt``.
        image: RGB.
        rays, depth: predicted unit rays in the view's frame and ranges along them.
        kept: pixels whose points are shown.
        mask: pixels that show something, says the model; ``None`` = it was not asked.
        confidence: of the depth.
        true_rays, true_depth: truth; range 0 = unknown.
        covered: pixels that some camera sees; ``None`` = all.
    """

    agent: int
    name: str
    pose: Mapping[str, Float[np.ndarray, "4 4"]]
    image: UInt8[np.ndarray, "h w 3"]
    rays: Float32[np.ndarray, "h w 3"]
    depth: Float32[np.ndarray, "h w"]
    kept: Bool[np.ndarray, "h w"]
    mask: Bool[np.ndarray, "h w"] | None = None
    confidence: Float32[np.ndarray, "h w"] | None = None
    true_rays: Float32[np.ndarray, "h w 3"] | None = None
    true_depth: Float32[np.ndarray, "h w"] | None = None
    covered: Bool[np.ndarray, "h w"] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        height, width = self.depth.shape
        return height, width

    @property
    def error(self) -> Float32[np.ndarray, "h w"] | None:
        """Predicted minus true range, NaN where the truth is unknown; positive is too far."""
        if self.true_depth is None:
            return None
        return np.where(self.true_depth > 0, self.depth - self.true_depth, np.nan).astype(np.float32)


@dataclass(frozen=True, eq=False)
class SceneAgent:
    """An agent; road-side units and single photographs count as agents too.

    Attributes:
        name: of the agent.
        pose: ``T_scene_agent`` by source: ``pred``, ``gt``, ``gps``; finite.
        frusta: apex and four corners, in order around the image, of its cameras' images at unit depth; agent frame.
        sweep: of its LiDAR; agent frame.
    """

    name: str
    pose: Mapping[str, Float[np.ndarray, "4 4"]]
    frusta: Float[np.ndarray, "k 5 3"] | None = None
    sweep: Float32[np.ndarray, "n 3"] | None = None


@dataclass(frozen=True, eq=False)
class SceneBoxes:
    """Vehicles where they are.

    Attributes:
        pose: ``T_scene_box``, the origin in the middle.
        half_extents: along the axes of the box.
        names: of the vehicles.
    """

    pose: Float[np.ndarray, "m 4 4"]
    half_extents: Float[np.ndarray, "m 3"]
    names: Sequence[str]

    @property
    def corners(self) -> Float[np.ndarray, "m 8 3"]:
        """Corner ``k`` lies on the positive side of axis ``a`` if bit ``a`` of ``k`` is set."""
        signs = np.array([[1 if k >> axis & 1 else -1 for axis in range(3)] for k in range(8)])
        local = signs[None] * self.half_extents[:, None]
        return np.einsum("mij,mkj->mki", self.pose[:, :3, :3], local) + self.pose[:, None, :3, 3]


@dataclass(frozen=True, eq=False)
class Scene:
    """A frame as several agents see it.

    Attributes:
        title: what this is.
        agents: the reference first.
        views: of all agents, agent after agent.
        boxes: vehicles around.
        warnings: lines to read first.
    """

    title: str
    agents: Sequence[SceneAgent]
    views: Sequence[SceneView]
    boxes: SceneBoxes | None = None
    warnings: Sequence[str] = field(default=())

    @property
    def sources(self) -> tuple[str, ...]:
        """Sources of poses that views have."""
        return tuple(source for source in (PRED, TRUE) if all(source in view.pose for view in self.views))

    @property
    def has_truth(self) -> bool:
        """Whether true depth is known of some view."""
        return any(view.true_depth is not None and (view.true_depth > 0).any() for view in self.views)

    def view_title(self, view: SceneView) -> str:
        """``agent 641 front``."""
        return " ".join(filter(None, ["agent", self.agents[view.agent].name, view.name]))
