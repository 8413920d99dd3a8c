"""How commands put numbers into words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devicehost_client.ctl.commands.health import duration_text
from devicehost_client.ctl.commands.resource import in_units

UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (510, "510"),
        (1 << 16, "64K"),
        ((1 << 16) - 1, "65535"),
        (3 << 30, "3G"),
        (1 << 50, "1024T"),
    ],
)
def test_a_count_is_shown_with_the_largest_unit_that_divides_it(count: int, text: str) -> None:
    assert in_units(count) == text


@given(st.integers(0, (1 << 64) - 1))
def test_a_count_with_a_unit_is_exact(count: int) -> None:
    text = in_units(count)
    unit = UNITS.get(text[-1], 1)
    assert int(text.rstrip("KMGT")) * unit == count


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "00:00:00"), (61, "00:01:01"), (86399, "23:59:59"), (90061, "1d 01:01:01")],
)
def test_a_duration_is_a_clock_and_days(seconds: int, text: str) -> None:
    assert duration_text(seconds) == text
