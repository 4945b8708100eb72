"""Pages: nothing that is inserted becomes markup, nothing is fetched."""

import re
from pathlib import Path

import plotly.graph_objects as go
import pytest
from jinja2 import UndefinedError

from coopmap.report.pages import literal, render, write_page
from coopmap.report.palette import COLORS, PAGES
from coopmap.report.tables import Column, Row, Section, Table, names

from ..html_elements import Elements

EVIL = """</script><script>alert(1)</script><img src=x onerror="alert('2')">"""


def figure(name: str) -> go.Figure:
    return go.Figure(go.Scatter(x=[1], y=[2], name=literal(name), text=[literal(name)]))


def evil_pages() -> dict[str, str]:
    table = Table(
        EVIL, [names(EVIL), Column(EVIL, EVIL, group=EVIL)], [Section([Row([EVIL, EVIL])], EVIL)], EVIL, [EVIL]
    )
    run = type("Run", (), {"path": EVIL})
    group = type("Group", (), {"label": EVIL, "runs": [run]})
    sample = {"map": figure(EVIL), "scenario": EVIL, "frame": EVIL, "views": [[(EVIL, "data:,")]], "more": 2}
    sample |= {"trans_m": EVIL, "rot_deg": EVIL, "refined_trans_m": EVIL, "covisibility": EVIL}
    figures = {"distribution": figure(EVIL), "circumstances": [figure(EVIL)] * 2, "has_figures": True}
    return {
        "figure": render("figure.html", title=EVIL, lead=EVIL, figure=figure(EVIL)),
        "noise": render("noise.html", title=EVIL, facts=EVIL, tables=[table], figure=figure(EVIL)),
        "comparison": render(
            "comparison.html",
            title=EVIL,
            groups=[group],
            num_runs=1,
            warnings=[EVIL],
            tables=[table, table],
            curves=figure(EVIL),
        ),
        "evaluation": render(
            "evaluation.html",
            title=EVIL,
            name=EVIL,
            inputs=EVIL,
            images_only=False,
            facts={EVIL: EVIL, "list": [EVIL], "count": 12345},
            unreadable=[EVIL],
            methods=table,
            successes=table,
            overall=table,
            kinds=[table],
            confidence=figure(EVIL),
            calibration={
                "calibration_error": {"confidence": 0.1, "co-visibility": 0.2},
                "within_deviations": {"50 %": 0.5, "90 %": 0.9},
            },
            abstaining=table,
            probes=[table],
            probe=table,
            matches=[(EVIL, "data:,")],
            sample_groups={EVIL: [sample]},
            is_refined=True,
            all_figures={EVIL: [table]},
            **figures,
        ),
        "dashboard": render(
            "dashboard.html",
            title=EVIL,
            heading=EVIL,
            has_figures=True,
            written=EVIL,
            state=table,
            headlines=table,
            sections=[(type("Section", (), {"title": EVIL, "lead": EVIL, "panels": [EVIL]}), figure(EVIL))],
            has_gps=True,
            notes=[EVIL],
        ),
    }


@pytest.mark.parametrize("name", ["figure", "noise", "comparison", "evaluation", "dashboard"])
def test_data_does_not_become_markup_and_nothing_is_fetched(name: str) -> None:
    page = evil_pages()[name]
    elements = Elements(page).found
    assert all(attributes.get("src") != "x" for _, attributes in elements)
    assert all("onerror" not in attributes for _, attributes in elements)
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert all(address.startswith("data:") for address in Elements(page).addresses() if address)
    assert page.count("* plotly.js v") == 1


def test_a_missing_value_is_an_error_not_a_gap(tmp_path: Path) -> None:
    with pytest.raises(UndefinedError):
        write_page(tmp_path / "a.html", "figure.html", title="a", figure=figure("a"))
    assert list(tmp_path.iterdir()) == []


def luminance(color: str) -> float:
    channels = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colors_are_legible_in_both_schemes(scheme: str) -> None:
    page = PAGES[scheme]
    assert contrast(page["ink"], page["paper"]) > 7
    assert contrast(page["soft"], page["paper"]) > 4.5
    assert min(contrast(color, page["paper"]) for color in COLORS) > 2.2


def test_every_color_of_the_style_sheet_has_a_dark_twin() -> None:
    page = render("figure.html", title="a", lead="", figure=figure("a"))
    style = page[page.index("<style>") : page.index("</style>")]
    light, dark = (set(re.findall(r"--([a-z-]+):", block)) for block in style.split("prefers-color-scheme: dark"))
    assert light == dark
    assert set(re.findall(r"var\(--([a-z-]+)\)", style)) <= light


def test_what_a_browser_could_not_parse_is_refused() -> None:
    with pytest.raises(ValueError, match="JSON"):
        render("gallery.html", title="a", stages=[1], frames=[], facts=[{"value": float("nan")}])


def test_names_break_after_underscores() -> None:
    table = Table("a", [names("figure")], [Section([Row(["depth_<b>_rel"])])])
    page = render("noise.html", title="a", facts="", tables=[table], figure=figure("a"))
    assert ">depth_<wbr>&lt;b&gt;_<wbr>rel</th>" in page
