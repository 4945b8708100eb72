"""Draw docs/images/dashboard_*.webp and view_*.webp: a run's dashboard, and coopmap view, in Chromium.

python docs/make_dashboard_images.py dashboard.html http://127.0.0.1:8080; needs playwright and a Chromium in the path.
"""

import sys
from pathlib import Path

from make_render_images import chromium, save
from playwright.sync_api import Browser, Page, sync_playwright

SIZE = {"width": 1100, "height": 1000}
PHONE = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2}
SCENE_MS = 20_000
"""For the viewer's points to arrive and, without a GPU, to be drawn."""


def main() -> None:
    """Open the pages, light, dark and as a phone shows them."""
    dashboard, viewer = Path(sys.argv[1]).resolve().as_uri(), sys.argv[2]
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium())
        light = opened(browser, dashboard, viewport=SIZE)
        save(light, "dashboard_light")
        dark = opened(browser, dashboard, viewport=SIZE, color_scheme="dark")
        dark.evaluate("document.querySelectorAll('section')[2].scrollIntoView()")
        save(dark, "dashboard_dark")
        phone = opened(browser, dashboard, **PHONE)
        phone.evaluate("document.querySelectorAll('section')[2].scrollIntoView()")
        save(phone, "dashboard_phone")
        shown = browser.new_page(viewport={"width": 1100, "height": 720})
        shown.goto(viewer)
        shown.wait_for_timeout(SCENE_MS)
        for close in shown.locator(".mantine-Notification-closeButton").all():  # of a note that there is no GPU
            close.click()
        save(shown, "view_light")
        dark_page = shown.locator("input[type=checkbox]").last
        dark_page.check()
        shown.wait_for_timeout(SCENE_MS / 4)
        save(shown, "view_dark")
        dark_page.uncheck()
        browser.close()


def opened(browser: Browser, address: str, **options: object) -> Page:
    """The page, its figures drawn in its colors."""
    page = browser.new_page(**options)  # type: ignore[arg-type]
    page.goto(address, timeout=120_000)
    page.wait_for_selector("html[data-arranged=yes]", state="attached", timeout=120_000)
    return page


if __name__ == "__main__":
    main()
