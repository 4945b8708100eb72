"""Noisy or exact poses that the model may be given (group ``priors``)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

from coopmap.config.checks import require, require_choice

POSE_SOURCES = ("none", "gps", "noisy", "truth")


@dataclass
class PriorsConfig:
    """Priors besides the images; nothing is given unless it is named here.

    Attributes:
        agent_pose: where agent pose priors come from: ``none``, ``gps`` (the agent's own ``predicted_ego_pos``),
            ``noisy`` (ground truth plus Gaussian noise) or ``truth``.
        trans_noise_m: standard deviation of ``noisy`` poses along either horizontal axis. In training the standard
            deviation of a sample is drawn uniformly between zero and this value; in evaluation it is this value. For
            ``gps`` it is the accuracy that the receiver states: no noise is added.
        rot_noise_deg: the same for yaw.
        rig: give the model the calibrated pose of each camera in its agent's frame.
        absent_sample: probability that a training sample comes without a prior; drawn for each prior.
        absent_agent: probability that an agent of such a sample comes without it.
    """

    agent_pose: str = "none"
    trans_noise_m: float = 0.0
    rot_noise_deg: float = 0.0
    rig: bool = False
    absent_sample: float = 0.0
    absent_agent: float = 0.0

    def __post_init__(self) -> None:
        require_choice("priors.agent_pose", self.agent_pose, POSE_SOURCES)
        for key in ("trans_noise_m", "rot_noise_deg"):
            require(getattr(self, key) >= 0, f"priors.{key}", getattr(self, key), "at least 0")
        for key in ("absent_sample", "absent_agent"):
            require(0 <= getattr(self, key) <= 1, f"priors.{key}", getattr(self, key), "a probability in [0, 1]")

    @property
    def gives_pose(self) -> bool:
        """Whether samples may come with agent poses."""
        return self.agent_pose != "none" and self.absent_sample < 1 and self.absent_agent < 1

    def for_evaluation(self) -> Self:
        """The same without randomness: every requested prior is given."""
        return replace(self, absent_sample=0.0, absent_agent=0.0)

    def describe(self) -> list[str]:
        """The priors in words."""
        noise = f"noise of {self.trans_noise_m:g} m and {self.rot_noise_deg:g} deg"
        poses = {"gps": "GPS poses", "noisy": f"poses with {noise}", "truth": "ground-truth poses"}
        words = [poses[self.agent_pose]] if self.gives_pose else []
        return [*words, "calibrated rig"] if self.rig else words
