"""Draw docs/images/preview.png: a page of coopmap preview in Chromium, zoomed in.

python docs/make_preview_image.py PAGE.html; needs playwright and a Chromium in the path.
"""

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

SIZE = {"width": 1200, "height": 610}
PLACE = 0.21, 0.36
"""What is zoomed in on, in widths and heights of a panel: a sign."""


def main() -> None:
    """Open, zoom, point, take the picture."""
    file = Path(__file__).parent / "images" / "preview.png"
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with sync_playwright() as started:
        page = started.chromium.launch(executable_path=browser).new_page(viewport=SIZE)
        page.goto(Path(sys.argv[1]).resolve().as_uri())
        page.wait_for_selector("html[data-ready=yes]")
        page.evaluate("document.querySelector('.tools').scrollIntoView()")
        box = page.locator(".panel").first.bounding_box()
        assert box is not None
        page.mouse.move(box["x"] + PLACE[0] * box["width"], box["y"] + PLACE[1] * box["height"])
        page.keyboard.down("Control")
        page.mouse.wheel(0, -240)
        page.keyboard.up("Control")
        page.wait_for_selector("html.zoomed")
        page.mouse.move(
            box["x"] + PLACE[0] * box["width"] + 1, box["y"] + PLACE[1] * box["height"]
        )  # shows the text again
        page.screenshot(path=file)
    print(file)


if __name__ == "__main__":
    main()
