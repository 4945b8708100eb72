"""The gallery of a run in a real browser: it steps through checkpoints and asks for nothing but its own pictures."""

import math
from pathlib import Path
from typing import Any

from coopmap.training.gallery import Gallery, Stage

from ..viz.scenes import scene

EVIL = "<script>alert(1)</script> \"'ü"


def test_checkpoints_are_stepped_through(browser: Any, tmp_path: Path) -> None:
    gallery, shown = Gallery(tmp_path), scene(title=EVIL)
    for step, is_best in ((0, True), (5, False), (10, True)):
        translation = math.nan if step == 5 else 9.0 - step / 2
        gallery.add(Stage(step, [shown.title], {"translation (m)": translation}, is_best, is_best), [shown])
    complaints, requests = [], []
    page = browser.new_page(viewport={"width": 390, "height": 844}, color_scheme="dark")
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: complaints.append(dialog.message))
    page.on("request", lambda request: requests.append(request.url))
    page.goto((tmp_path / "index.html").as_uri())
    page.wait_for_selector("html[data-ready=yes]")
    assert page.locator("h2").inner_text() == EVIL
    assert page.evaluate("document.documentElement.scrollWidth") == 390

    def state() -> tuple[str, str, bool]:
        words = page.locator("#which").inner_text()
        picture = page.locator("[data-frame]").get_attribute("src")
        return words, picture, page.locator("[data-scene]").is_visible()

    strip = page.locator(".strip").bounding_box()
    chosen = page.locator(".strip [aria-current=true]").bounding_box()
    assert strip["x"] <= chosen["x"] < strip["x"] + strip["width"] - 40  # in sight, of thumbnails that need scrolling
    assert state() == ("step 10 ★ · translation (m) 4.000", "step_10/frame_0.jpg", True)
    page.click("#earlier")
    assert state() == ("step 5 · translation (m) NaN", "step_5/frame_0.jpg", False)
    page.keyboard.press("ArrowLeft")
    assert state() == ("step 0 ★ · translation (m) 9.000", "step_0/frame_0.jpg", True)
    page.locator("[data-to='2']").click()
    assert state()[1] == "step_10/frame_0.jpg"
    page.wait_for_function("document.querySelector('[data-frame]').naturalWidth > 1000")
    page.click("[data-scene]")
    page.wait_for_selector("html[data-drawn=yes]")
    assert page.url == (tmp_path / "step_10" / "frame_0.html").as_uri()
    page.close()
    assert [text for text in complaints if "GPU stall" not in text] == []  # software rendering, about its speed
    assert all(url.startswith((tmp_path.as_uri(), "data:image/")) for url in requests)
