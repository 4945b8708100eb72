import math

import pytest

from coopmap.report.numbers import DASH, Interval, Spread, duration, error_size, fixed, percent, signed, significant

four = significant(4)


def test_mean_and_sample_standard_deviation() -> None:
    spread = Spread((1.0, 2.0, 6.0))
    assert spread.mean == 3.0
    assert spread.std == pytest.approx(7**0.5)  # (4 + 1 + 9) / 2
    assert spread.text(four) == "3 ± 2.6"
    assert spread.scaled(100).text(four) == "300 ± 265"
    assert Spread((2.5,)).std is None
    assert (Spread((2.5, math.inf)).std, Spread((2.5, math.inf)).text(four)) == (None, "+inf")
    assert Spread((2.5, math.nan)).text(four) == "NaN"
    assert Spread((2.5,)).text(four) == "2.5"
    assert Spread((2.0, 2.0)).text(four) == "2 ± 0"
    assert Spread((2.0, 2.0), exact=True).text(four) == "2"


@pytest.mark.parametrize(
    ("value", "text"), [(12345.6, "12346"), (0.012345, "0.01235"), (8.0, "8"), (-3.14159, "-3.142")]
)
def test_numbers_have_no_exponent(value: float, text: str) -> None:
    assert four(value) == text


@pytest.mark.parametrize("form", [four, fixed(2), percent, error_size])
def test_what_is_no_number_is_said(form) -> None:
    assert [form(value) for value in (math.nan, math.inf, -math.inf)] == ["NaN", "+inf", "-inf"]


def test_errors_have_three_digits_and_small_ones_two() -> None:
    assert [error_size(value) for value in (12.345, 0.12345, 0.012345, 0.0)] == ["12.3", "0.123", "0.012", "0"]


def test_intervals() -> None:
    assert Interval(6.583, (5.91, 7.28)).text(error_size) == "6.58 [5.91, 7.28]"
    assert Interval(6.583, (5.91, 7.28)).range(error_size) == f"5.91 {DASH} 7.28"
    assert Interval(6.583).text(error_size) == "6.58"
    assert Interval(None).text(error_size) == DASH
    assert Interval(1.0, (1.0, 1.0)).range(error_size) == ""


@pytest.mark.parametrize(("seconds", "text"), [(9.3, "9.3 s"), (119.0, "119 s"), (720, "12 min"), (12240, "3.4 h")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_signs_are_minus_signs_and_zero_has_none() -> None:
    assert [signed(1)(value) for value in (-1.26, -0.04, 0.04, 2.0)] == ["\u22121.3", "0.0", "0.0", "2.0"]
    assert [signed(0, plus=True)(value) for value in (-3.6, -0.4, 0.4, 3.6)] == ["\u22124", "0", "0", "+4"]
    assert signed(0)(float("nan")) == "NaN"
