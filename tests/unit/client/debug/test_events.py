"""What events say of themselves."""

from __future__ import annotations

from dataclasses import replace

import pytest

from devicehost_client.debug import FieldValue, Operation, RegisterValue, Space, TracedAccess
from devicehost_client.debug.events import whole_bytes

LCR = RegisterValue("LCR", 0x83, (FieldValue("DLAB", 1), FieldValue("WLS", 3, "8 bits")))
ACCESS = TracedAccess(
    time_ns=0,
    took_ns=0,
    vcpu=0,
    space=Space.PIO,
    operation=Operation.WRITE,
    address=0x3FB,
    size=1,
    data=b"\x83",
    device="com1",
    offset=3,
    registers=(LCR,),
)


def test_a_register_prints_its_fields() -> None:
    assert str(LCR) == "LCR = 0x83 (DLAB=1, WLS=3 8 bits)"


def test_fields_that_are_0_are_left_out_unless_that_means_something() -> None:
    fields = (FieldValue("A", 0), FieldValue("B", 0, "off"), FieldValue("C", 0x1F))
    assert str(RegisterValue("R[3]", 0x1F, fields, reserved=0x80)) == (
        "R[3] = 0x1f (B=0 off, C=0x1f, reserved=0x80)"
    )
    assert str(RegisterValue("", 0)) == "no register = 0x00"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0x00"),
        (0xFF, "0xff"),
        (0x100, "0x0100"),
        (0x1_0000, "0x00010000"),
        (1 << 32, "0x0000000100000000"),
    ],
)
def test_a_value_has_the_digits_of_whole_bytes(value: int, text: str) -> None:
    assert whole_bytes(value) == text


def test_an_access_is_at_its_register_or_else_at_its_device_or_else_at_its_address() -> None:
    assert ACCESS.place == "com1.LCR"
    assert replace(ACCESS, registers=()).place == "com1+0x3"
    assert replace(ACCESS, registers=(LCR, LCR)).place == "com1+0x3"
    assert replace(ACCESS, registers=(), device="").place == "pio 0x3fb"


def test_a_string_access_has_a_value_for_each_operand() -> None:
    assert replace(ACCESS, size=2, data=b"\x01\x02\x03\x04").values == (0x201, 0x403)
    assert ACCESS.values == (0x83,)
    assert replace(ACCESS, data=b"").values == ()
