"""What was found in files and samples: small enough to be sent between processes for every frame of a data set."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from coopmap.checks.problems import FrameKey, Problem
from coopmap.data.depth_meaning import Meaning
from coopmap.geometry.rig import Rig


@dataclass(eq=False)
class AgentFacts:
    """An agent in a frame; what could not be read is ``None`` or empty.

    Attributes:
        key: which.
        path: its YAML file.
        pose: ``T_world_agent``.
        rig: calibration.
        speed: m/s; NaN if the file does not tell.
        is_rsu: a road-side unit.
        ground: ``true_ego_pos`` without angles, CARLA axes.
        others: where it sees other vehicles, likewise, by number.
        gps_error_m, gps_error_deg: of ``predicted_ego_pos``.
        content: digest of images and sweep; empty unless all were read.
        sweep_content: digest of the sweep.
        scale: meaning of its depth files.
        flips: share of LiDAR points that fit depth (or strength of image edges at outlines) as recorded (key ``""``)
            and with other signs.
        swapped_share: share of LiDAR points that fit depth if its files are dealt out as the images suggest;
            ``None`` if that is as they are.
        match: edges of each image against steps in each camera's depth.
        outlines_match: edges of each image at the LiDAR's outlines in each camera.
        num_points: in its sweep.
        coverage, expected_coverage: share of the panorama that cameras see, in the sample and by calibration.
        valid, least_valid: share of pixels with depth, and what its source should give at least.
        used: share of the points (or covered pixels) that give a pixel its depth.
        views: of the agent in a sample.
        view_size: ``(height, width)``.
        ray_defect: largest deviation of target rays from length 1.
        angle_deg: mean angle between nominal rays and content.
        surfaces: the same for other surfaces.
    """

    key: FrameKey
    path: str
    pose: Float[np.ndarray, "4 4"] | None = None
    rig: Rig | None = None
    speed: float = 0.0
    is_rsu: bool = False
    ground: tuple[float, ...] | None = None
    others: dict[str, tuple[float, ...]] = field(default_factory=dict)
    gps_error_m: float | None = None
    gps_error_deg: float | None = None
    content: str = ""
    sweep_content: str = ""
    scale: Meaning | None = None
    flips: dict[str, float] = field(default_factory=dict)
    swapped_share: float | None = None
    match: Float[np.ndarray, "k k"] | None = None
    outlines_match: Float[np.ndarray, "k k"] | None = None
    num_points: int | None = None
    coverage: float | None = None
    expected_coverage: float | None = None
    valid: float | None = None
    least_valid: float | None = None
    used: float | None = None
    views: int | None = None
    view_size: tuple[int, int] | None = None
    ray_defect: float | None = None
    angle_deg: float | None = None
    surfaces: dict[str, float] = field(default_factory=dict)


@dataclass(eq=False)
class FrameFacts:
    """A frame.

    Attributes:
        agents: facts of each.
        problems: of its files.
        covisibility: of pairs of agents in range.
        is_whole: images, depth and sweeps were asked for too.
    """

    agents: list[AgentFacts]
    problems: list[Problem]
    covisibility: list[float]
    is_whole: bool
