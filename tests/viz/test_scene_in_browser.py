"""The page of a scene in a real browser: it draws, switches, and says under the pointer what the scene says."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from coopmap.viz.scene import Scene, SceneAgent
from coopmap.viz.scene_page import ScenePage, write_scene

from .scenes import HEIGHT, WIDTH, pose, scene, view

EVIL = "<script>alert(1)</script> \"'ü"
POINTS, TRUE_POINTS, SWEEPS = 2 * (HEIGHT - 1) * WIDTH, 2 * (HEIGHT - 1) * WIDTH, 1000


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scene") / "pointcloud.html"
    write_scene(path, scene(names=(EVIL, "650"), title=EVIL), ScenePage(facts={"model": EVIL}))
    return path


@pytest.fixture
def opened(browser, file: Path) -> Iterator[Callable]:
    """Opens the page; errors in the console and requests for anything else fail the test."""
    complaints, requests, contexts = [], [], []

    def open_page(**options):
        context = browser.new_context(**({"viewport": {"width": 900, "height": 760}} | options))
        contexts.append(context)
        shown = context.new_page()
        # software rendering warns about its own speed; that is no error
        shown.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        shown.on("pageerror", lambda error: complaints.append(str(error)))
        shown.on("dialog", lambda dialog: complaints.append(dialog.message))
        shown.on("request", lambda request: requests.append(request.url))
        shown.goto(file.as_uri())
        shown.wait_for_selector("html[data-ready=yes][data-drawn=yes]")
        shown.locator("#stage").scroll_into_view_if_needed()
        return shown

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []
    assert {url for url in requests if not url.startswith("data:image/")} == {file.as_uri()}


def counted(shown) -> int:
    shown.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    return int(shown.locator("#count").inner_text().split(" points shown")[0].replace(",", ""))


def picture(shown) -> np.ndarray:
    """The stage as the browser shows it."""
    import cv2

    shown.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    png = np.frombuffer(shown.locator("#stage").screenshot(), np.uint8)
    return cv2.imdecode(png, cv2.IMREAD_COLOR)[..., ::-1].astype(int)


def redder(pixels: np.ndarray) -> np.ndarray:
    return (pixels[..., 0] > 150) & (pixels[..., 1] < 40) & (pixels[..., 2] < 40)


def test_layers_agents_and_colors_are_switched(opened) -> None:
    shown = opened()
    assert counted(shown) == POINTS
    assert redder(picture(shown)).sum() > 500
    shown.check("[data-show=truth]")
    assert counted(shown) == POINTS + TRUE_POINTS
    shown.uncheck("[data-show=truth]")
    shown.check("[data-show=sweep]")
    assert counted(shown) == POINTS + SWEEPS
    shown.uncheck("[data-show=sweep]")
    shown.uncheck("[data-agent='0']")
    assert counted(shown) == POINTS // 2
    shown.check("[data-agent='0']")
    shown.check("[name=color][value=error]")
    assert redder(picture(shown)).sum() == 0
    assert shown.locator("[data-of=error]").is_visible()
    shown.check("[name=color][value=image]")
    assert not shown.locator("[data-of=error]").is_visible()
    before = picture(shown)
    for name in ("boxes", "pred", "gt", "gps", "names", "grid"):
        shown.uncheck(f"[data-show={name}]")
        after = picture(shown)
        assert (before != after).any(), name
        before = after
    shown.check("[data-show=cameras]")
    assert (picture(shown) != before).any()
    shown.uncheck("[data-show=points]")
    assert counted(shown) == 0


def test_true_poses_move_the_points_of_the_agent_that_was_misplaced(opened) -> None:
    shown = opened()
    for name in ("boxes", "pred", "gt", "gps", "names", "grid"):
        shown.uncheck(f"[data-show={name}]")
    shown.click("[data-look=above]")
    shown.uncheck("[data-agent='0']")

    def middle() -> float:
        rows, columns = np.nonzero(redder(picture(shown)))
        assert len(rows) > 100
        return float(np.median(columns))

    predicted = middle()
    shown.check("[name=source][value=gt]")
    assert middle() < predicted - 5  # predicted too far to the right
    shown.uncheck("[data-agent='1']")
    shown.check("[data-agent='0']")
    right = middle()
    shown.check("[name=source][value=pred]")
    assert middle() == right


def test_hovering_tells_agent_range_and_error(opened) -> None:
    shown = opened()
    shown.uncheck("[data-agent='1']")
    rows, columns = np.nonzero(redder(picture(shown)))
    box = shown.locator("#stage").bounding_box()
    shown.mouse.move(box["x"] + columns[len(columns) // 2] + 0.5, box["y"] + rows[len(rows) // 2] + 0.5)
    shown.wait_for_selector("#readout:not([hidden])")
    text = shown.locator("#readout").inner_text()
    assert text.startswith(f"agent {EVIL} · range 8.75 m · error +0.7")  # in steps of 1/127 m
    assert " confidence " in text
    assert " left, " in text  # red is the left half of the view
    shown.mouse.move(box["x"] + 3, box["y"] + 3)
    shown.wait_for_selector("#readout", state="hidden")


def test_turning_and_zooming_change_the_picture(opened) -> None:
    shown = opened()
    before = picture(shown)
    box, scrolled = shown.locator("#stage").bounding_box(), shown.evaluate("window.scrollY")
    shown.mouse.move(box["x"] + 300, box["y"] + 200)
    shown.mouse.down()
    shown.mouse.move(box["x"] + 420, box["y"] + 220)
    shown.mouse.up()
    turned = picture(shown)
    assert (turned != before).any()
    shown.mouse.wheel(0, -400)
    assert (picture(shown) != turned).any()
    assert shown.evaluate("window.scrollY") == scrolled
    shown.click("[data-look=behind]")
    shown.mouse.move(box["x"] + 3, box["y"] + 3)
    assert (picture(shown) == before).mean() > 0.999


def test_panels_are_linked_and_say_what_is_known(opened) -> None:
    shown = opened()
    assert shown.locator(".panel").count() == 10
    panel = shown.locator(".panel").nth(1)
    panel.scroll_into_view_if_needed()
    box = panel.bounding_box()

    def point_at(column: int, row: int) -> str:
        x, y = (column + 0.5) / WIDTH, (row + 0.5) / HEIGHT
        shown.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
        return shown.locator("#readout").inner_text()

    assert point_at(20, 5) == f"agent {EVIL} · range 8.75 m · true 8.00 m · error +0.75 m"
    assert shown.locator(".cross:visible").count() == 4  # in the agent's other panels
    assert point_at(20, 0) == f"agent {EVIL} · range 8.75 m · true range unknown"
    assert point_at(20, HEIGHT - 1).endswith("masked out by the model")
    shown.keyboard.down("Control")
    shown.mouse.wheel(0, -300)
    shown.keyboard.up("Control")
    shown.wait_for_selector("html.zoomed")
    scales = shown.evaluate("""[...document.querySelectorAll(".picture")].map(picture =>
      new DOMMatrix(getComputedStyle(picture).transform).a)""")
    np.testing.assert_allclose(scales, [np.exp(1)] * 10, rtol=1e-5)


def test_dark_pages_and_phones(opened) -> None:
    dark = opened(color_scheme="dark")
    assert picture(dark)[5, 5].mean() < 60
    phone = opened(viewport={"width": 390, "height": 844}, has_touch=True, device_scale_factor=2)
    assert phone.evaluate("document.documentElement.scrollWidth") == 390
    box = phone.locator("#stage").bounding_box()
    assert box["width"] > 300
    assert box["height"] < 0.7 * 844  # there is room to scroll beside it
    phone.locator("#stage").scroll_into_view_if_needed()
    box = phone.locator("#stage").bounding_box()
    rows, columns = np.nonzero(redder(picture(phone)))
    place = len(rows) // 2
    phone.touchscreen.tap(box["x"] + columns[place] / 2, box["y"] + rows[place] / 2)
    phone.wait_for_selector("#readout:not([hidden])")
    assert " m" in phone.locator("#readout").inner_text()


def test_what_is_not_finite_is_left_out_and_the_rest_is_shown(browser, tmp_path: Path) -> None:
    nowhere = np.full((4, 4), np.nan)
    depth, confidence = np.full((HEIGHT, WIDTH), 8.5, np.float32), np.ones((HEIGHT, WIDTH), np.float32)
    depth[3, 4], confidence[5, 6] = np.inf, np.nan
    views = [
        view(0, {"pred": pose(), "gt": pose()}, depth=depth, confidence=confidence),
        view(1, {"pred": nowhere, "gt": pose(0, 20)}),
    ]
    agents = [SceneAgent("641", views[0].pose), SceneAgent("650", {"gt": pose(0, 20)})]
    write_scene(tmp_path / "a.html", Scene("drive / 000069", agents, views))
    complaints: list[str] = []
    shown = browser.new_page(viewport={"width": 900, "height": 760})
    shown.on("pageerror", lambda error: complaints.append(str(error)))
    shown.goto((tmp_path / "a.html").as_uri())
    shown.wait_for_selector("html[data-ready=yes][data-drawn=yes]")
    one = (HEIGHT - 1) * WIDTH
    assert counted(shown) == one - 1
    assert "predicted poses of agents 650" in shown.locator(".warning").inner_text()
    shown.check("[name=source][value=gt]")
    assert counted(shown) == 2 * one - 1
    step = shown.evaluate("views[0].range_step")
    assert step < 0.01  # infinity does not stretch it
    shown.close()
    assert complaints == []
