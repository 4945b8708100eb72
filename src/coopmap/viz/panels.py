"""What a preview shows of one view: image, range, what is known of each pixel, and which camera shows it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Int8, UInt8

from coopmap.report.palette import BLUE, COLORS, GRAY, ORANGE, PINK, VERMILLION
from coopmap.viz.canvas import with_alpha
from coopmap.viz.from_above import rgb
from coopmap.viz.overview import color_depth

MASK_COLORS = {
    "seen, range unknown": GRAY,
    "range known": BLUE,
    "moving vehicle": VERMILLION,
    "the agent itself": PINK,
}
CAMERA_COLORS = (COLORS[0], COLORS[2], ORANGE, COLORS[3])
"""By slot: neighbors around the car differ most."""
TINT = 0.5
"""Share of a camera's color over the gray image."""
SEAM = (255, 255, 255, 255)


@dataclass(frozen=True, eq=False)
class ShownView:
    """Images and ground truth on one pixel grid; what is ``None`` is not known there.

    Attributes:
        agent: number of the agent.
        name: of the view among those of the agent, a camera say; may be empty.
        directions: unit directions of what the pixels show, in the frame in which azimuth and elevation are stated.
        image: RGB.
        depth: range, 0 = unknown.
        covered: pixels that some camera sees; ``None`` = all.
        moving, own_body: pixels of moving vehicles and of the agent's own.
        camera: slot of the camera that shows the pixel, -1 = none.
        blended: pixels with a second camera mixed in.
    """

    agent: int
    name: str
    directions: Float32[np.ndarray, "h w 3"]
    image: UInt8[np.ndarray, "h w 3"] | None = None
    depth: Float32[np.ndarray, "h w"] | None = None
    covered: Bool[np.ndarray, "h w"] | None = None
    moving: Bool[np.ndarray, "h w"] | None = None
    own_body: Bool[np.ndarray, "h w"] | None = None
    camera: Int8[np.ndarray, "h w"] | None = None
    blended: Bool[np.ndarray, "h w"] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        height, width = self.directions.shape[:2]
        return height, width

    @property
    def seen(self) -> Bool[np.ndarray, "h w"]:
        """``covered``, spelled out."""
        return np.ones(self.size, bool) if self.covered is None else self.covered

    @property
    def has_seams(self) -> bool:
        """Whether several cameras share the picture."""
        return self.camera is not None and len(np.unique(self.camera[self.camera >= 0])) > 1

    @property
    def reach(self) -> int:
        """Pixels by which points are drawn larger on every side, so that sparse ones can be seen."""
        if self.depth is None:
            return 0
        share = int((self.depth > 0).sum()) / max(1, int(self.seen.sum()))
        return 0 if share > 0.5 else 1 if share > 0.03 else 2


def draw_panels(view: ShownView, near: float, far: float) -> dict[str, UInt8[np.ndarray, "h w 4"]]:
    """RGBA pictures by what they show, see-through where there is nothing; ``near`` and ``far`` as in color_depth."""
    panels = {}
    if view.image is not None:
        panels["image"] = with_alpha(view.image, view.seen)
    if view.depth is not None:
        depth = np.where(view.seen, enlarged(view.depth, view.reach), 0)
        panels["range"] = with_alpha(color_depth(depth, near, far), depth > 0)
        panels["mask"] = _mask(view)
    if view.has_seams:
        panels["camera"] = _cameras(view)
    return panels


def enlarged(depth: Float32[np.ndarray, "h w"], reach: int) -> Float32[np.ndarray, "h w"]:
    """Each known range spread over its neighborhood, the nearest in front; known pixels keep theirs."""
    if reach == 0:
        return depth
    kernel = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    nearest = cv2.erode(np.where(depth > 0, depth, np.inf).astype(np.float32), kernel, borderType=cv2.BORDER_REPLICATE)
    return np.where(depth > 0, depth, np.where(np.isfinite(nearest), nearest, 0)).astype(np.float32)


def draw_seams(view: ShownView) -> UInt8[np.ndarray, "h w 4"]:
    """Where one camera's part of the picture meets another's: lines to lay over the other pictures."""
    lines = np.zeros((*view.size, 4), np.uint8)
    lines[_seams(view)] = SEAM
    return lines


def _seams(view: ShownView) -> Bool[np.ndarray, "h w"]:
    """Pixels on either side of a seam."""
    assert view.camera is not None
    on_seam = np.zeros(view.size, bool)
    for axis in (0, 1):
        camera, marked = np.moveaxis(view.camera, axis, 0), np.moveaxis(on_seam, axis, 0)
        differs = (camera[1:] != camera[:-1]) & (camera[1:] >= 0) & (camera[:-1] >= 0)
        marked[1:] |= differs
        marked[:-1] |= differs
    return on_seam


def _mask(view: ShownView) -> UInt8[np.ndarray, "h w 4"]:
    assert view.depth is not None
    kinds = [view.seen, view.seen & (enlarged(view.depth, view.reach) > 0)]
    for vehicles in (view.moving, view.own_body):
        pixels = np.zeros(view.size, bool) if vehicles is None else vehicles
        grown = cv2.dilate(pixels.astype(np.uint8), np.ones((2 * view.reach + 1,) * 2, np.uint8))
        kinds.append(view.seen & (grown > 0))
    colors = np.array([[0, 0, 0, 0], *([*rgb(color), 255] for color in MASK_COLORS.values())], np.uint8)
    label = np.zeros(view.size, np.uint8)
    for number, pixels in enumerate(kinds, start=1):
        label[pixels] = number
    return colors[label]


def _cameras(view: ShownView) -> UInt8[np.ndarray, "h w 4"]:
    """The image in gray, tinted with the color of its camera; paler where two are blended, white on seams."""
    assert view.camera is not None
    gray = np.full(view.size, 128, np.uint8) if view.image is None else cv2.cvtColor(view.image, cv2.COLOR_RGB2GRAY)
    colors = np.array([rgb(color) for color in CAMERA_COLORS], np.float32)
    tint = colors[view.camera % len(colors)]
    picture = (1 - TINT) * gray[..., None] + TINT * tint
    if view.blended is not None:
        picture[view.blended] = 0.6 * picture[view.blended] + 0.4 * 255
    shown = with_alpha(picture.astype(np.uint8), view.camera >= 0)
    shown[_seams(view)] = SEAM
    return shown
