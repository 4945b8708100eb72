"""Configuration of synthetic data: one town, or a street of its own for every scenario."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any

from coopmap.config.checks import ConfigError, require, require_choice

STYLES = ("grid", "suburb", "industrial", "oldtown", "highway", "market")
"""Styles of streets."""

EVERYDAY_STYLES = STYLES[:-1]
"""What ``style=all`` draws from. In a ``market`` every house has a bright color of its own, which a model learns to
match within minutes: for demonstrations."""

ROOM_PER_AGENT_M = 7.5
"""On a street, agents are 7 m apart at least."""


@dataclass
class ScenarioCounts:
    """Number of scenarios of each split.

    Attributes:
        train: in ``train``.
        validate: in ``validate``.
        test: in ``test``.
    """

    train: int = 70
    validate: int = 14
    test: int = 4

    def __post_init__(self) -> None:
        for split, count in vars(self).items():
            require(count >= 0, f"scenarios.{split}", count, "a count of 0 or more")
        require(any(vars(self).values()), "scenarios", 0, "a scenario in one of the splits at least")


@dataclass
class LidarConfig:
    """Spinning LiDAR of every agent.

    Attributes:
        beams: number of elevations, evenly spaced between the two limits.
        elevation_min_deg: lowest beam.
        elevation_max_deg: highest beam.
        azimuth_steps: number of directions per turn.
        range_m: longest range that returns a point.
    """

    beams: int = 32
    elevation_min_deg: float = -25.0
    elevation_max_deg: float = 5.0
    azimuth_steps: int = 450
    range_m: float = 120.0

    def __post_init__(self) -> None:
        require(self.beams >= 2, "lidar.beams", self.beams, "2 or more")
        require(self.azimuth_steps >= 4, "lidar.azimuth_steps", self.azimuth_steps, "4 or more")
        require(self.range_m > 0, "lidar.range_m", self.range_m, "a positive range")
        require(
            -90 <= self.elevation_min_deg < self.elevation_max_deg <= 90,
            "lidar.elevation_min_deg",
            self.elevation_min_deg,
            "an angle from -90 up to lidar.elevation_max_deg (itself at most 90)",
        )


@dataclass
class TownConfig:
    """Procedural places, and drives through them that are rendered in OPV2V's layout.

    Attributes:
        towns: ``one`` town for all scenarios, or ``per_scenario``: every scenario a street of its own.
        root: folder to write (YAML, PNG and PCD files).
        depth_root: folder to write the z-depth of the cameras to; null = no depth, as in OPV2V itself.
        seed: decides the town or streets, the drives and the GPS noise.
        size_m: edge of the square that holds the town's streets.
        slope_deg: steepest ground within the town; streets draw their own.
        style: of streets: a name, a list of names (grid, suburb, industrial, oldtown, highway, market), or ``all`` of
            them but market.
        scenarios: number of scenarios per split; all splits share the town.
        frames: frames per scenario; ``null`` means 3 in the town, 1 on streets.
        frame_interval_s: simulated time between frames, a multiple of the 0.05 s tick that frame names count.
        agents_min: fewest agents of a scenario.
        agents_max: most agents of a scenario.
        traffic: in the town, the number of other moving vehicles per scenario (``null`` means 2); on streets, what
            distances and headings between agents are drawn from: ``opv2v`` (its statistics; ``null`` means this) or
            ``uniform``.
        rigs: where the agents carry their cameras and LiDAR: ``opv2v`` (as all of its cars do) or ``drawn`` (every
            agent at heights, places and directions of its own).
        farthest_m: on streets, no two agents are farther apart; 7.5 m per agent or more.
        image_scale: camera resolution relative to 800 x 600.
        gps_noise_m: standard deviation of the horizontal position in ``predicted_ego_pos``.
        gps_noise_deg: standard deviation of its yaw.
        lidar: the agents' LiDAR.
        workers: rendering processes; ``null`` means one per core. Does not change the result.
        overwrite: replace what was rendered with another configuration.
    """

    towns: str = "one"
    root: str = "data/town"
    depth_root: str | None = "data/town_depth"
    seed: int = 0
    size_m: float = 100.0
    slope_deg: float = 8.0
    style: Any = "all"
    scenarios: ScenarioCounts = field(default_factory=ScenarioCounts)
    frames: int | None = None
    frame_interval_s: float = 0.5
    agents_min: int = 4
    agents_max: int = 6
    traffic: Any = None
    rigs: str = "opv2v"
    farthest_m: float = 70.0
    image_scale: float = 0.25
    gps_noise_m: float = 0.3
    gps_noise_deg: float = 0.3
    lidar: LidarConfig = field(default_factory=LidarConfig)
    workers: int | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        require_choice("towns", self.towns, ("one", "per_scenario"))
        self.frames = (1 if self.per_scenario else 3) if self.frames is None else self.frames
        self.traffic = ("opv2v" if self.per_scenario else 2) if self.traffic is None else self.traffic
        if self.per_scenario:
            require_choice("traffic", str(self.traffic), ("opv2v", "uniform"))
        else:
            is_count = isinstance(self.traffic, int) and 0 <= self.traffic <= 20
            require(is_count, "traffic", self.traffic, "0 to 20 cars (opv2v and uniform: with towns=per_scenario)")
            require(self.style == "all", "style", self.style, "towns=per_scenario beside it")
        require_choice("rigs", self.rigs, ("opv2v", "drawn"))
        for style in self.styles:
            require_choice("style", style, ("all", *STYLES) if isinstance(self.style, str) else STYLES)
        require(len(self.styles) > 0, "style", self.style, "all, a name, or a list of names")
        require(self.seed >= 0, "seed", self.seed, "0 or more")
        require(100 <= self.size_m <= 400, "size_m", self.size_m, "100 to 400 m")
        require(0 <= self.slope_deg <= 12, "slope_deg", self.slope_deg, "0 to 12 degrees")
        require(self.num_frames >= 1, "frames", self.frames, "1 or more")
        ticks = self.frame_interval_s / 0.05
        require(
            ticks > 0.5 and math.isclose(ticks, round(ticks), abs_tol=1e-6),
            "frame_interval_s",
            self.frame_interval_s,
            "a positive multiple of 0.05 s",
        )
        require(self.num_frames * self.frame_interval_s <= 10, "frames", self.frames, "a drive of at most 10 s")
        require(1 <= self.agents_min <= self.agents_max, "agents_min", self.agents_min, "1 to agents_max")
        require(self.agents_max <= 6, "agents_max", self.agents_max, "at most 6 (the streets get too crowded)")
        width, height = 800 * self.image_scale, 600 * self.image_scale
        require(
            all(math.isfinite(size) and math.isclose(size, max(1, round(size))) for size in (width, height)),
            "image_scale",
            self.image_scale,
            "a scale that makes whole pixels of 800 x 600, such as 0.125, 0.25, 0.5 or 1",
        )
        fewest_m = ROOM_PER_AGENT_M * self.agents_max
        require(
            fewest_m <= self.farthest_m <= 70 or not self.per_scenario,
            "farthest_m",
            self.farthest_m,
            f"{fewest_m:g} m (room for agents_max={self.agents_max}) to 70 m",
        )
        if not self.per_scenario:
            require(self.farthest_m == 70, "farthest_m", self.farthest_m, "towns=per_scenario beside it")
        require(self.gps_noise_m >= 0 and self.gps_noise_deg >= 0, "gps_noise_m", self.gps_noise_m, "0 or more")
        require(self.workers is None or self.workers >= 1, "workers", self.workers, "1 or more, or null")

    @property
    def per_scenario(self) -> bool:
        """Whether every scenario is a street of its own."""
        return self.towns == "per_scenario"

    @property
    def num_frames(self) -> int:
        """Frames per scenario."""
        assert self.frames is not None
        return self.frames

    @property
    def styles(self) -> tuple[str, ...]:
        """Styles that streets are drawn from."""
        named = (self.style,) if isinstance(self.style, str) else tuple(map(str, self.style))
        return EVERYDAY_STYLES if named == ("all",) else named


@dataclass
class SynthConfig(TownConfig):
    """What ``coopmap synth`` is asked for.

    Attributes:
        cache_root: of streets, folder of a cache to render them into, ready to train on: no image, sweep or depth file
            is written, ``root`` gets the metadata alone. What views are like is said as in training (``experiment=``,
            ``preset=``, ``data.*``), which then takes ``data.root`` and ``data.cache_root``; ``depth_root=null`` lets
            sweeps supervise.
    """

    cache_root: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cache_root is not None and not self.per_scenario:
            raise ConfigError(
                f"cache_root={self.cache_root}: expected towns=per_scenario beside it; a town is written as files, "
                "which coopmap cache reads"
            )

    @property
    def town(self) -> TownConfig:
        """What to render."""
        return TownConfig(**{field.name: getattr(self, field.name) for field in fields(TownConfig)})


def tiny_town(root: str, depth_root: str | None, **changes: Any) -> TownConfig:
    """A town that renders in seconds: two training scenarios of two frames, 100 x 75 pixels."""
    values: dict[str, Any] = {
        "scenarios": ScenarioCounts(train=1, validate=1, test=0),
        "frames": 2,
        "size_m": 150.0,
        "agents_min": 2,
        "agents_max": 3,
        "traffic": 2,
        "image_scale": 0.125,
        "lidar": LidarConfig(beams=16, azimuth_steps=180),
        "workers": 1,
    }
    return TownConfig(root=root, depth_root=depth_root, **(values | changes))
