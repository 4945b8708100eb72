"""Draw docs/img/dashboard_*.webp and viewer.webp: the page of coopmap dashboard and what coopmap view serves.

python docs/make_dashboard_images.py dashboard.html [http://127.0.0.1:8080]; needs playwright and Chromium in the path.
"""

import shutil
import sys
from pathlib import Path

from make_render_images import IMAGES, save
from playwright.sync_api import sync_playwright

SIZE = {"width": 1100, "height": 900}


def main() -> None:
    """Open the page, light and dark, and the viewer, if its address is given."""
    browser_path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    IMAGES.mkdir(exist_ok=True)
    with sync_playwright() as started:
        options = ["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
        browser = started.chromium.launch(executable_path=browser_path, args=options)
        for scheme in ("light", "dark"):
            page = browser.new_page(viewport=SIZE, color_scheme=scheme)
            page.goto(Path(sys.argv[1]).resolve().as_uri(), timeout=120_000)
            page.wait_for_selector("html[data-arranged=yes]", state="attached", timeout=120_000)
            page.wait_for_timeout(1500)
            save(page, f"dashboard_{scheme}")
        for address in sys.argv[2:]:
            page = browser.new_page(viewport=SIZE)
            page.goto(address, timeout=120_000)
            page.wait_for_timeout(40_000)  # points arrive one agent after the other
            save(page, "viewer")
        browser.close()


if __name__ == "__main__":
    main()
