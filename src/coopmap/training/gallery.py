"""The pictures of a run: the same frames at every validation, and an index page to step through them."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8

from coopmap.report.files import finite, write_json
from coopmap.report.numbers import significant
from coopmap.report.pages import write_page
from coopmap.viz.frame_picture import draw_frame
from coopmap.viz.scene import PRED, Scene
from coopmap.viz.scene_cloud import predicted_clouds
from coopmap.viz.scene_page import ScenePage, write_scene
from coopmap.viz.scene_pictures import draw_cloud

SCENE_POINTS = 60_000
QUALITY = 88
FIGURE = significant(4)


@dataclass(frozen=True)
class Stage:
    """A validation with pictures.

    Attributes:
        step: optimizer steps done.
        frames: titles of the frames.
        figures: some metrics, by label.
        is_best: no earlier checkpoint was better.
        has_clouds: there are pictures of points too.
    """

    step: int
    frames: list[str]
    figures: dict[str, float] = field(default_factory=dict)
    is_best: bool = False
    has_clouds: bool = False

    @property
    def folder(self) -> str:
        """Of its files, inside the gallery."""
        return f"step_{self.step}"


class Gallery:
    """``gallery/`` of a run: ``step_N/frame_K.jpg``, some ``frame_K_cloud.jpg``, of best checkpoints ``frame_K.html``.

    Args:
        folder: of the gallery.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file = folder / "gallery.json"

    def stages(self) -> list[Stage]:
        """All so far, by step."""
        if not self._file.exists():
            return []
        return [_stage(entry) for entry in json.loads(self._file.read_text(encoding="utf-8"))]

    def add(self, stage: Stage, scenes: Sequence[Scene]) -> list[UInt8[np.ndarray, "h w 3"]]:
        """Write the pictures of a stage and the index; stages of later steps, of a run that was resumed, are dropped.

        Returns:
            The pictures of the frames, RGB.
        """
        folder, pictures = self.folder / stage.folder, []
        folder.mkdir(parents=True, exist_ok=True)
        figures = "   ".join(f"{label} {FIGURE(value)}" for label, value in stage.figures.items())
        for number, scene in enumerate(scenes):
            pictures.append(draw_frame(scene, f"step {stage.step}   {scene.title}   {figures}"))
            write_jpeg(pictures[-1], folder / f"frame_{number}.jpg")
            if stage.has_clouds:
                cloud = draw_cloud(scene, predicted_clouds(scene), PRED)
                write_jpeg(cloud, folder / f"frame_{number}_cloud.jpg")
            if stage.is_best:
                page = ScenePage("coopmap train", {"step": str(stage.step)}, points=SCENE_POINTS, with_panels=False)
                write_scene(folder / f"frame_{number}.html", scene, page)
        stages = [*(earlier for earlier in self.stages() if earlier.step < stage.step), stage]
        write_json([asdict(each) for each in stages], self._file)
        write_index(self.folder / "index.html", stages)
        return pictures


def _stage(entry: dict[str, Any]) -> Stage:
    """As it was written; a figure that was not finite is NaN."""
    figures = {label: math.nan if value is None else value for label, value in entry["figures"].items()}
    return Stage(**entry | {"figures": figures})


def write_index(file: Path, stages: Sequence[Stage]) -> None:
    """The page that steps through the checkpoints; it shows the pictures beside it."""
    frames = max((stage.frames for stage in stages), key=len, default=[])
    facts = finite([{**asdict(stage), "folder": stage.folder} for stage in stages])
    write_page(file, "gallery.html", title="Gallery of a run", stages=stages, frames=frames, facts=facts)


def write_jpeg(picture: UInt8[np.ndarray, "h w 3"], file: Path) -> None:
    """Write RGB."""
    _, encoded = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    file.write_bytes(encoded.tobytes())
