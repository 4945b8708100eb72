"""The frame that an agent's panorama is made in (numpy)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Float32

from coopmap.data.augmentation import rotated
from coopmap.geometry.panorama import PanoramaWarp
from coopmap.geometry.rig import Rig
from coopmap.geometry.se3_numpy import relative_pose


@dataclass(frozen=True, eq=False)
class PanoramaFrame:
    """The agent's own frame, or one that augmentation tilted against it.

    The proxy surface stays with the agent: the ground does not tilt.

    Attributes:
        rig: calibration in the agent's own frame.
        tilt: ``T_agent_frame``; ``None`` = the agent's own.
        warp: from the panorama to the cameras.
        looked_up: pixel and angle in every camera, from :func:`look_up`, finite pixels; for warped cameras only.
    """

    rig: Rig
    tilt: Float[np.ndarray, "4 4"] | None
    warp: PanoramaWarp
    looked_up: tuple[Float32[np.ndarray, "k h w 2"], Float32[np.ndarray, "k h w"]] | None = None

    @property
    def tilted_rig(self) -> Rig:
        """Calibration in this frame."""
        if self.tilt is None:
            return self.rig
        return replace(self.rig, agent_from_camera=relative_pose(self.tilt, self.rig.agent_from_camera))

    @property
    def in_cameras(self) -> tuple[Float32[np.ndarray, "k h w 2"], Float32[np.ndarray, "k h w"]]:
        """``looked_up``, of warped cameras."""
        assert self.looked_up is not None
        return self.looked_up

    def in_agent(self, vectors: Float[np.ndarray, "*b 3"]) -> Float[np.ndarray, "*b 3"]:
        """Vectors of this frame in the agent's."""
        return vectors if self.tilt is None else rotated(vectors, self.tilt)
