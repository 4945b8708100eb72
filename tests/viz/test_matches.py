"""The picture of matches: where lines end, and what coincides from above."""

from __future__ import annotations

import numpy as np
import pytest

from coopmap.report.palette import BLUE, VERMILLION
from coopmap.viz.matches import (
    GAP,
    LABEL_HEIGHT,
    MARGIN,
    PICTURE_WIDTH,
    WIDTH,
    PairPicture,
    confidence_colors,
    draw_matches,
)

HEIGHT, PIXELS = 80, 320
SCALE = PICTURE_WIDTH / PIXELS


PLACES = ((40, 20), (300, 60))
"""Of all matches, in the two pictures."""


def pair(error_m: float = 0.0) -> PairPicture:
    """Two agents 20 m apart, 30 points around them; the answer is off by some meters to the right."""
    true = np.eye(4)[None].repeat(2, axis=0)
    true[1, 2, 3] = 20.0
    answer = true.copy()
    answer[1, 0, 3] += error_m
    points = np.random.default_rng(0).uniform([-15, -1, -5], [15, 1, 25], (30, 3))
    black = np.zeros((HEIGHT, PIXELS, 3), np.uint8)
    return PairPicture(
        ends=(0, 1),
        pictures=(black, black),
        places=np.array([PLACES] * 30, float),
        confidence=np.linspace(0.1, 0.5, 30),
        points=(points, points - true[1, :3, 3]),
        true=true,
        answer=answer,
    )


def colored(picture: np.ndarray, color: str) -> int:
    rgb = np.frombuffer(bytes.fromhex(color[1:]), np.uint8)
    return int((picture[:, MARGIN + PICTURE_WIDTH :] == rgb).all(axis=-1).sum())


def test_lines_end_at_the_cells_in_the_color_of_their_confidence() -> None:
    picture = draw_matches(pair(), ("7", "9"))
    assert picture.shape[1] == WIDTH
    best = confidence_colors(np.ones(1))[0]
    tops = MARGIN + LABEL_HEIGHT, MARGIN + LABEL_HEIGHT + round(HEIGHT * SCALE) + GAP
    for top, (x, y) in zip(tops, PLACES, strict=True):
        assert np.abs(picture[round(top + y * SCALE), round(MARGIN + x * SCALE)].astype(int) - best).max() < 30
    between = MARGIN + LABEL_HEIGHT + round(HEIGHT * SCALE) + GAP // 2
    assert len(np.unique(picture[between, MARGIN : MARGIN + PICTURE_WIDTH], axis=0)) > 1  # a line crosses


def test_from_above_the_points_coincide_if_the_answer_is_right() -> None:
    """Then those of the second agent, drawn last, cover those of the first."""
    right, wrong = (draw_matches(pair(error), ("7", "9")) for error in (0.0, 6.0))
    legend = colored(draw_matches(empty(), ("7", "9")), BLUE)
    assert colored(right, BLUE) == legend > 0
    assert colored(wrong, BLUE) > legend + 300
    assert colored(right, VERMILLION) == pytest.approx(colored(wrong, VERMILLION), rel=0.35)


def empty() -> PairPicture:
    """Nothing matches."""
    full = pair()
    nothing = np.zeros((0, 3))
    return PairPicture(
        (0, 1), full.pictures, np.zeros((0, 2, 2)), np.zeros(0), (nothing, nothing), full.true, full.answer
    )


def test_an_answer_that_is_not_finite_is_left_out() -> None:
    broken = pair()
    broken.answer[1] = np.nan
    assert draw_matches(broken, ("7", "9")).shape[1] == WIDTH
