"""The frame that an agent's panorama is made in (numpy)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Float32

from coopmap.data.augmentation import rotated
from coopmap.geometry.poses import rotation_about_y
from coopmap.geometry.prepared_warp import PreparedWarp
from coopmap.geometry.rig import Rig
from coopmap.geometry.se3_numpy import relative_pose


@dataclass(frozen=True, eq=False)
class PanoramaFrame:
    """The agent's own frame, or one that augmentation tilted against it, and then turned by whole columns.

    The proxy surface stays with the agent: the ground does not tilt. The warp knows the tilt and not the turn, which
    rolls what the warp gives.

    Attributes:
        rig: calibration in the agent's own frame.
        tilt: ``T_agent_tilted``; ``None`` = the agent's own.
        prepared: from the panorama to the cameras.
        looked_up: pixel and angle in every camera, from :func:`~coopmap.geometry.panorama.look_up`, finite pixels; for
            warped cameras only.
        shift: column of the warp that becomes column 0.
    """

    rig: Rig
    tilt: Float[np.ndarray, "4 4"] | None
    prepared: PreparedWarp
    looked_up: tuple[Float32[np.ndarray, "k h w 2"], Float32[np.ndarray, "k h w"]] | None = None
    shift: int = 0

    @property
    def agent_from_view(self) -> Float[np.ndarray, "4 4"]:
        """``T_agent_view``."""
        tilt = np.eye(4) if self.tilt is None else self.tilt
        width = self.prepared.spec.camera.width
        return tilt @ rotation_about_y(2 * np.pi * self.shift / width) if self.shift else tilt

    @property
    def warp_from_agent(self) -> Float[np.ndarray, "3 3"]:
        """Rotation into the frame before it was turned."""
        return np.eye(3) if self.tilt is None else self.tilt[:3, :3].T

    @property
    def rig_in_view(self) -> Rig:
        """Calibration in the view's frame."""
        return _turned(self.rig, self.agent_from_view)

    @property
    def tilted_rig(self) -> Rig:
        """Calibration in the frame before it was turned."""
        return self.rig if self.tilt is None else _turned(self.rig, self.tilt)

    @property
    def in_cameras(self) -> tuple[Float32[np.ndarray, "k h w 2"], Float32[np.ndarray, "k h w"]]:
        """``looked_up``, of warped cameras."""
        assert self.looked_up is not None
        return self.looked_up

    def in_agent(self, vectors: Float[np.ndarray, "*b 3"]) -> Float[np.ndarray, "*b 3"]:
        """Vectors of the tilted frame in the agent's."""
        return vectors if self.tilt is None else rotated(vectors, self.tilt)


def _turned(rig: Rig, turn: Float[np.ndarray, "4 4"]) -> Rig:
    return replace(rig, agent_from_camera=relative_pose(turn, rig.agent_from_camera))
