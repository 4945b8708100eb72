"""From what a preview is asked for to its files."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path

from coopmap.config import Config
from coopmap.config.preview import PreviewConfig
from coopmap.data import build_split
from coopmap.data.dataset import FrameDataset
from coopmap.data.opv2v import FrameError
from coopmap.data.splits import render_missing_town
from coopmap.previews.facts import agents_table, facts
from coopmap.previews.frame import read_frame
from coopmap.previews.views import shown_views
from coopmap.viz.contact_sheet import SheetEntry, sheet_entry, write_sheet
from coopmap.viz.preview_page import Preview, write_preview

log = logging.getLogger(__name__)


def write_previews(asked: PreviewConfig, config: Config) -> Path:
    """Write a page per sample with its pictures in a folder beside it, and of several samples a contact sheet.

    Returns:
        The file to open first.

    Raises:
        ConfigError: there is no such sample.
        DataError: the data cannot be read; single samples of a contact sheet may be unreadable.
    """
    render_missing_town(config.data)
    # moving vehicles can be shown; a frame is one tick of one scenario
    sampling = replace(config.data.sampling, foreign_prob=0.0)
    data = replace(config.data, vehicle_masks=True, neighbor_ticks=0, sampling=sampling)
    # probed as rendering and evaluation do: samples have the same numbers, and cars that cannot be read cost themselves
    dataset = build_split(data, asked.split, config.seed, refuse_depth=False, probe=True)
    positions = asked.positions(len(dataset))
    assert asked.output is not None
    folder = Path(asked.output).expanduser()
    if not asked.is_sheet:
        file = folder / f"{asked.split}_{positions[0]}.html"
        write_preview(file, _preview(dataset, positions[0], asked))
        return file
    return _write_sheet(dataset, positions, asked, folder)


def _write_sheet(dataset: FrameDataset, positions: list[int], asked: PreviewConfig, folder: Path) -> Path:
    from rich.progress import track

    entries: list[SheetEntry] = []
    unreadable: list[str] = []
    for position in track(positions, description="previews", transient=True, disable=len(positions) < 5):
        try:
            preview = _preview(dataset, position, asked)
        except FrameError as error:
            unreadable.append(f"{position}: {error}")
            continue
        page = folder / f"{asked.split}_{position}.html"
        write_preview(page, preview)
        entries.append(sheet_entry(preview, os.path.relpath(page, folder)))
    for line in unreadable:
        log.warning("unreadable: %s", line)
    file = folder / f"{asked.split}_sheet.html"
    write_sheet(file, f"{asked.split}, samples {asked.index}", entries, unreadable)
    return file


def _preview(dataset: FrameDataset, position: int, asked: PreviewConfig) -> Preview:
    """Read a sample and lay it out."""
    frame = read_frame(dataset, position, asked.augment)
    return Preview(
        name=f"{asked.split} {position}",
        facts=facts(frame, dataset.config, dataset.depth_source.describe(), asked.augment),
        agents=frame.agents,
        table=agents_table(frame, dataset.config.layout),
        views=shown_views(frame, dataset.config),
        warnings=[f"took another frame: {line}" for line in frame.sample.skipped],
    )
