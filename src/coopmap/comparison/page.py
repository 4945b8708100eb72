"""The comparison as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from coopmap.comparison.groups import Group
from coopmap.comparison.tables import Table

STYLE = """
:root { --ink: #1c2733; --soft: #5b6b7b; --line: #dde3ea; --shade: #f5f7fa; --accent: #0072b2; }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); margin: 0; background: #fff; }
main { max-width: 1280px; margin: 0 auto; padding: 32px 28px 64px; }
h1 { font-size: 26px; margin: 0 0 4px; letter-spacing: -0.01em; }
h2 { font-size: 19px; margin: 40px 0 6px; }
p { margin: 0 0 12px; color: var(--soft); max-width: 90ch; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 14px; min-width: 60%; }
th, td { padding: 6px 14px 6px 0; text-align: right; vertical-align: bottom; }
th { color: var(--soft); font-weight: 600; border-bottom: 2px solid var(--ink); max-width: 13em; }
th { overflow-wrap: anywhere; }
th:first-child, td:first-child { text-align: left; padding-left: 8px; min-width: 16em; }
td { border-bottom: 1px solid var(--line); white-space: nowrap; }
td:first-child { white-space: normal; }
tr.section td { background: var(--shade); font-weight: 600; border-bottom: 1px solid var(--line); padding-top: 8px; }
td.lowest { font-weight: 700; color: var(--accent); }
.caveats { border-left: 4px solid #e69f00; background: #fdf6e7; padding: 12px 18px; margin: 20px 0; }
.caveats strong { display: block; margin-bottom: 4px; }
.caveats ul { margin: 0; padding-left: 20px; overflow-wrap: anywhere; }
details { margin-top: 28px; }
summary { cursor: pointer; font-size: 17px; font-weight: 600; }
details ul { overflow-wrap: anywhere; font-size: 14px; }
"""


def page(title: str, groups: Sequence[Group], warnings: Sequence[str], tables: Sequence[Table], curves: str) -> str:
    """The whole page; all text is escaped.

    Args:
        title: heading.
        groups: what is compared.
        warnings: sentences about what does not compare.
        tables: the last one is folded away.
        curves: HTML of the curves.
    """
    shown, folded = tables[:-1], tables[-1]
    count = sum(len(group.runs) for group in groups)
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p>{count} run{'s' * (count != 1)} in {len(groups)} group{'s' * (len(groups) != 1)}.</p>",
        _caveats(warnings),
        *(f"<h2>{escape(table.title)}</h2><p>{escape(table.note)}</p>{table_html(table)}" for table in shown),
        "<h2>Curves</h2><p>Thick: mean over seeds. Thin: single runs. Dashed: before training. Dotted: always the "
        "training mean. A click on a name hides it, a double click shows it alone.</p>",
        curves,
        f"<details><summary>{escape(folded.title)}</summary>{table_html(folded)}</details>",
        f"<details><summary>Runs</summary>{_runs(groups)}</details>",
    ]
    return document(title, parts)


def document(title: str, parts: Iterable[str], style: str = "") -> str:
    """Parts of HTML, the empty ones left out, as a page of this style with some more."""
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    body = "\n".join(part for part in parts if part)
    content = f"<head>{head}<style>{STYLE}{style}</style></head><body><main>\n{body}\n</main></body>"
    return f'<!doctype html>\n<html lang="en">{content}</html>\n'


def _caveats(warnings: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(text)}</li>" for text in warnings)
    return f'<div class="caveats"><strong>Before you compare</strong><ul>{items}</ul></div>' if warnings else ""


def table_html(table: Table) -> str:
    """The table; all text is escaped."""
    head = "".join(f"<th>{escape(heading)}</th>" for heading in table.columns)
    rows = []
    for section in table.sections:
        if section.title:
            rows.append(f'<tr class="section"><td colspan="{len(table.columns)}">{escape(section.title)}</td></tr>')
        for row, texts in enumerate(section.rows):
            cells = [_cell(text, (row, column) in section.lowest) for column, text in enumerate(texts)]
            rows.append(f"<tr>{''.join(cells)}</tr>")
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _cell(text: str, is_lowest: bool) -> str:
    tag = '<td class="lowest">' if is_lowest else "<td>"
    return f"{tag}{escape(text)}</td>"


def _runs(groups: Sequence[Group]) -> str:
    named = [f"{group.label}: {run.path}" for group in groups for run in group.runs]
    return f"<ul>{''.join(f'<li>{escape(text)}</li>' for text in named)}</ul>"
