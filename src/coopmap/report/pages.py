"""Self-contained HTML pages from the templates beside this file; everything inserted is escaped."""

from __future__ import annotations

from functools import cache
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from coopmap.report.files import write_text
from coopmap.report.palette import PAGES, figure_style

if TYPE_CHECKING:
    import plotly.graph_objects as go


def write_page(file: Path, template: str, **content: Any) -> None:
    """Write a self-contained page.

    Args:
        file: to write.
        template: its name in ``templates``.
        content: values that the template names; Plotly figures go through its filter ``plot``.

    Raises:
        jinja2.UndefinedError: the template names a value that is not given.
    """
    write_text(render(template, **content), file)


def render(template: str, **content: Any) -> str:
    """The text of a page; see :func:`write_page`."""
    return _environment().get_template(template).render(**content)


def literal(text: str) -> str:
    """Text that Plotly shows literally; it interprets some HTML as markup."""
    return escape(text, quote=False)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"plot": _plot, "breakable": _breakable}
    kept = environment.policies["json.dumps_kwargs"]
    environment.policies["json.dumps_kwargs"] = {**kept, "allow_nan": False}  # with NaN in it, JSON.parse ends a page
    environment.globals |= {
        "pages": PAGES,
        "figure_styles": {scheme: figure_style(scheme) for scheme in PAGES},
        "plotly_library": _plotly_library,
    }
    return environment


def _breakable(text: str) -> Markup:
    """A name that lines may break after its underscores, rather than within its words."""
    return Markup("_<wbr>").join(text.split("_"))  # escapes the parts


def _plot(figure: go.Figure, name: str, mode_bar: bool = False) -> Markup:
    """The figure without Plotly's script, which the page includes once."""
    if not name.replace("-", "").isalnum():
        raise ValueError(f"{name!r}: Plotly does not escape names of figures; expected letters, digits and hyphens")
    from plotly.io import to_html

    shown = figure.to_dict()
    shown["layout"]["template"] = _template()
    config = {"displaylogo": False, "displayModeBar": None if mode_bar else False, "responsive": True}
    page = to_html(shown, full_html=False, include_plotlyjs=False, config=config, div_id=name, validate=False)
    return Markup(page)  # escapes "<"


@cache
def _template() -> dict[str, Any]:
    """Plotly's default one with our style; found once, since Plotly takes 40 ms to put one on another."""
    import plotly.graph_objects as go

    return go.Figure().update_layout(template=figure_style("light")).layout.template.to_plotly_json()


def _plotly_library() -> Markup:
    from plotly.offline import get_plotlyjs

    return Markup(get_plotlyjs())
