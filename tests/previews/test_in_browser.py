"""The page in a real browser: it draws, zooms everywhere at once, and says under the pointer what the target says."""

from collections.abc import Iterator

import numpy as np
import pytest

SCREEN_PIXEL = 0.02
"""Share of a panel's height; the browser rounds the pointer's place."""


@pytest.fixture
def opened(browser, written) -> Iterator:
    """A page of the tiny town as written and as shown; what the browser complains about or asks for fails the test."""
    complaints, requests = [], []
    shown = browser.new_page(viewport={"width": 1400, "height": 1000})
    shown.on("console", lambda message: complaints.append(message.text))
    shown.on("pageerror", lambda error: complaints.append(str(error)))
    shown.on("request", lambda request: requests.append(request.url))
    shown.goto(written.file.as_uri())
    shown.wait_for_selector("html[data-ready=yes]")
    yield written, shown
    assert complaints == []
    assert [url for url in requests if not url.startswith("data:image/png;base64,")] == [written.file.as_uri()]
    shown.close()


def point_at(shown, panel: int, column: float, row: float, size: tuple[int, int]) -> str:
    """Move to the center of a pixel of the whole picture; the text beside the pointer."""
    target = shown.locator(".panel").nth(panel)
    target.scroll_into_view_if_needed()
    box = target.bounding_box()
    x, y = (column + 0.5) / size[1], (row + 0.5) / size[0]
    shown.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
    return shown.locator("#readout").inner_text()


def degrees(value: float) -> str:
    text = f"{abs(value):.1f}"
    return ("\u2212" if value < 0 and text != "0.0" else "+") + text + "°"


def transforms(shown) -> list[list[float]]:
    """Of the pictures of all panels: scale, and shift in widths and heights of the panel."""
    return shown.evaluate("""[...document.querySelectorAll(".picture:not(.seams)")].map(picture => {
      const matrix = new DOMMatrix(getComputedStyle(picture).transform);
      return [matrix.a, matrix.e / picture.clientWidth, matrix.f / picture.clientHeight];
    })""")


def test_panels_show_pictures_and_numbers_are_right(opened):
    written, shown = opened
    sizes = shown.evaluate("""[...document.querySelectorAll(".picture")].map(picture =>
      [picture.naturalWidth, picture.naturalHeight, picture.complete])""")
    assert sizes == [[224, 56, True]] * (7 * len(written.views))
    visible = shown.locator(".picture:visible").count()
    assert visible == 4 * len(written.views)
    shown.check("#seams")
    assert shown.locator(".picture:visible").count() == 7 * len(written.views)
    rng = np.random.default_rng(0)
    for number, view in enumerate(written.views):
        known = np.argwhere(view["range"] > 0)
        for panel, (row, column) in enumerate(rng.choice(known, 4)):
            text = point_at(shown, 4 * number + panel, column, row, (56, 224))
            azimuth = view["azimuth"][row, column] * view["angle_step"] - 180
            elevation = view["elevation"][row, column] * view["angle_step"] - 90
            camera = ("front", "left", "rear", "right")[int(view["camera"][row, column]) - 1]
            distance = f"{view['range'][row, column] * view['range_step']:.2f} m"
            parts = [f"azimuth {degrees(azimuth)}", f"elevation {degrees(elevation)}", distance, f"{camera} camera"]
            assert text == " · ".join([view["title"], *parts])
            assert shown.locator(".cross:visible").count() == 3  # in the other panels of the agent
        row, column = np.argwhere(view["covered"] == 0)[0]
        assert point_at(shown, 4 * number, column, row, (56, 224)) == f"{view['title']}: no camera sees this"


def test_zooming_and_moving_in_one_panel_changes_all(opened):
    written, shown = opened
    assert transforms(shown) == [[1, 0, 0]] * (4 * len(written.views))
    point_at(shown, 2, 111.5, 27.5, (56, 224))  # the middle
    shown.keyboard.down("Control")
    shown.mouse.wheel(0, -300)
    shown.keyboard.up("Control")
    shown.wait_for_selector("html.zoomed")
    zoomed = transforms(shown)
    scale = float(np.exp(1))
    middle = [scale, (1 - scale) / 2, (1 - scale) / 2]  # what was under the pointer still is
    np.testing.assert_allclose(zoomed, [zoomed[0]] * (4 * len(written.views)), atol=1e-5)
    np.testing.assert_allclose(zoomed[0], middle, atol=SCREEN_PIXEL)

    box = shown.locator(".panel").nth(2).bounding_box()
    shown.mouse.down()
    shown.mouse.move(box["x"] + 0.7 * box["width"], box["y"] + 0.5 * box["height"])
    shown.mouse.up()
    moved = transforms(shown)
    np.testing.assert_allclose(moved, [moved[0]] * len(moved), atol=1e-5)
    np.testing.assert_allclose(np.subtract(moved[0], zoomed[0]), [0, 0.2, 0], atol=SCREEN_PIXEL)

    view, row, column = written.views[0], 25, 100
    _, left, top = moved[0]
    x, y = (column + 0.5) / 224 * scale + left, (row + 0.5) / 56 * scale + top
    shown.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
    azimuth, elevation = (
        degrees(view[name][row, column] * view["angle_step"] - start)
        for name, start in (("azimuth", 180), ("elevation", 90))
    )
    assert f"azimuth {azimuth} · elevation {elevation}" in shown.locator("#readout").inner_text()

    shown.click("#whole")
    assert transforms(shown) == [[1, 0, 0]] * len(moved)


def test_plain_scrolling_moves_the_page(opened):
    _, shown = opened
    point_at(shown, 0, 100, 20, (56, 224))
    before = shown.evaluate("window.scrollY")
    shown.mouse.wheel(0, 100)
    shown.wait_for_function(f"window.scrollY > {before}")
    assert transforms(shown)[0] == [1, 0, 0]


def test_the_page_fits_a_phone(browser, written):
    shown = browser.new_page(viewport={"width": 390, "height": 844})
    shown.goto(written.file.as_uri())
    assert shown.evaluate("document.documentElement.scrollWidth") == 390
    shown.close()


def test_two_fingers_zoom_all_panels_and_a_tap_says_what_it_is_on(browser, written):
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True)
    shown = context.new_page()
    shown.goto(written.file.as_uri())
    shown.wait_for_selector("html[data-ready=yes]")
    panel = shown.locator(".panel").nth(1)
    panel.scroll_into_view_if_needed()
    box = panel.bounding_box()
    row, column = np.argwhere(written.views[0]["range"] > 0)[100]
    x, y = box["x"] + (column + 0.5) / 224 * box["width"], box["y"] + (row + 0.5) / 56 * box["height"]
    shown.touchscreen.tap(x, y)
    assert written.views[0]["title"] in shown.locator("#readout").inner_text()
    assert " m" in shown.locator("#readout").inner_text()

    fingers = context.new_cdp_session(shown)
    height = box["y"] + box["height"] / 2

    def touch(kind: str, *places: float) -> None:
        points = [{"x": place, "y": height, "id": finger} for finger, place in enumerate(places)]
        fingers.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", 150, 230)
    for far in (10, 20, 30, 40):
        touch("touchMove", 150 - far, 230 + far)
    touch("touchEnd")
    zoomed = transforms(shown)
    np.testing.assert_allclose(zoomed, [zoomed[0]] * len(zoomed), atol=1e-5)
    assert zoomed[0][0] == pytest.approx(2, rel=0.1)  # 160 pixels apart instead of 80
    context.close()
