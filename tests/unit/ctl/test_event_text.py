"""Events of a trace as lines."""

from __future__ import annotations

from dataclasses import replace

import pytest

from devicehost_client.ctl.event_text import COLUMNS, TraceText, duration, value_text
from devicehost_client.ctl.output import Style
from devicehost_client.debug import (
    FieldValue,
    Hotplugged,
    Interrupt,
    InterruptKind,
    Lost,
    Operation,
    RegisterValue,
    Space,
    TracedAccess,
    TracedDma,
    TraceEvent,
)

LCR = RegisterValue("LCR", 0x83, (FieldValue("DLAB", 1), FieldValue("WLS", 3, "8 bits")))
ACCESS = TracedAccess(
    time_ns=5_000_000_000,
    took_ns=1234,
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


def line(*events: TraceEvent | Lost) -> list[str]:
    """The cells of the last of some events, without their padding."""
    text = TraceText()
    for event in events:
        cells, _ = text.cells(event)
    assert len(cells) == len(COLUMNS)
    return [cell.strip() for cell in cells]


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0 ns"),
        (999, "999 ns"),
        (1000, "1.00 us"),
        (12_345, "12.3 us"),
        (123_456, "123 us"),
        (1_500_000, "1.50 ms"),
        (61_000_000_000, "61.0 s"),
    ],
)
def test_a_duration_has_three_digits_and_a_unit(nanoseconds: int, text: str) -> None:
    assert duration(nanoseconds) == text


def test_an_access_shows_when_who_where_what_and_its_fields() -> None:
    assert line(ACCESS) == [
        *("0.000000", "+0 ns", "0", "com1.LCR", "W", "0x83", "1.23 us"),
        "DLAB=1, WLS=3 8 bits",
    ]


def test_times_count_from_the_first_event_and_from_the_one_before() -> None:
    second = replace(ACCESS, time_ns=ACCESS.time_ns + 1_000_000)
    third = replace(ACCESS, time_ns=ACCESS.time_ns + 1_012_300)
    assert line(ACCESS, second, third)[:2] == ["0.001012", "+12.3 us"]
    assert line(ACCESS, third, second)[:2] == ["0.001000", "-12.3 us"]


def test_a_failed_access_shows_its_reason_and_stands_out() -> None:
    failed = replace(ACCESS, registers=(), device="", data=b"", failure="NO_DEVICE")
    cells, style = TraceText().cells(failed)
    assert (cells[3], cells[5], cells[7]) == ("pio 0x3fb", "", "NO_DEVICE")
    assert style is Style.BAD
    assert TraceText().cells(ACCESS)[1] is Style.PLAIN


def test_an_access_of_several_registers_shows_each_of_them() -> None:
    wide = replace(ACCESS, size=2, data=b"\x83\x01", registers=(LCR, RegisterValue("MCR", 1)))
    cells = line(wide)
    assert cells[3] == "com1+0x3"
    assert cells[5] == "0x0183"
    assert cells[7] == "LCR = 0x83 (DLAB=1, WLS=3 8 bits); MCR = 0x01"


def test_of_a_string_access_the_first_values_are_shown() -> None:
    assert value_text(replace(ACCESS, data=b"\x01\x02")) == "0x01 0x02"
    assert value_text(replace(ACCESS, data=bytes(10))).endswith("0x00 and 2 more")


@pytest.mark.parametrize(("vcpu", "text"), [(None, ""), (3, "3"), (0xFFFF_FFFF, "tool")])
def test_accesses_by_hand_are_told_from_those_of_vcpus(vcpu: int | None, text: str) -> None:
    assert line(replace(ACCESS, vcpu=vcpu))[2] == text


def test_what_is_lost_is_a_line_of_its_own_that_leaves_times_alone() -> None:
    cells, style = TraceText().cells(Lost(17))
    assert "17 lost" in cells
    assert style is Style.ODD
    assert line(ACCESS, Lost(1), replace(ACCESS, time_ns=ACCESS.time_ns + 10))[1] == "+10 ns"


def test_interrupts_dma_and_devices_that_come_and_go_are_shown() -> None:
    raised = Interrupt(0, 4, InterruptKind.ASSERTED, "com1")
    assert line(raised)[3:] == ["irq 4", "", "asserted", "", "com1"]
    dma = TracedDma(0, "fw", Operation.READ, 0x1000, 100, b"\x01\x02" * 32)
    assert line(dma)[3:6] == ["dma 0x1000", "R", "100 bytes"]
    assert line(dma)[7] == "fw: " + " ".join(["01", "02"] * 8)
    assert line(Hotplugged(0, "new", "scratch"))[3:] == ["new", "", "plugged", "", "scratch"]
    assert line(Hotplugged(0, "new", ""))[5] == "unplugged"
