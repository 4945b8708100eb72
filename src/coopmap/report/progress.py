"""How far long work is: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

T = TypeVar("T")

_LINE_SECONDS = 10.0
"""Between two lines, where output is no terminal."""


def with_progress(
    results: Iterable[T], doing: str, total: int, what: str, console: Console, count: Callable[[T], int] = lambda _: 1
) -> Iterator[T]:
    """Pass results through, and show how many are done and how long the rest takes.

    Args:
        results: as they become ready.
        doing: what is done, as the first word of a sentence: ``Rendering``.
        total: of all counts.
        what: they are, in the plural.
        console: to write to.
        count: how many a result stands for.
    """
    description = f"{doing} {total} {what}"
    if console.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
            task = progress.add_task(description, total=total)
            for result in results:
                progress.advance(task, count(result))
                yield result
        return
    started = shown_at = time.monotonic()
    console.print(description)
    done = 0
    for result in results:
        yield result
        done += count(result)
        now = time.monotonic()
        if now - shown_at >= _LINE_SECONDS:
            left = timedelta(seconds=round((now - started) * (total - done) / done))
            console.print(f"{done}/{total} {what.split()[0]}  {left} left")
            shown_at = now
