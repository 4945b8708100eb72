"""Pose priors of agents, as a car on the road would report them (numpy)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from coopmap.config.priors import PriorsConfig
from coopmap.data.opv2v import AgentMetadata, MetadataError
from coopmap.geometry.poses import rotation_about_y


def pose_prior(
    metadata: AgentMetadata, priors: PriorsConfig, noise_level: float, rng: np.random.Generator
) -> Float[np.ndarray, "4 4"]:
    """``T_world_agent`` as the prior has it.

    Noise moves the agent horizontally and turns it about its own vertical axis: the errors of GPS and compass.

    Args:
        metadata: of the agent.
        priors: source and noise.
        noise_level: factor on the noise.
        rng: of this agent in this sample; three numbers are drawn whatever the source.
    """
    right, forward, turn = rng.standard_normal(3) * noise_level
    if priors.agent_pose == "gps":
        if np.isnan(metadata.pose_prior).any():
            raise MetadataError(metadata.path, "no key 'predicted_ego_pos'", "priors.agent_pose=gps needs it")
        return metadata.pose_prior
    if priors.agent_pose == "truth":
        return metadata.pose
    noisy = metadata.pose @ rotation_about_y(np.deg2rad(priors.rot_noise_deg) * turn)
    noisy[[0, 2], 3] += priors.trans_noise_m * np.array([right, forward])
    return noisy


def stated_sigma(priors: PriorsConfig, noise_level: float) -> tuple[float, float]:
    """Standard deviation that comes with pose priors: meters along either horizontal axis, radians of yaw.

    Receivers state it; that of ``gps`` is the configured one.
    """
    level = {"noisy": noise_level, "gps": 1.0}.get(priors.agent_pose, 0.0)
    return level * priors.trans_noise_m, level * float(np.deg2rad(priors.rot_noise_deg))
