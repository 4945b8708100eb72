"""A scene as points and pictures."""

import base64
import json
import re
import zlib

import numpy as np
import pytest

from coopmap.report.palette import GREEN, ORANGE
from coopmap.viz.frame_picture import draw_frame
from coopmap.viz.from_above import draw_plan, rgb
from coopmap.viz.scene import Scene
from coopmap.viz.scene_cloud import Cloud, one_per_voxel, placed, predicted_clouds, thinned, true_clouds
from coopmap.viz.scene_page import ScenePage, pack_points, write_scene
from coopmap.viz.scene_pictures import (
    MASK_COLORS,
    NEUTRAL,
    SKY,
    draw_cloud,
    draw_panels,
    error_levels,
    error_limit,
    error_scale,
)

from ..html_elements import Elements
from .scenes import AWAY_M, ERROR_M, HEIGHT, TOO_FAR_M, WIDTH, scene, view


def unpacked(cloud: dict) -> tuple[np.ndarray, np.ndarray]:
    """Points as a page's script reads them, and the bytes after them."""
    data = np.frombuffer(zlib.decompress(base64.b64decode(cloud["data"])), np.uint8)
    halves = data[: 6 * cloud["count"]].reshape(3, 2, cloud["count"]).astype(np.float64)
    steps = (halves[:, 0] + 256 * halves[:, 1]) / 65535
    return (np.array(cloud["low"])[:, None] + steps * np.array(cloud["span"])[:, None]).T, data[6 * cloud["count"] :]


def test_points_are_kept_placed_and_carry_their_error() -> None:
    shown = scene()
    clouds = predicted_clouds(shown)
    assert [len(cloud.points) for cloud in clouds] == [(HEIGHT - 1) * WIDTH] * 2
    np.testing.assert_allclose(np.linalg.norm(clouds[1].points, axis=1), 8 + TOO_FAR_M, rtol=1e-5)
    errors = clouds[0].error
    assert errors is not None
    assert np.isnan(errors[:WIDTH]).all()  # of the topmost row, nothing is known
    np.testing.assert_allclose(errors[WIDTH:], TOO_FAR_M, atol=1e-5)
    offset = placed(shown, clouds[1:], "pred") - placed(shown, clouds[1:], "gt")
    np.testing.assert_allclose(offset, np.tile([ERROR_M, 0, 0], (len(offset), 1)), atol=1e-5)
    np.testing.assert_allclose(placed(shown, clouds[1:], "gt").mean(axis=0)[2], AWAY_M, atol=0.1)
    assert [len(cloud.points) for cloud in true_clouds(shown)] == [(HEIGHT - 1) * WIDTH] * 2


@pytest.mark.parametrize("limit", [100, 3000, 10_000])
def test_thinning_keeps_one_point_per_voxel_everywhere(limit: int) -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform(-20, 20, (20_000, 3)).astype(np.float32) * np.float32([1, 0.01, 1])
    cloud = Cloud(0, points, np.zeros_like(points, np.uint8), confidence=np.arange(len(points), dtype=np.float32))
    (thin,), voxel = thinned([cloud], limit)
    assert limit / 6 < len(thin.points) <= limit
    cells = np.floor(thin.points / voxel)
    assert len(np.unique(cells, axis=0)) == len(cells)
    assert thin.confidence is not None
    np.testing.assert_array_equal(points[thin.confidence.astype(int)], thin.points)  # points of their own, in order
    every = np.unique(np.floor(points / voxel), axis=0)
    assert len(every) < 1.6 * len(cells)  # voxels grew in steps, whose borders differ
    assert thinned([cloud], 20_000) == ([cloud], 0.0)
    assert len(one_per_voxel(points[:0], 0.1)) == 0


def test_packed_points_come_back_within_half_a_step() -> None:
    points = np.random.default_rng(0).uniform(-60, 60, (1000, 3)).astype(np.float32)
    colors = np.random.default_rng(1).integers(0, 255, (1000, 3), np.uint8)
    packed = pack_points(points, {"rgb": colors, "error": colors[:, 0]})
    found, rest = unpacked(packed)
    assert np.abs(found - points).max() < 120 / 65535
    np.testing.assert_array_equal(rest[:3000].reshape(-1, 3), colors)
    np.testing.assert_array_equal(rest[3000:], colors[:, 0])
    assert pack_points(points[:0], {})["count"] == 0


def test_the_scale_of_errors_is_gray_at_zero_and_differs_by_sign() -> None:
    scale = error_scale().astype(int)
    levels = error_levels(np.array([-9.0, -1.0, 0.0, 1.0, 9.0, np.nan]), 1.0)
    assert levels.tolist() == [1, 1, 128, 255, 255, 0]
    assert scale[128].tolist() == list(NEUTRAL)
    assert scale[1][2] > scale[1][0]  # blue
    assert scale[255][0] > scale[255][2]  # red
    assert error_limit(scene()) == 1.0  # the next round number above 0.75 m


def test_panels_say_what_is_known() -> None:
    covered = np.ones((HEIGHT, WIDTH), bool)
    covered[:, :10] = False
    panels = draw_panels(view(0, {}, covered=covered), (1.0, 20.0), 1.0)
    assert list(panels) == ["image", "depth", "depth_true", "error", "mask"]
    assert (panels["image"][:, :10, 3] == 0).all()
    assert (panels["depth_true"][0, :, 3] == 0).all()
    assert (panels["error"][1:, 10:, 3] == 255).all()
    assert panels["error"][5, 50, :3].tolist() == error_scale()[error_levels(np.array([0.75]), 1.0)][0].tolist()
    colors = [rgb(color) for color in MASK_COLORS.values()]
    assert tuple(panels["mask"][3, 50, :3]) == colors[0]
    assert tuple(panels["mask"][3, 3, :3]) == colors[1]
    assert tuple(panels["mask"][-1, 50, :3]) == colors[2]
    bare = draw_panels(view(0, {}, true_depth=None, mask=None), (1.0, 20.0), 1.0)
    assert list(bare) == ["image", "depth"]


def test_in_the_picture_of_points_near_ones_hide_far_ones() -> None:
    shown = scene()
    points = np.float32([[0, 0, 20], [0, 0, 40], [0, -30, -80]])  # the third is behind
    colors = np.uint8([[255, 0, 0], [0, 255, 0], [0, 0, 255]])
    line = points[:2] * np.float32([1, 1, 1])
    eye = np.array([0, -11, -16])  # both on one line from the eye
    line[1] = eye + (line[0] - eye) * 1.7
    picture = draw_cloud(shown, [Cloud(0, np.concatenate([line, points[2:]]), colors)], "pred")
    drawn = (picture != np.array(SKY)).any(axis=-1)
    assert drawn.sum() == 4
    assert {tuple(color) for color in picture[drawn].tolist()} == {(255, 0, 0)}


def test_the_plan_shows_true_predicted_and_gps() -> None:
    shown = scene()
    with_gps, without = (draw_plan(part, [], (400, 400)) for part in (shown, _without_gps(shown)))
    for picture, has_gps in ((with_gps, True), (without, False)):
        plan = picture[: 400 - 64]
        assert (plan == rgb(GREEN)).all(axis=-1).sum() > 60
        assert ((plan == rgb(ORANGE)).all(axis=-1).sum() > 10) == has_gps


def _without_gps(shown: Scene) -> Scene:
    agents = [type(agent)(agent.name, {key: agent.pose[key] for key in ("pred", "gt")}) for agent in shown.agents]
    return Scene(shown.title, agents, shown.views)


def test_a_frame_is_one_picture_with_a_row_per_agent() -> None:
    one, two = scene(), scene()
    single = Scene("one", one.agents[:1], one.views[:1])
    heights = [len(draw_frame(each, "step 3")) for each in (single, two)]
    assert heights[0] >= 400
    assert draw_frame(two, "step 3").shape[1] > 3 * 400


EVIL = "<script>alert(1)</script> \"'ü"


def test_names_from_data_do_not_become_markup(tmp_path) -> None:
    shown = scene(names=(EVIL, "650"), title=EVIL, warnings=[EVIL])
    write_scene(tmp_path / "a.html", shown, ScenePage(kind="coopmap render", facts={EVIL: EVIL}))
    text = (tmp_path / "a.html").read_text()
    assert "<script>alert" not in text
    assert text.count("&lt;script&gt;alert(1)") >= 5
    assert sum(tag == "script" for tag, _ in Elements(text).found) == 3
    packed = json.loads(re.search(r'id="scene">(.*?)</script>', text)[1])  # type: ignore[index]
    assert packed["agents"][0]["name"] == EVIL
    assert all(address.startswith("data:image/") for address in Elements(text).addresses())


def test_the_page_holds_what_it_says(tmp_path) -> None:
    write_scene(tmp_path / "a.html", scene(), ScenePage(points=2000, source="gt"))
    text = (tmp_path / "a.html").read_text()
    packed = json.loads(re.search(r'id="scene">(.*?)</script>', text)[1])  # type: ignore[index]
    points = [cloud for cloud in packed["clouds"] if cloud["layer"] == "points"]
    shown = sum(cloud["count"] for cloud in points)
    assert 500 < shown <= 2000
    assert packed["source"] == "gt"
    total = 2 * (HEIGHT - 1) * WIDTH
    assert packed["count_text"].startswith(
        f"{shown:,} of {total:,} predicted points are on this page, one per voxel of"
    )
    found, rest = unpacked(points[1])
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 8 + TOO_FAR_M, atol=1e-3)
    assert np.reshape(points[1]["pose"]["pred"], (4, 4))[0, 3] == ERROR_M
    assert len(rest) == 5 * points[1]["count"]  # colors, errors, confidence
    assert {cloud["layer"] for cloud in packed["clouds"]} == {"points", "truth", "sweep"}
    assert len(packed["boxes"][0]) == 8
    np.testing.assert_allclose(np.ptp(packed["boxes"][0], axis=0), [2, 1.6, 4])
