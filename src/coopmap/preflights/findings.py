"""What was found, as one table."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from coopmap.report.tables import Column, Row, Section, Table, names

GIB = 2**30
FOUND_WIDTH = 50
"""Longer texts are broken, so that the table fits into 80 columns."""

Verdict = Literal["ok", "note", "WRONG", ""]


@dataclass(frozen=True)
class Finding:
    """A line of the table.

    Attributes:
        what: was looked at.
        found: there.
        verdict: ``note`` for what may be meant, ``WRONG`` for what will not work.
        remedy: what to change, if anything.
    """

    what: str
    found: str
    verdict: Verdict = "ok"
    remedy: str = ""


def findings_table(findings: Iterable[Finding]) -> Table:
    """All findings; remedies below."""
    findings = list(findings)
    rows = []
    for finding in findings:
        first, *rest = textwrap.wrap(finding.found, FOUND_WIDTH) or [""]
        rows.append(Row([finding.what, first, finding.verdict], marked=(2,) if finding.verdict == "WRONG" else ()))
        rows += [Row(["", line, ""]) for line in rest]
    columns = [names(), Column("found", align="left"), Column("verdict", align="left", missing="")]
    return Table("Preflight", columns, [Section(rows)], footnotes=remedies(findings))


def remedies(findings: Iterable[Finding]) -> list[str]:
    """What to change, each with what it is about."""
    return [f"{finding.what}: {finding.remedy}" for finding in findings if finding.remedy]


def wrong(findings: Iterable[Finding]) -> Sequence[Finding]:
    """Those that end a run."""
    return [finding for finding in findings if finding.verdict == "WRONG"]


def gib(size: float) -> str:
    """Bytes in GiB."""
    return f"{size / GIB:.1f}"
