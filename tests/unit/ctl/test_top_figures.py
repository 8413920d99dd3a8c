"""Numbers, bars and graphs of `top`, as text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devicehost_client.ctl.top.figures import (
    HEAT_LEVELS,
    bar,
    fit,
    fit_left,
    heat,
    mountain,
    rate_text,
    sparkline,
)


@pytest.mark.parametrize(
    ("rate", "text"),
    [
        (0, "0"),
        (0.01, "0.1"),
        (0.44, "0.4"),
        (9.94, "9.9"),
        (9.96, "10"),
        (123.4, "123"),
        (999.4, "999"),
        (999.6, "1.0k"),
        (12_345, "12.3k"),
        (123_456, "123k"),
        (999_600, "1.0M"),
        (7e9, "7.0G"),
    ],
)
def test_a_rate_is_shown_with_two_or_three_digits(rate: float, text: str) -> None:
    assert rate_text(rate) == text


@given(st.floats(0, 1e12))
def test_a_rate_never_needs_more_than_five_characters(rate: float) -> None:
    assert len(rate_text(rate)) <= 5


@pytest.mark.parametrize(
    ("part", "text"),
    [(0, "    "), (1, "━━━━"), (0.5, "━━  "), (0.0001, "╸   "), (0.63, "━━╸ "), (1.1, "━━━━")],
)
def test_a_bar_is_exact_to_half_a_cell_and_shows_what_is_not_nothing(
    part: float, text: str
) -> None:
    assert bar(part, 4) == text


def test_a_sparkline_tells_nothing_known_from_nothing_done() -> None:
    assert sparkline([None, 0.0, 0.001, 50.0, 100.0]) == " ▁▂▄▇"


def test_a_sparkline_of_an_idle_minute_is_flat() -> None:
    assert sparkline([0.0, 0.0]) == "▁▁"


def test_a_mountain_is_as_high_as_its_pane() -> None:
    assert mountain([None, 0.0, 50.0, 100.0], 2) == ["   █", " ▁██"]
    assert mountain([0.0], 1) == ["▁"]


@given(st.floats(1, 1e6), st.floats(1, 1e6))
def test_what_is_accessed_more_is_never_colder(one: float, other: float) -> None:
    hottest = max(one, other)
    assert (heat(one, hottest) <= heat(other, hottest)) or one > other
    assert heat(hottest, hottest) == HEAT_LEVELS


def test_what_is_accessed_at_all_is_not_cold() -> None:
    assert heat(0, 1000) == 0
    assert heat(0.001, 1000) == 1


def test_a_text_that_is_cut_says_so() -> None:
    assert fit("com1.LSR", 8) == "com1.LSR"
    assert fit("com1.LSR", 6) == "com1.…"
    assert fit_left("/run/vm1/devices.sock", 13) == "…devices.sock"
    assert fit("com1", 0) == fit_left("com1", 0) == ""
