"""Colors that are distinguishable with any color vision, on light and on dark pages."""

from __future__ import annotations

from typing import Any

BLUE, VERMILLION, GREEN, PINK = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
ORANGE, SKY, PURPLE, GRAY = "#E69F00", "#56B4E9", "#9A5BD0", "#808890"
COLORS = (BLUE, VERMILLION, GREEN, PINK, ORANGE, SKY, PURPLE, GRAY)
"""In the order of use: Okabe and Ito (2008) without yellow and black, and two more."""

DASHES = ("solid", "dot", "dash", "dashdot")
"""Of curves, in the order of use: the next one when all colors are taken."""

LOG_AXIS = {"type": "log", "tickformat": "~g", "nticks": 6}
"""Numbers at full length: Plotly's own are digits without magnitude between powers, and micro-units."""

PAGES = {
    "light": {"paper": "#ffffff", "ink": "#1f2328", "soft": "#59636e", "line": "#d8dee4"},
    "dark": {"paper": "#161b22", "ink": "#e6edf3", "soft": "#9198a1", "line": "#363d46"},
}
"""Colors of pages, by the scheme that the reader's system prefers."""

FONT_FAMILY = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"


def curve_style(number: int) -> dict[str, str]:
    """Color and dash of the curve ``number``: no two of the first 32 look the same."""
    turns, place = divmod(number, len(COLORS))
    return {"color": COLORS[place], "dash": DASHES[turns % len(DASHES)]}


def figure_style(scheme: str) -> dict[str, Any]:
    """Plotly template for a scheme: transparent, so that the page's background shows."""
    page = PAGES[scheme]
    clear = "rgba(0,0,0,0)"
    axis = {"gridcolor": page["line"], "zerolinecolor": page["line"], "linecolor": page["line"], "automargin": True}
    axis |= {"title": {"font": {"size": 13}, "standoff": 8}}
    scene_axis = {"gridcolor": page["line"], "zerolinecolor": page["line"], "backgroundcolor": clear}
    return {
        "layout": {
            "font": {"family": FONT_FAMILY, "size": 13, "color": page["ink"]},
            "colorway": list(COLORS),
            "paper_bgcolor": clear,
            "plot_bgcolor": clear,
            "hoverlabel": {"bgcolor": page["paper"], "font": {"color": page["ink"]}},
            "legend": {"bgcolor": clear},
            "xaxis": axis,
            "yaxis": axis,
            "scene": {f"{name}axis": scene_axis for name in "xyz"},
        }
    }
