"""What two agents have in common: their pictures with matches drawn between them, beside the scene from above."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from coopmap.geometry.se3_numpy import transform_points
from coopmap.report.palette import BLUE, GREEN, VERMILLION
from coopmap.viz.canvas import INK, WHITE, at_width, put_text
from coopmap.viz.from_above import FINE, FOOT_HEIGHT, PALE, draw_arrow, draw_grid, fit, rgb

WIDTH, PICTURE_WIDTH, GAP, MARGIN = 1200, 790, 56, 8
LABEL_HEIGHT, LEGEND_HEIGHT = 26, 34
DRAWN_MATCHES = 60
GRAY = (120, 120, 120)
BETWEEN = 150
"""Gray of the gap that lines cross, on which both ends of their scale are visible."""


@dataclass(frozen=True, eq=False)
class PairPicture:
    """Two agents of a sample, ``i`` and ``j``.

    Attributes:
        ends: their numbers in the sample.
        pictures: RGB, what they see.
        places: of the matches in both pictures, pixels (x, y).
        confidence: of the matches, in [0, 1].
        points: of the matches, in either agent's frame.
        true, answer: poses of all agents of the sample in any frames of their own.
        caption: a line below.
    """

    ends: tuple[int, int]
    pictures: tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w 3"]]
    places: Float[np.ndarray, "m 2 2"]
    confidence: Float[np.ndarray, " m"]
    points: tuple[Float[np.ndarray, "m 3"], Float[np.ndarray, "m 3"]]
    true: Float[np.ndarray, "n 4 4"]
    answer: Float[np.ndarray, "n 4 4"]
    caption: str = ""


def draw_matches(pair: PairPicture, names: Sequence[str]) -> UInt8[np.ndarray, "h 1200 3"]:
    """The picture, RGB.

    Left, the two agents' pictures with the most confident matches between them; right, from above in agent ``i``'s
    frame, forward up the page: all agents where they are and where the answer puts them, and the matched points of
    either agent, those of ``j`` moved by the answer: where it is right they coincide.

    Args:
        pair: what to draw.
        names: of the sample's agents.
    """
    left = _pictures(pair, names)
    right = _from_above(pair, (len(left), WIDTH - PICTURE_WIDTH - 3 * MARGIN))
    blank = np.full((len(left), MARGIN, 3), WHITE, np.uint8)
    both = np.concatenate([left, blank, right], axis=1)
    return cv2.copyMakeBorder(both, MARGIN, MARGIN, MARGIN, MARGIN, cv2.BORDER_CONSTANT, value=(WHITE,) * 3)


def confidence_colors(confidence: Float[np.ndarray, " m"]) -> UInt8[np.ndarray, "m 3"]:
    """Dark blue at 0 to bright yellow at 1."""
    levels = np.arange(256, dtype=np.uint8)[:, None]
    colors = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_PLASMA), cv2.COLOR_BGR2RGB)[:, 0]
    return colors[np.rint(255 * np.clip(confidence, 0, 1)).astype(int)]


def _pictures(pair: PairPicture, names: Sequence[str]) -> UInt8[np.ndarray, "h w 3"]:
    scaled = [at_width(picture, PICTURE_WIDTH, cv2.INTER_CUBIC) for picture in pair.pictures]
    tops = [LABEL_HEIGHT, LABEL_HEIGHT + len(scaled[0]) + GAP]
    bottom = tops[1] + len(scaled[1])
    canvas = np.full((bottom + LABEL_HEIGHT + LEGEND_HEIGHT + FOOT_HEIGHT - 34, PICTURE_WIDTH, 3), WHITE, np.uint8)
    for picture, top in zip(scaled, tops, strict=True):
        canvas[top : top + len(picture)] = picture
    canvas[tops[0] + len(scaled[0]) : tops[1]] = BETWEEN
    number = [f"{end}: agent {names[end]}" for end in pair.ends]
    put_text(canvas, number[0], 0, LABEL_HEIGHT - 9)
    put_text(canvas, number[1], 0, bottom + 19)
    order = np.argsort(pair.confidence, kind="stable")[-DRAWN_MATCHES:]
    scale = [PICTURE_WIDTH / picture.shape[1] for picture in pair.pictures]
    shift = np.array([[0, top] for top in tops])
    ends = pair.places[order] * np.array(scale)[:, None] + shift
    highest = max(float(pair.confidence.max(initial=0.0)), 0.01)
    _draw_lines(canvas, ends, confidence_colors(pair.confidence[order] / highest))
    _legend(canvas, len(order), highest, bottom + LABEL_HEIGHT)
    put_text(canvas, pair.caption, 0, len(canvas) - 8)
    return canvas


def _draw_lines(
    canvas: UInt8[np.ndarray, "h w 3"], ends: Float[np.ndarray, "m 2 2"], colors: UInt8[np.ndarray, "m 3"]
) -> None:
    """Lines with round ends, the last in front."""
    at = np.rint(ends * 2**FINE).astype(int)
    for (start, end), color in zip(at.tolist(), colors.tolist(), strict=True):
        cv2.line(canvas, start, end, color, 1, cv2.LINE_AA, FINE)
    for place, color in zip(at.reshape(-1, 2).tolist(), colors.repeat(2, axis=0).tolist(), strict=True):
        cv2.circle(canvas, place, 4 << FINE, (WHITE,) * 3, -1, cv2.LINE_AA, FINE)
        cv2.circle(canvas, place, 3 << FINE, color, -1, cv2.LINE_AA, FINE)


def _legend(canvas: UInt8[np.ndarray, "h w 3"], number: int, highest: float, top: int) -> None:
    what = "the match that agrees" if number == 1 else f"the best {number} matches that agree"
    end = put_text(canvas, f"{what}; confidence 0", 0, top + 21) + 8
    canvas[top + 10 : top + 22, end : end + 200] = confidence_colors(np.linspace(0, 1, 200))
    put_text(canvas, f"{highest:.2g}", end + 208, top + 21)


def _from_above(pair: PairPicture, size: tuple[int, int]) -> UInt8[np.ndarray, "h w 3"]:
    """The scene in agent ``i``'s frame."""
    i, j = pair.ends
    true, answer = (np.linalg.inv(pose[i]) @ pose for pose in (pair.true, pair.answer))
    clouds = [pair.points[0], transform_points(answer[j], pair.points[1])]
    clouds = [cloud[np.isfinite(cloud).all(axis=1)] for cloud in clouds]
    canvas = np.full((*size, 3), WHITE, np.uint8)
    to_pixel, meter = fit(np.concatenate([true[:, :3, 3], answer[:, :3, 3]]), clouds, size)
    draw_grid(canvas, to_pixel, meter)
    for cloud, color in zip(clouds, (BLUE, VERMILLION), strict=True):
        for place in to_pixel(cloud).tolist():
            cv2.circle(canvas, place, 3 << FINE, rgb(color), -1, cv2.LINE_AA, FINE)
    for number in range(len(true)):
        if number != i and np.isfinite(answer[number]).all():
            start, end = (to_pixel(pose[number, :3, 3]).tolist() for pose in (true, answer))
            cv2.line(canvas, start, end, rgb(GREEN), 1, cv2.LINE_AA, FINE)
            draw_arrow(canvas, to_pixel, answer[number], meter, rgb(GREEN), filled=True)
        draw_arrow(canvas, to_pixel, true[number], meter, INK if number in pair.ends else GRAY, filled=False)
        x, y = (to_pixel(true[number, :3, 3]) >> FINE).tolist()
        put_text(canvas, str(number), x + 12, y - 8)
    _key(canvas, pair.ends)
    return cv2.copyMakeBorder(canvas[1:-1, 1:-1], 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=PALE)


def _key(canvas: UInt8[np.ndarray, "h w 3"], ends: tuple[int, int]) -> None:
    """What the colors mean."""
    top = len(canvas) - FOOT_HEIGHT
    canvas[top:] = WHITE
    canvas[top] = PALE
    rows = ((BLUE, f"points of {ends[0]}"), (VERMILLION, f"points of {ends[1]}, by the answer"))
    for row, (color, text) in enumerate(rows):
        cv2.circle(canvas, (16, top + 20 + 26 * row), 4, rgb(color), -1, cv2.LINE_AA)
        put_text(canvas, text, 28, top + 25 + 26 * row)
    for row, (filled, text) in enumerate(((True, "answered"), (False, "true"))):
        place = np.array([[canvas.shape[1] - 112.0, top + 20 + 26 * row]])
        corners = np.rint(place + 8 * np.array([[0, -1.0], [0.62, 0.7], [0, 0.35], [-0.62, 0.7]])).astype(int)
        if filled:
            cv2.fillPoly(canvas, [corners], rgb(GREEN), cv2.LINE_AA)
        else:
            cv2.polylines(canvas, [corners], True, INK, 2, cv2.LINE_AA)
        put_text(canvas, text, canvas.shape[1] - 98, top + 25 + 26 * row)
