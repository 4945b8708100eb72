"""Streets rendered straight into a cache: of their files only the metadata stays.

The scenarios of a shard are rendered together into a scratch folder, cached from there as any files are, and their
metadata moved to ``data.root``. So views are those that files give, and only a few shards' files are on disk at a time.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from coopmap.config.checks import ConfigError
from coopmap.config.data import DataConfig
from coopmap.config.synth import TownConfig
from coopmap.data.cache import shards
from coopmap.data.cache.shards import Shard, claimed, describe, fingerprints, plan, source_paths
from coopmap.data.cache.sharing import until_all_is_done
from coopmap.data.cache.writing import ShardWriter, Split, Written, agree_on_settings
from coopmap.data.opv2v import SPLIT_FOLDERS
from coopmap.data.splits import split_source
from coopmap.synthetic.dataset import PARTIAL, all_scenarios, claim_streets, render_scenario, shown, sweep_leftovers
from coopmap.synthetic.scenario import street_name


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
    def names(self) -> list[str]:
        """Folders of the scenarios."""
        return [street_name(SPLIT_FOLDERS[self.split], number) for number in self.numbers]

    def shard(self, number: int) -> Shard:
        """One of its shards, whose frames are not known yet."""
        return Shard(self.split, self.names[0], number, ())


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
            files or something else, or the cache was made with other settings.
    """
    town = streets_of(config)
    claim_streets(town, keep_files=False)
    sweep_leftovers(Path(town.root))
    render = StreetsToShards(root, config)
    chunks = [chunk for split in splits for chunk in chunks_of(town, split)]
    if missing := [chunk for chunk in chunks if not render.is_done(chunk)]:
        streets = (name for done in _rendered(render, missing, num_workers) for name in done.names)
        for _ in shown(streets, sum(len(chunk.names) for chunk in missing), "streets", Console(stderr=True)):
            pass
    return [written for chunk in chunks for written in render.written(chunk)]


def _rendered(render: StreetsToShards, chunks: list[Chunk], num_workers: int | None) -> Iterator[Chunk]:
    first = {chunk.split: chunk for chunk in reversed(chunks)}
    # in this process, which can say what is wrong with the settings of a cache
    yield from until_all_is_done(render, list(first.values()), 1)
    yield from until_all_is_done(render, [chunk for chunk in chunks if chunk not in first.values()], num_workers)


def chunks_of(town: TownConfig, split: str) -> list[Chunk]:
    """The scenarios of a split, as :func:`coopmap.data.cache.shards.plan` puts them into shards."""
    numbers = [number for folder, number in all_scenarios(town) if folder == SPLIT_FOLDERS[split]]
    together = max(1, shards.FRAMES_PER_SHARD // town.num_frames)
    parts = -(-town.num_frames // shards.FRAMES_PER_SHARD)
    groups = (numbers[first : first + together] for first in range(0, len(numbers), together))
    return [Chunk(split, tuple(group), parts) for group in groups]


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
        with claimed(chunk.shard(0), self.root) as mine:
            if not mine:
                return None
            if not self.is_done(chunk):
                self._render(chunk)
        return chunk

    def written(self, chunk: Chunk) -> list[Written]:
        """What became of its shards."""
        described = {shard: describe(shard, self.root) for shard in map(chunk.shard, range(chunk.parts))}
        return [Written.of(shard, each) for shard, each in described.items() if each is not None]

    def is_done(self, chunk: Chunk) -> bool:
        """Whether its shards are complete and the metadata of its scenarios is in place."""
        described = [describe(chunk.shard(number), self.root) for number in range(chunk.parts)]
        cached = {name.split("/")[0] for each in described if each is not None for name in each.names}
        folder = Path(self.config.root, SPLIT_FOLDERS[chunk.split])
        return cached == set(chunk.names) and None not in described and all((folder / name).is_dir() for name in cached)

    def _render(self, chunk: Chunk) -> None:
        town = streets_of(self.config)
        with tempfile.TemporaryDirectory(prefix=PARTIAL, dir=town.root) as scratch:
            files, depth = Path(scratch, "files"), None if town.depth_root is None else Path(scratch, "depth")
            for number in chunk.numbers:
                render_scenario(town, files, depth, (SPLIT_FOLDERS[chunk.split], number))
            depth_root = None if depth is None else str(depth)
            config = replace(self.config, root=str(files), depth_root=depth_root, cache_root=None, cache_dir=None)
            split = Split(*split_source(config, chunk.split))
            writer = ShardWriter(self.root, config, {chunk.split: split})
            agree_on_settings(self.root, config, writer.splits)
            written = [(shard, writer.write(shard)) for shard in plan(split.index)]
            for name in chunk.names:
                _keep_metadata(Path(SPLIT_FOLDERS[chunk.split], name), files, town)
            for shard, description in written:
                paths = source_paths(split.index, split.depth_source, shard)
                kept = [_kept(path, {files: town.root, depth: town.depth_root}) for path in paths]
                writer.finish(shard, replace(description, sources=fingerprints(kept)))


def _keep_metadata(place: Path, files: Path, town: TownConfig) -> None:
    """Move a scenario without images and sweeps; what a killed process left in its place is replaced."""
    for path in (files / place).rglob("*"):
        if path.is_file() and path.suffix != ".yaml":
            path.unlink()
    target = Path(town.root, place)
    if target.exists():
        shutil.rmtree(target)
    target.parent.mkdir(exist_ok=True)
    (files / place).rename(target)
    if town.depth_root is not None:
        Path(town.depth_root, place).mkdir(parents=True, exist_ok=True)  # tells that the scenario is complete


def _kept(path: Path, folders: Mapping[Path | None, str | None]) -> Path:
    """Where a file of a scratch folder is, or would be, from now on."""
    scratch = next(folder for folder in folders if folder is not None and path.is_relative_to(folder))
    return Path(str(folders[scratch])).expanduser() / path.relative_to(scratch)


def streets_of(config: DataConfig) -> TownConfig:
    """What to render.

    Raises:
        ConfigError: if there are no streets in the configuration, or frames of them are to be left out.
    """
    town = config.town
    if town is None or not town.per_scenario:
        raise ConfigError("keep_files=false: only streets can be rendered into a cache; add data=streets")
    if config.exclude:
        raise ConfigError(
            f"keep_files=false: data.exclude={config.exclude} leaves out frames of files, of which there are none"
        )
    return town
