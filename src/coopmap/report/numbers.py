"""Number formats, and numbers with a spread."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass

DASH = "\u2013"
"""Shown where there is no value; never a zero."""

MINUS = "\u2212"

Format = Callable[[float], str]


def significant(digits: int) -> Format:
    """A format with this many significant digits; no decimals from 10 ** (digits - 1) on; exponents only below 1e-4."""

    def text(value: float) -> str:
        return f"{value:.0f}" if abs(value) >= 10 ** (digits - 1) else f"{value:.{digits}g}"

    return _with_words(text)


def fixed(decimals: int) -> Format:
    """A format with this many decimals."""
    return _with_words(lambda value: f"{value:.{decimals}f}")


def signed(decimals: int, plus: bool = False) -> Format:
    """A format with this many decimals and a minus sign, on wish a plus sign too; zero has none."""

    def text(value: float) -> str:
        rounded = round(value, decimals) + 0.0  # without the sign of a negative zero
        return ("+" if plus and rounded > 0 else "") + f"{rounded:.{decimals}f}".replace("-", MINUS)

    return _with_words(text)


def percent(value: float) -> str:
    """A share in whole percent."""
    return _with_words(lambda share: f"{share:.0%}")(value)


def error_size(value: float) -> str:
    """Errors in meters and degrees: three significant digits, two below 0.1."""
    return significant(3 if abs(value) >= 0.1 else 2)(value)


def _with_words(text: Format) -> Format:
    return lambda value: text(value) if math.isfinite(value) else "NaN" if math.isnan(value) else f"{value:+}"


@dataclass(frozen=True)
class Spread:
    """Mean and spread over repeated measurements.

    Attributes:
        values: one per repetition.
        exact: whether the quantity is deterministic, so that a spread of zero is not shown.
    """

    values: tuple[float, ...]
    exact: bool = False

    @property
    def mean(self) -> float:
        """Arithmetic mean."""
        return statistics.fmean(self.values)

    @property
    def std(self) -> float | None:
        """Sample standard deviation (n - 1); ``None`` for a single value, and where one is not finite."""
        if len(self.values) < 2 or not all(map(math.isfinite, self.values)):
            return None
        return statistics.stdev(self.values)

    def scaled(self, factor: float, exact: bool = False) -> Spread:
        """In another unit."""
        return Spread(tuple(factor * value for value in self.values), exact)

    def text(self, form: Format) -> str:
        """Mean ± standard deviation, the latter with two significant digits."""
        if self.std is None or (self.std == 0 and self.exact):
            return form(self.mean)
        return f"{form(self.mean)} ± {significant(3 if self.std >= 100 else 2)(self.std)}"


@dataclass(frozen=True)
class Interval:
    """A value with the bounds of its confidence interval, if there is one."""

    value: float | None
    bounds: tuple[float, float] | None = None

    def range(self, form: Format) -> str:
        """The bounds; empty where undefined."""
        if self.value is None or self.bounds is None or self.bounds[0] == self.bounds[1]:
            return ""
        return f"{form(self.bounds[0])} {DASH} {form(self.bounds[1])}"

    def text(self, form: Format) -> str:
        """``6.58 [5.9, 7.3]``."""
        if self.value is None:
            return DASH
        bounds = "" if self.bounds is None else f" [{form(self.bounds[0])}, {form(self.bounds[1])}]"
        return form(self.value) + bounds


def duration(seconds: float) -> str:
    """``9.3 s``, ``12 min`` or ``3.4 h``."""
    for size, unit in ((3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"
