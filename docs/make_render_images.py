"""Draw docs/images/pointcloud_*.webp and gallery.webp: pages of coopmap render and of a run in Chromium.

python docs/make_render_images.py pointcloud.html gallery/index.html; needs playwright and a Chromium in the path.
"""

import shutil
import sys
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

IMAGES = Path(__file__).parent / "images"
SIZE = {"width": 1100, "height": 1000}


def main() -> None:
    """Open the pages, light, dark and as a phone shows them."""
    scene, gallery = (Path(argument).resolve().as_uri() for argument in sys.argv[1:3])
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium())
        page = opened(browser, scene, viewport=SIZE)
        page.locator(".controls").scroll_into_view_if_needed()
        page.evaluate("document.querySelector('.controls').scrollIntoView()")
        save(page, "pointcloud_light")
        dark = opened(browser, scene, viewport=SIZE, color_scheme="dark")
        dark.check("[name=source][value=gt]")
        dark.check("[name=color][value=error]")
        dark.evaluate("window.scrollTo(0, document.getElementById('stage').getBoundingClientRect().top + 330)")
        save(dark, "pointcloud_dark")
        phone = opened(browser, scene, viewport={"width": 390, "height": 844}, device_scale_factor=2, has_touch=True)
        phone.evaluate("document.getElementById('stage').scrollIntoView()")
        save(phone, "pointcloud_phone")
        run = opened(browser, gallery, viewport={"width": 1100, "height": 760})
        save(run, "gallery")
        browser.close()


def chromium() -> str:
    """The browser's program."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))


def opened(browser: Browser, address: str, **options: object) -> Page:
    """The page, drawn."""
    page = browser.new_page(**options)  # type: ignore[arg-type]
    page.goto(address, timeout=120_000)
    page.wait_for_selector("html[data-ready=yes]", timeout=120_000)
    page.wait_for_timeout(1500)
    return page


def save(page: Page, name: str) -> None:
    """As WebP, a fifth of the size of PNG."""
    import cv2

    IMAGES.mkdir(exist_ok=True)
    file = IMAGES / f"{name}.png"
    page.wait_for_timeout(500)
    page.screenshot(path=file)
    cv2.imwrite(str(file.with_suffix(".webp")), cv2.imread(str(file)), [cv2.IMWRITE_WEBP_QUALITY, 80])
    file.unlink()
    print(file.with_suffix(".webp"))


if __name__ == "__main__":
    main()
