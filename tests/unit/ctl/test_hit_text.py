"""Hits of breakpoints as lines."""

from __future__ import annotations

from dataclasses import replace

import pytest

from devicehost_client.ctl.hit_text import breakpoint_text, ended_text, hit_lines
from devicehost_client.debug import (
    AccessFilter,
    Breakpoint,
    BreakpointAction,
    BreakpointEvent,
    DeviceState,
    FieldValue,
    Hit,
    HoldEnd,
    Interrupt,
    InterruptKind,
    Operation,
    RegisterValue,
    Space,
    TracedAccess,
)


def lcr(value: int) -> RegisterValue:
    fields = (FieldValue("DLAB", value >> 7), FieldValue("WLS", value & 3, "8 bits"))
    return RegisterValue("LCR", value, fields)


WRITE = TracedAccess(
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
    registers=(lcr(0x83),),
)
HIT = Hit(3, 1, WRITE, held=True, remaining_ms=29_900)


def test_a_write_that_is_held_shows_the_old_value_beside_the_new() -> None:
    assert hit_lines(HIT, [lcr(0x03)], 9.94) == [
        "hit 3, breakpoint 1: vCPU 0 writes 0x83 to com1.LCR; held before the device, 9.9 s remain",
        "  pio 0x3fb, 1 byte",
        "  LCR = 0x03 (WLS=3 8 bits) -> 0x83 (DLAB=1, WLS=3 8 bits)",
    ]


def test_a_write_to_a_register_that_can_not_be_told_shows_what_is_written() -> None:
    assert hit_lines(HIT, [], 1)[2] == "  LCR = 0x83 (DLAB=1, WLS=3 8 bits)"


def test_a_read_that_is_held_before_the_device_shows_what_is_there_now() -> None:
    read = replace(WRITE, operation=Operation.READ, data=b"", registers=(lcr(0),))
    first, _, register = hit_lines(replace(HIT, event=read), [lcr(0x03)], 1)
    assert "vCPU 0 reads com1.LCR; held before" in first
    assert register == "  LCR = 0x03 (WLS=3 8 bits)"


def test_a_read_that_is_held_after_the_device_shows_what_was_read() -> None:
    read = replace(WRITE, operation=Operation.READ)
    first, _, register = hit_lines(replace(HIT, event=read, after=True), [lcr(0x03)], 1)
    assert "vCPU 0 read 0x83 from com1.LCR; held after the device, 1.0 s remain" in first
    assert register == "  LCR = 0x83 (DLAB=1, WLS=3 8 bits), now 0x03 (WLS=3 8 bits)"


def test_a_step_is_told_from_a_breakpoint_and_a_failure_is_shown() -> None:
    step = replace(HIT, breakpoint_id=0, event=replace(WRITE, failure="DEVICE_FAULT"))
    lines = hit_lines(step, [], 1)
    assert lines[0].startswith("hit 3, step: ")
    assert lines[1] == "  pio 0x3fb, 1 byte, failed: DEVICE_FAULT"


def test_a_hit_that_holds_nothing_says_nothing_of_time() -> None:
    (first, *_) = hit_lines(replace(HIT, held=False), [], 0)
    assert first == "hit 3, breakpoint 1: vCPU 0 writes 0x83 to com1.LCR"


def test_an_access_by_hand_is_not_a_vcpus() -> None:
    by_hand = replace(WRITE, vcpu=0xFFFF_FFFF)
    assert ": tool writes" in hit_lines(replace(HIT, event=by_hand), [], 1)[0]
    assert ": somebody writes" in hit_lines(replace(HIT, event=replace(WRITE, vcpu=None)), [], 1)[0]


def test_an_interrupt_says_whose_it_is() -> None:
    event = Interrupt(0, 4, InterruptKind.ASSERTED, "com1")
    assert hit_lines(Hit(1, 2, event, held=False), [], 0) == [
        "hit 1, breakpoint 2: interrupt 4 asserted by com1"
    ]


def test_states_that_were_saved_are_named() -> None:
    states = {"com1": DeviceState("uart16550", {}), "rtc": DeviceState("mc146818", {})}
    hit = replace(HIT, held=False, states=states)
    assert hit_lines(hit, [], 0)[-1] == "  state of com1, rtc saved; -o json has it"


@pytest.mark.parametrize("why", HoldEnd)
def test_each_end_of_a_hold_is_told(why: HoldEnd) -> None:
    assert ended_text(3, why).startswith("hit 3: ")


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (Breakpoint(AccessFilter(registers=("a.R",)), id=1), "breakpoint 1: a.R"),
        (
            Breakpoint(AccessFilter(), after=True, matches=4, hits=2, id=2),
            "breakpoint 2: any access, after the device, matched 4, hit 2",
        ),
        (
            Breakpoint(event=BreakpointEvent.INTERRUPT, gsi=4, action=BreakpointAction.LOG, id=3),
            "breakpoint 3: interrupt 4, log",
        ),
        (Breakpoint(event=BreakpointEvent.FAULT, id=4), "breakpoint 4: fault of any access"),
    ],
)
def test_a_breakpoint_is_a_line(made: Breakpoint, text: str) -> None:
    assert breakpoint_text(made) == text
