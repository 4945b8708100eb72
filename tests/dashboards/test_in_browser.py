"""The dashboard and the listing of reports in a real browser: curves, linked zoom, no request, no complaint."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from coopmap.dashboards.logs import read_logs
from coopmap.dashboards.page import write_dashboard
from coopmap.runs.reader import read_run
from coopmap.serving.server import build_server

from .conftest import ODD, MakeRun


@pytest.fixture
def opened(browser) -> Iterator[Callable]:
    """Opens an address; what the browser complains about or asks for elsewhere fails the test."""
    complaints, requests, pages = [], [], []

    def open_page(address: str, scheme: str = "light"):
        shown = browser.new_page(viewport={"width": 1300, "height": 900}, color_scheme=scheme)
        shown.set_default_timeout(180_000)  # a page holds 4 MB of script, and the machine may be busy
        shown.on("console", lambda message: complaints.append(message.text))
        shown.on("pageerror", lambda error: complaints.append(str(error)))
        shown.on("dialog", lambda dialog: complaints.append(dialog.message))
        shown.on("request", lambda request: requests.append(request.url))
        shown.goto(address)
        pages.append(shown)
        return shown

    yield open_page
    assert complaints == []
    assert all(url.startswith(("file://", "http://127.0.0.1:", "data:", "blob:")) for url in requests)
    for shown in pages:
        shown.close()


def test_the_dashboard_draws_the_logs_and_zooms_everywhere(opened, make_run: MakeRun, tmp_path: Path) -> None:
    runs = [make_run("a", ODD.replace("/", "-")), make_run("a", "two", 10.0)]
    write_dashboard(read_logs([read_run(folder) for folder in runs]), tmp_path / "dashboard.html")
    shown = opened((tmp_path / "dashboard.html").as_uri())
    shown.wait_for_selector(".plotly-graph-div .main-svg", state="attached")
    curve = shown.evaluate("document.getElementById('section-1').data.map(trace => [trace.x, trace.y])")
    assert curve[0] == [[0, 10, 20], [20, 10, pytest.approx(20 / 3)]]
    assert ODD.replace("/", "-") in shown.locator("table").first.inner_text()
    assert shown.locator("main script[src]").count() == 0
    shown.evaluate("Plotly.relayout('section-2', {'xaxis.range[0]': 5, 'xaxis.range[1]': 15})")
    ranges = "[...document.querySelectorAll('.plotly-graph-div')].map(figure => figure._fullLayout.xaxis.range)"
    shown.wait_for_function(f"{ranges}.every(range => range[0] == 5 && range[1] == 15)")
    dark = opened((tmp_path / "dashboard.html").as_uri(), "dark")
    dark.wait_for_selector(".plotly-graph-div .main-svg", state="attached")
    ink = "getComputedStyle(document.querySelector('.xtick text')).fill"
    assert dark.evaluate(ink) == "rgb(230, 237, 243)"
    assert shown.evaluate(ink) == "rgb(31, 35, 40)"


def test_a_report_is_reached_from_the_listing(opened, make_run: MakeRun, tmp_path: Path) -> None:
    folder = make_run("a", ODD.replace("/", "-"))
    write_dashboard(read_logs([read_run(folder)]), folder / "dashboard.html")
    with build_server(tmp_path / "runs") as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        shown = opened(f"http://127.0.0.1:{server.server_port}/")
        shown.locator("section").first.get_by_role("link").first.click()
        shown.wait_for_selector(".plotly-graph-div .main-svg", state="attached")
        assert shown.locator("h1").inner_text() == f"a/{folder.name}"
        server.shutdown()


def test_on_a_phone_the_panels_stand_one_below_the_other(browser, make_run: MakeRun, tmp_path: Path) -> None:
    write_dashboard(read_logs([read_run(make_run("a", "one"))]), tmp_path / "dashboard.html")
    shown = browser.new_page(viewport={"width": 390, "height": 844})
    shown.set_default_timeout(180_000)
    shown.goto((tmp_path / "dashboard.html").as_uri())
    shown.wait_for_selector("html[data-arranged=yes]", state="attached")
    places = """(() => {
      const {xaxis, xaxis2, yaxis, yaxis2} = document.getElementById("section-4")._fullLayout;
      return [xaxis._offset, xaxis2._offset, xaxis2._length, yaxis._offset + yaxis._length, yaxis2._offset];
    })()"""
    left, left2, width, bottom, top2 = shown.evaluate(places)
    assert left == left2
    assert width > 200
    assert bottom < top2
    assert shown.evaluate("document.documentElement.scrollWidth") == 390
    last = shown.evaluate("document.querySelector('main > section:last-of-type').getBoundingClientRect().top")
    drawn = "[...document.querySelectorAll('.main-svg')].map(part => part.getBoundingClientRect().bottom)"
    assert max(shown.evaluate(drawn)) < last  # no figure reaches beyond its own section
    shown.set_viewport_size({"width": 1200, "height": 900})
    shown.wait_for_function(f"({places})[1] > ({places})[0] + 200")
    shown.close()
