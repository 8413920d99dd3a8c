"""Numbers as people type them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devicehost_client.ctl.numeral import U64_MAX, number


@given(st.integers(0, U64_MAX))
def test_a_number_reads_the_same_in_decimal_and_in_hex(value: int) -> None:
    assert number(str(value)) == number(hex(value)) == number(f"{value:#X}") == value


@pytest.mark.parametrize(
    "text",
    ["", "-1", "+1", " 1", "1_000", "0b1", "0o7", "ff", "0x", "1K", "1.0", "٣", "1" * 5000],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="allowed: 0 to 0xffffffffffffffff, in decimal or 0x"):
        number(text)


def test_bounds_are_inclusive_and_named_in_the_error() -> None:
    assert number("1", least=1, most=4) == 1
    assert number("0x4", least=1, most=4) == 4
    for outside in ("0", "5"):
        with pytest.raises(ValueError, match=f"'{outside}' is not allowed; allowed: 1 to 0x4"):
            number(outside, least=1, most=4)
