"""Streets rendered straight into a cache: of their files only the metadata is ever written.

The scenarios of a shard are rendered one after another, in memory, by one process; records are those that their files
would have given. Metadata are written to a scratch folder, which moves to ``data.root`` when the shard is whole.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from itertools import islice
from math import isclose
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float32
from rich.console import Console

from coopmap.config.checks import ConfigError
from coopmap.config.data import DataConfig
from coopmap.config.synth import TownConfig
from coopmap.data.cache import shards
from coopmap.data.cache.records import RecordWriter, check_size
from coopmap.data.cache.shards import (
    Description,
    Shard,
    claimed,
    complete,
    describe,
    fingerprints,
    names_of,
    plan,
    source_paths,
    warn_without_locks,
)
from coopmap.data.cache.sharing import until_all_is_done
from coopmap.data.cache.stored import pack
from coopmap.data.cache.views import StoredViews, build_stored_views
from coopmap.data.cache.writing import Split, Written, agree_on_settings, write_frames
from coopmap.data.opv2v import SPLIT_FOLDERS, AgentMetadata, CorruptFrameError, DepthSource, SplitIndex, read_agent
from coopmap.data.opv2v.depth import DenseDepth, LidarDepth
from coopmap.data.opv2v.yaml_file import load_metadata
from coopmap.data.vehicles import vehicles_around
from coopmap.data.views import Record
from coopmap.geometry.carla import points_cv_from_ue
from coopmap.geometry.rig import OPV2V_CAMERA_OF_SLOT
from coopmap.geometry.targets import SeenPoints
from coopmap.report.progress import with_progress
from coopmap.synthetic.dataset import all_scenarios, render_metadata, sweep_leftovers
from coopmap.synthetic.record import PARTIAL, claim_streets
from coopmap.synthetic.render import Sensed
from coopmap.synthetic.scenario import street_name

SLOTS = list(OPV2V_CAMERA_OF_SLOT)


@dataclass(frozen=True)
class Chunk:
    """Scenarios that share a shard, or one that takes several.

    Attributes:
        split: of the data.
        numbers: of the scenarios in it.
        parts: number of shards.
    """

    split: str
    numbers: tuple[int, ...]
    parts: int

    @property
    def folder(self) -> str:
        """Of the split."""
        return SPLIT_FOLDERS[self.split]

    @property
    def names(self) -> list[str]:
        """Folders of the scenarios."""
        return [street_name(self.folder, number) for number in self.numbers]

    @property
    def shards(self) -> list[Shard]:
        """Its shards, whose frames are not known yet."""
        return [Shard(self.split, self.names[0], part, ()) for part in range(self.parts)]


def render_into_cache(
    root: Path, config: DataConfig, splits: Iterable[str], num_workers: int | None = None
) -> list[Written]:
    """Render the streets of ``data.town`` whose views a cache does not hold yet.

    Args:
        root: of the cache.
        config: streets, and what views are like.
        splits: names.
        num_workers: processes; ``None`` = one per core.

    Returns:
        All shards; those that another process had at hand are waited for.

    Raises:
        ConfigError: if there are no streets to render, some are excluded, ``data.root`` holds streets with all their
            files or something else, the cache was made with other settings, or there is no room for it.
    """
    town = streets_of(config)
    render = StreetsToShards(root, config)
    claim_streets(replace(town, depth_root=None), keep_files=False)
    chunks = [chunk for split in splits for chunk in chunks_of(town, split)]
    agree_on_settings(root, config, {chunk.split: render.start(chunk.split) for chunk in chunks})
    sweep_leftovers(Path(town.root))
    if missing := [chunk for chunk in chunks if not render.is_done(chunk)]:
        warn_without_locks(root)
        done = _while_there_is_room(root, until_all_is_done(render, missing, num_workers), missing)
        total = sum(len(chunk.names) for chunk in missing)
        console = Console(stderr=True)
        for _ in with_progress(done, "Rendering", total, "streets", console, lambda chunk: len(chunk.names)):
            pass
    return [written for chunk in chunks for written in render.written(chunk)]


def chunks_of(town: TownConfig, split: str) -> list[Chunk]:
    """The scenarios of a split, as :func:`coopmap.data.cache.shards.plan` puts them into shards.

    Those that are asked for, and those whose metadata are there already: readers expect all of them.
    """
    folder = SPLIT_FOLDERS[split]
    asked = {number for each, number in all_scenarios(town) if each == folder}
    endings = (path.name.removeprefix(f"{folder}_") for path in Path(town.root, folder).glob(f"{folder}_*"))
    numbers = sorted(asked | {int(ending) for ending in endings if ending.isdecimal()})
    together = max(1, shards.FRAMES_PER_SHARD // town.num_frames)
    parts = -(-town.num_frames // shards.FRAMES_PER_SHARD)
    groups = (numbers[first : first + together] for first in range(0, len(numbers), together))
    return [Chunk(split, tuple(group), parts) for group in groups]


def _while_there_is_room(root: Path, done: Iterable[Chunk], chunks: list[Chunk]) -> Iterator[Chunk]:
    """Stop as soon as it is known that what is left will not fit on the disk."""
    unfinished, written, rendered = set(chunks), 0, 0
    for chunk in done:
        yield chunk
        unfinished.remove(chunk)
        rendered += len(chunk.names)
        written += _bytes_on_disk(root, [chunk])
        left = sum(len(each.names) for each in unfinished)
        # what shards in flight hold is no longer free; old shards make room for what replaces them
        needed = written / rendered * left - _bytes_on_disk(root, unfinished)
        free = shutil.disk_usage(root).free
        if needed > free:
            raise ConfigError(
                f"cache_root={root}: the {left} streets that are left need {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB "
                "are free; make room and start again, which goes on from here, or ask for fewer scenarios"
            )


def _bytes_on_disk(root: Path, chunks: Iterable[Chunk]) -> int:
    """Of shards, complete or not."""
    total = 0
    for shard in (shard for chunk in chunks for shard in chunk.shards):
        with suppress(FileNotFoundError):
            total += shard.path(root).stat().st_size
    return total


@dataclass(frozen=True)
class StreetsToShards:
    """Renders chunks; can be sent to other processes.

    Attributes:
        root: of the cache.
        config: streets, and what views are like.
    """

    root: Path
    config: DataConfig

    def __call__(self, chunk: Chunk) -> Chunk | None:
        """Render a chunk into its shards; ``None`` if another process is at it."""
        with claimed(chunk.shards[0], self.root) as mine:
            if not mine:
                return None
            if not self.is_done(chunk):
                self._render(chunk)
        return chunk

    def start(self, split: str) -> Split:
        """A split of which no frame is there yet."""
        town, nothing = streets_of(self.config), np.empty(0, np.int32)
        names, start = np.empty(0, np.bytes_), np.zeros(1, np.int32)
        index = SplitIndex(Path(town.root), split, names, names, names, nothing, start, nothing)
        return Split(index, _depth_source(index, self.config, town))

    def written(self, chunk: Chunk) -> list[Written]:
        """What became of its shards."""
        described = {shard: describe(shard, self.root) for shard in chunk.shards}
        return [Written.of(shard, each) for shard, each in described.items() if each is not None]

    def is_done(self, chunk: Chunk) -> bool:
        """Whether its shards are complete, and the metadata in place is what they were made with."""
        described = [each for shard in chunk.shards if (each := self._whole(shard)) is not None]
        cached = {name.split("/")[0] for each in described for name in each.names}
        # more, if a command that was asked for more has just rendered them
        is_whole = len(described) == chunk.parts and cached >= set(chunk.names)
        return is_whole and all(self._has_metadata(chunk, each) for each in described)

    def _whole(self, shard: Shard) -> Description | None:
        """The description of a shard that is complete and of the right size."""
        description = describe(shard, self.root)
        try:
            if description is not None:
                check_size(shard.path(self.root), description.file_bytes)
        except CorruptFrameError:
            return None
        return description

    def _has_metadata(self, chunk: Chunk, described: Description) -> bool:
        root, places = streets_of(self.config).root, (name.split("/") for name in described.names)
        paths = [Path(root, chunk.folder, scenario, agent, f"{frame}.yaml") for scenario, frame, agent in places]
        files_of_an_agent = len(described.sources) // len(paths)
        return fingerprints(paths) == described.sources[::files_of_an_agent]

    def _render(self, chunk: Chunk) -> None:
        cv2.setNumThreads(0)  # processes are the parallelism
        town, split = streets_of(self.config), self.start(chunk.split)
        with tempfile.TemporaryDirectory(prefix=PARTIAL, dir=town.root) as scratch:
            records = self._records(chunk, town, Path(scratch), split.depth_source)
            for shard in chunk.shards:
                for suffix in (".json", ".lmdb"):  # in this order: nobody takes what follows for whole
                    shard.path(self.root, suffix).unlink(missing_ok=True)
                with closing(RecordWriter(shard.path(self.root))) as writer:
                    write_frames(writer, islice(records, shards.FRAMES_PER_SHARD))
            index = SplitIndex.build(scratch, chunk.split)
            for name in chunk.names:
                _put(Path(chunk.folder, name), Path(scratch), town)
        index = replace(index, root=Path(town.root))
        source = _depth_source(index, self.config, town)
        for shard in plan(index):
            sources = fingerprints(source_paths(index, source, shard))
            size = shard.path(self.root).stat().st_size
            complete(shard, self.root, Description(names_of(index, shard), sources, {}, size))

    def _records(
        self, chunk: Chunk, town: TownConfig, scratch: Path, source: DepthSource
    ) -> Iterator[dict[str, bytes]]:
        """All views of each frame, as :class:`~coopmap.data.cache.writing.ShardWriter` makes them of files."""
        views = build_stored_views(self.config, source.is_dense)
        for number, name in zip(chunk.numbers, chunk.names, strict=True):
            frames = render_metadata(town, scratch, (chunk.folder, number), with_sweeps=not source.is_dense)
            for frame, sensed in frames:
                folder = scratch / chunk.folder / name
                metadata = {
                    agent: read_agent(folder / agent / f"{frame}.yaml", content=each.metadata)
                    for agent, each in sensed.items()
                }
                packed = _packed(sensed, metadata, source, views)
                yield {f"{name}/{frame}/{agent}": record for agent, record in packed.items()}


def _packed(
    sensed: Mapping[str, Sensed], metadata: Mapping[str, AgentMetadata], source: DepthSource, views: StoredViews
) -> dict[str, bytes]:
    """Records of the agents of a frame."""
    depths, vehicles = _depths(sensed, metadata, source), vehicles_around(metadata)
    packed = {}
    for agent, each in metadata.items():
        record = Record(each, sensed[agent].images[SLOTS], depths[agent])
        packed[agent] = pack(each, *views.content(agent, record, vehicles))
    return packed


def _depths(
    sensed: Mapping[str, Sensed], metadata: Mapping[str, AgentMetadata], source: DepthSource
) -> Mapping[str, Float32[np.ndarray, "k h w"] | SeenPoints]:
    """What a depth source would read from files."""
    if isinstance(source, DenseDepth):
        return {agent: source.ranges(each.z_depth[SLOTS], metadata[agent].rig) for agent, each in sensed.items()}
    assert isinstance(source, LidarDepth)
    sweeps = {agent: points_cv_from_ue(np.asarray(each.sweep, np.float32)) for agent, each in sensed.items()}
    return source.seen(sweeps, {agent: each.pose for agent, each in metadata.items()}, metadata)


def _put(place: Path, scratch: Path, town: TownConfig) -> None:
    """Move the metadata of a scenario, unless it is there: its dates are what other caches of it go by."""
    target = Path(town.root, place)
    if target.exists():
        if _same_content(target, scratch / place):
            return
        shutil.rmtree(target)
    target.parent.mkdir(exist_ok=True)
    try:
        (scratch / place).rename(target)
    except OSError:
        if not target.is_dir():  # it is: who renders the same streets into another cache was faster
            raise


def _same_content(first: Path, second: Path) -> bool:
    """Whether two folders hold the same YAML files, but for the last digits of numbers: CPUs round differently."""
    names = [{path.relative_to(folder) for path in folder.rglob("*") if path.is_file()} for folder in (first, second)]
    return names[0] == names[1] and all(_same_yaml(first / name, second / name) for name in names[0])


def _same_yaml(first: Path, second: Path) -> bool:
    if first.read_bytes() == second.read_bytes():
        return True
    try:
        return _close(load_metadata(first), load_metadata(second))
    except CorruptFrameError:
        return False


def _close(first: object, second: object) -> bool:
    """Whether two contents of YAML files are the same to 1e-9."""
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(_close(value, second[key]) for key, value in first.items())
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(map(_close, first, second))
    if isinstance(first, float) and isinstance(second, float):
        return isclose(first, second, rel_tol=1e-9, abs_tol=1e-9)
    return first == second


def _depth_source(index: SplitIndex, config: DataConfig, town: TownConfig) -> DepthSource:
    """Where depth would come from if there were files; without them there is no folder for dense depth either."""
    depth = config.depth
    if town.depth_root is None or depth.source == "lidar":
        return LidarDepth(index, depth.max_m, depth.merge_agents)
    return DenseDepth(index, index.root, "{frame}_camera{camera}_depth.npy", depth.kind, depth.max_m)


def streets_of(config: DataConfig) -> TownConfig:
    """What to render.

    Raises:
        ConfigError: if there are no streets in the configuration, frames of them are to be left out, or depth is to be
            something else than is rendered.
    """
    town, depth = config.town, config.depth
    if town is None or not town.per_scenario:
        raise ConfigError("keep_files=false: only streets can be rendered into a cache; add data=streets")
    if config.exclude:
        raise ConfigError(
            f"keep_files=false: data.exclude={config.exclude} leaves out frames of files, of which there are none"
        )
    if depth.source not in ("auto", "lidar", "npy") or (depth.source == "npy" and town.depth_root is None):
        raise ConfigError(
            f"data.depth.source={depth.source}: of streets there are LiDAR and, with a depth_root, dense depth (npy)"
        )
    if depth.kind != "z":
        raise ConfigError(f"data.depth.kind={depth.kind}: depth of streets is rendered as z")
    return town
