"""Streets have what docs/synthetic.md says: landmarks, parked cars between the agents, and looks of every kind."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from coopmap.config.synth import EVERYDAY_STYLES
from coopmap.synthetic.street import meeting, place
from coopmap.synthetic.street.look import Film, Light, Sky, draw_light
from coopmap.synthetic.street.roads import Road, draw_roads
from coopmap.synthetic.street.styles import STYLES, Style
from coopmap.synthetic.street.world import HARD

UP, AHEAD = np.eye(3, dtype=np.float32)[[2, 0]]


def streets(count: int) -> Iterator[tuple[np.random.Generator, Style, list[Road]]]:
    """Roads of all styles in turn, and what decides the rest."""
    for index in range(count):
        rng, style = np.random.default_rng([5, index]), STYLES[EVERYDAY_STYLES[index % len(EVERYDAY_STYLES)]]
        yield rng, style, draw_roads(rng, style)


def built(hard: str, count: int) -> list[place.Site]:
    """What stands beside the roads, of buildings and landmarks alone."""
    sites = []
    for rng, style, roads in streets(count):
        sites.append(place.Site(roads))
        place.place_buildings(rng, sites[-1], style, hard)
    return sites


@pytest.fixture
def landmarks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Kinds of the landmarks that are made from now on."""
    kinds, original = [], place.landmark

    def noted(kind: int, *rest: object) -> object:
        kinds.append(kind)
        return original(kind, *rest)

    monkeypatch.setattr(place, "landmark", noted)
    return kinds


def test_half_of_the_streets_and_more_have_landmarks_of_all_kinds(landmarks: list[int]) -> None:
    counts = []
    for rng, style, roads in streets(40):
        before = len(landmarks)
        place.place_buildings(rng, place.Site(roads), style, "none")
        counts.append(len(landmarks) - before)
    assert np.mean(np.array(counts) > 0) > 0.5
    assert max(counts) == 3
    assert set(landmarks) == set(range(6))


@pytest.mark.parametrize("hard", HARD)
def test_hard_streets_have_no_landmarks(hard: str, landmarks: list[int]) -> None:
    assert any(site.things for site in built(hard, 5))
    assert landmarks == []


def test_parked_cars_stand_between_many_agents() -> None:
    """Of a quarter of all pairs and more, within 6 m of the line between the two, but on highways; none where it is
    empty.
    """
    between = []
    for rng, style, roads in streets(60):
        parked = np.array([xy for xy, _ in place.place_parked(rng, place.Site(roads), style, "none")]).reshape(-1, 2)
        assert place.place_parked(rng, place.Site(roads), style, "empty") == []
        if style is STYLES["highway"]:
            continue
        tracks = meeting.draw_agents(rng, roads, 3, "opv2v", 70.0, np.zeros(1))
        agents = np.concatenate([track.at(np.zeros(1))[0] for track in tracks])
        for first, second in ((0, 1), (0, 2), (1, 2)):
            way, offset = agents[second] - agents[first], parked - agents[first]
            along = offset @ way / (way @ way)
            aside = np.abs(offset @ np.array([-way[1], way[0]])) / np.linalg.norm(way)
            between.append(((along > 0) & (along < 1) & (aside < 6)).any())
    assert np.mean(between) > 0.25


@pytest.fixture(scope="module")
def looks() -> list[tuple[Light, Sky, Film]]:
    """Light, sky and cameras of 150 streets."""
    found = []
    for index in range(150):
        rng = np.random.default_rng([6, index])
        light, sky = draw_light(rng)
        found.append((light, sky, Film.draw(rng, light)))
    return found


def test_suns_of_every_height_and_direction_and_overcast_skies(looks: list[tuple[Light, Sky, Film]]) -> None:
    sun = np.array([light.toward_sun for light, _, _ in looks])
    elevation_deg = np.rad2deg(np.arcsin(sun[:, 2]))
    assert elevation_deg.min() < 15
    assert elevation_deg.max() > 65
    assert np.histogram(np.arctan2(sun[:, 1], sun[:, 0]), 8, (-np.pi, np.pi))[0].min() >= 5
    assert 0.25 < np.mean([not light.sun.any() for light, _, _ in looks]) < 0.45
    assert np.ptp([light.haze_m for light, _, _ in looks]) > 1500


def test_skies_differ_overhead_and_at_the_horizon(looks: list[tuple[Light, Sky, Film]]) -> None:
    for direction, spread in ((UP, 0.1), (AHEAD, 0.05)):
        colors = np.concatenate([sky.lookup(*direction[:, None]) for _, sky, _ in looks])
        assert colors.std(axis=0).min() > spread


def test_walls_of_streets_have_palettes_of_their_own() -> None:
    colors = [np.concatenate([shape.color for shape, *_ in site.things]) for site in built("none", 20)]
    means = np.array([color.mean(axis=0) for color in colors])
    apart = np.linalg.norm(means[:, None] - means[None], axis=-1)[np.triu_indices(len(means), 1)]
    assert np.median(apart) > 0.08


def test_cameras_expose_and_color_differently(looks: list[tuple[Light, Sky, Film]]) -> None:
    """By a factor of 1.5 and more between streets, for the light that there is; and from camera to camera."""
    given = [light.ambient + 0.6 * light.sun * light.toward_sun[2] for light, _, _ in looks]
    brightness = [film.exposure * color.mean() for (_, _, film), color in zip(looks, given, strict=True)]
    low, high = np.percentile(brightness, [5, 95])
    assert high / low > 1.5
    for name, spread in (("gamma", 0.3), ("saturation", 0.4), ("noise", 0.015), ("vignette", 0.15), ("blur_px", 0.3)):
        assert np.ptp([getattr(film, name) for _, _, film in looks]) > spread, name
    film = max((film for _, _, film in looks), key=lambda film: film.exposure_spread)
    gray = np.full((8, 8, 3), 0.2 / film.exposure, np.float32)
    assert np.std([film.develop(gray, (camera,)).mean() for camera in range(20)]) > 0.005
