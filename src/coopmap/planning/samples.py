"""Samples to count with, where no data need be at hand: from a town of one frame, at the sizes of the configuration."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from coopmap.config import Config
from coopmap.config.data import DepthConfig
from coopmap.config.sampling import SamplingConfig
from coopmap.config.synth import ScenarioCounts, tiny_town
from coopmap.data import build_dataset
from coopmap.types import Observation, Sample, Target

FAR_M = 1000.0


@contextmanager
def small_town(agents: int, frames: int = 1) -> Iterator[Path]:
    """A temporary folder with ``data`` and ``depth`` of one drive."""
    from coopmap.synthetic import render_town

    with tempfile.TemporaryDirectory(prefix="coopmap-") as folder:
        town = Path(folder)
        counts = ScenarioCounts(train=0, validate=1, test=0)
        changes = {"scenarios": counts, "frames": frames, "agents_min": agents, "agents_max": agents}
        render_town(tiny_town(str(town / "data"), str(town / "depth"), **changes))
        yield town


@dataclass(frozen=True)
class Example:
    """A batch of one sample."""

    observation: Observation
    target: Target


class Examples:
    """One sample for each number of agents and each layout, made when it is asked for.

    Args:
        town: folder of :func:`small_town`.
    """

    def __init__(self, town: Path) -> None:
        self.town = town
        self._made: dict[tuple[object, ...], Example] = {}

    def of(self, config: Config, agents: int) -> Example:
        """The sample that a configuration makes of a frame with so many agents."""
        data, sizes = config.data, (config.data.panorama, config.data.mosaic, config.data.cameras)
        fusion, ticks = config.model.fusion.kind, config.data.neighbor_ticks
        key = (agents, data.layout, fusion, ticks, *((size.height, size.width) for size in sizes))
        if key not in self._made:
            self._made[key] = first_example(_on_town(config, self.town, agents))
        return self._made[key]


@contextmanager
def examples(config: Config, agents: Sequence[int]) -> Iterator[Examples]:
    """Samples for configurations like this one, with up to the largest of these numbers of agents."""
    with small_town(max(agents), 1 + config.data.neighbor_ticks) as town:
        yield Examples(town)


def _on_town(config: Config, town: Path, agents: int) -> Config:
    """The configuration with the town's data, and frames of exactly so many agents."""
    data = replace(
        config.data,
        root=str(town / "data"),
        depth_root=str(town / "depth"),
        depth=DepthConfig(),
        town=None,
        splits={},
        exclude=None,
        cache_dir=None,
        cache_root=None,
        communication_range_m=FAR_M,
        sampling=SamplingConfig(),
        min_agents=agents,
        max_agents=agents,
        max_views_per_gpu=max(agents, config.data.max_views_per_gpu),
    )
    return replace(config, data=data)


def first_example(config: Config) -> Example:
    """The first validation sample as a batch."""
    sample = build_dataset(config, "val")[0]
    assert isinstance(sample, Sample), sample
    observation, target = (record.map(lambda tensor: tensor[None]) for record in (sample.observation, sample.target))
    assert isinstance(observation, Observation)
    assert isinstance(target, Target)
    return Example(observation, target)
