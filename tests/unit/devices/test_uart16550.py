"""The serial port: the data sheet's registers and interrupts, and no byte lost on the way."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from devicehost_server.devices.chardev import DEFAULT_CAPACITY
from devicehost_server.devices.config import parse
from devicehost_server.devices.pc16550d import Pc16550d
from devicehost_server.devices.pc16550d_registers import (
    DIVISOR_AT_POWER_ON,
    DLL,
    DLM,
    FCR,
    FCR_CLEAR_RX,
    FCR_CLEAR_TX,
    FCR_ENABLE,
    FIFO_DEPTH,
    IER,
    IER_EDSSI,
    IER_ELSI,
    IER_ERBFI,
    IER_ETBEI,
    IIR,
    IIR_DATA,
    IIR_FIFOS,
    IIR_LINE_STATUS,
    IIR_MODEM_STATUS,
    IIR_NONE,
    IIR_THRE,
    IIR_TIMEOUT,
    LCR,
    LCR_BREAK,
    LCR_DLAB,
    LSR,
    LSR_BI,
    LSR_CHARACTER_ERRORS,
    LSR_DR,
    LSR_FIFO_ERROR,
    LSR_OE,
    LSR_TEMT,
    LSR_THRE,
    MCR,
    MCR_DTR,
    MCR_LOOP,
    MCR_OUT1,
    MCR_OUT2,
    MCR_RTS,
    MSR,
    MSR_CTS,
    MSR_DCD,
    MSR_DCTS,
    MSR_DDCD,
    MSR_DDSR,
    MSR_DELTAS,
    MSR_DSR,
    MSR_RI,
    MSR_TERI,
    RBR,
    SCR,
    THR,
)
from devicehost_server.devices.uart16550 import Config, Uart16550
from devicehost_server.model.errors import BadConfig, BadConstraint, BadState
from devicehost_server.model.interrupts import InterruptEvent, InterruptKind
from devicehost_server.model.resources import (
    LegacyIrqConstraint,
    MmioAddressConstraint,
    PioAddressConstraint,
)
from devicelab import Lab, mmio_in, mmio_out, pio_in, pio_out

DEADLINE_S = 20.0
COM1, IRQ = 0x3F8, 4
MMIO_BASE = 0x1000_0000
LINES_UP = MSR_CTS | MSR_DSR | MSR_DCD
IDLE = LSR_THRE | LSR_TEMT
LOOP_WITH_OUT2 = MCR_LOOP | MCR_OUT2
TIMEOUT_NS = 4 * 10 * 1_000_000_000 // 9600  # four characters of 8N1


class Maker(Protocol):
    def __call__(self, lab: Lab, **config: str) -> Uart16550: ...


def made(lab: Lab, **config: str) -> Uart16550:
    return lab.host(Uart16550(parse("uart16550", Config, config)))


@pytest.fixture(name="make")
def make_fixture() -> Iterator[Maker]:
    with capture_logs(), contextlib.ExitStack() as stack:

        def make(lab: Lab, **config: str) -> Uart16550:
            uart = made(lab, **config)
            stack.callback(uart.close)
            return uart

        yield make


@pytest.fixture(name="lab")
def lab_fixture() -> Lab:
    return Lab()


@pytest.fixture(name="uart")
def uart_fixture(lab: Lab, make: Maker) -> Uart16550:
    """COM1 of a PC, with 8N1 and nobody at the other end: what it sends is gone."""
    uart = make(lab)
    put(uart, LCR, 0x03)
    return uart


def put(uart: Uart16550, register: int, value: int) -> None:
    with uart.lock:  # as the bus does
        pio_out(uart, COM1 + register, value)


def get(uart: Uart16550, register: int) -> int:
    with uart.lock:
        return pio_in(uart, COM1 + register)


def iir(uart: Uart16550) -> int:
    """The interrupt, without what IIR says of the FIFOs."""
    return get(uart, IIR) & ~IIR_FIFOS


def loop(uart: Uart16550, *characters: int) -> None:
    """Have `characters` received, by sending them in loopback."""
    mcr = get(uart, MCR)
    put(uart, MCR, mcr | MCR_LOOP)
    for character in characters:
        put(uart, THR, character)
    put(uart, MCR, mcr)


def until(condition: Callable[[], object], what: str = "the condition") -> None:
    give_up_at = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < give_up_at, f"{what} did not come to hold"
        time.sleep(0.001)


def pattern(size: int) -> bytes:
    """Bytes among which a lost, doubled or swapped one shows."""
    return b"".join(b"%08x\n" % number for number in range(size // 9 + 1))[:size]


def connect(path: Path) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(DEADLINE_S)
    client.connect(str(path))
    return client


def receive_exactly(client: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = client.recv(size - len(data))
        assert piece, f"the stream ended after {len(data)} of {size} bytes"
        data += piece
    return bytes(data)


# What it is, and where.


def test_it_is_com1_unless_told_otherwise() -> None:
    uart = Uart16550(parse("uart16550", Config, {}))
    assert uart.get_resource_constraints() == [
        PioAddressConstraint.exact(0x3F8, 8),
        LegacyIrqConstraint(4),
    ]


def test_it_can_be_anywhere_in_memory_and_without_an_interrupt() -> None:
    config = {"bus": "mmio", "base": "none", "reg_shift": "2", "irq": "none"}
    uart = Uart16550(parse("uart16550", Config, config))
    assert uart.get_resource_constraints() == [MmioAddressConstraint(size=32)]


def test_a_bad_chardev_is_refused_before_there_are_resources() -> None:
    with pytest.raises(BadConfig, match="'printer'"):
        Uart16550(parse("uart16550", Config, {"chardev": "printer"}))


def test_a_port_that_does_not_exist_is_refused() -> None:
    with pytest.raises(BadConstraint, match="0x12345"):
        Uart16550(Config(base=0x12345)).get_resource_constraints()


@pytest.mark.parametrize(
    ("register", "value"),
    [(IER, 0), (IIR, IIR_NONE), (LCR, 0), (MCR, 0), (LSR, IDLE), (MSR, LINES_UP), (SCR, 0)],
)
def test_registers_after_power_on(make: Maker, register: int, value: int) -> None:
    assert get(make(Lab()), register) == value


@pytest.mark.parametrize(
    ("register", "readable"), [(IER, 0x0F), (LCR, 0xFF), (MCR, 0x1F), (SCR, 0xFF)]
)
def test_a_register_reads_as_written_but_for_bits_that_it_has_not(
    uart: Uart16550, register: int, readable: int
) -> None:
    put(uart, register, 0xFF)
    assert get(uart, register) == readable
    put(uart, register, 0x00)
    assert get(uart, register) == 0


def test_status_registers_ignore_writes(uart: Uart16550) -> None:
    put(uart, LSR, 0xFF)
    put(uart, MSR, 0xFF)
    assert get(uart, LSR) == IDLE
    assert get(uart, MSR) == LINES_UP


def test_dlab_shows_the_divisor_in_place_of_data_and_ier(uart: Uart16550) -> None:
    put(uart, IER, IER_ERBFI)
    put(uart, LCR, LCR_DLAB)
    assert get(uart, DLM) << 8 | get(uart, DLL) == DIVISOR_AT_POWER_ON
    put(uart, DLL, 0x34)
    put(uart, DLM, 0x12)
    assert (get(uart, DLL), get(uart, DLM)) == (0x34, 0x12)
    put(uart, LCR, 0x03)
    assert get(uart, IER) == IER_ERBFI
    assert get(uart, LSR) == IDLE


def test_a_wide_access_is_one_byte_after_the_other_from_the_lowest_port(uart: Uart16550) -> None:
    pio_out(uart, COM1 + LCR, MCR_DTR << 8 | 0x83, size=2)
    assert get(uart, MCR) == MCR_DTR
    pio_out(uart, COM1 + DLL, 0x0102, size=2)
    assert pio_in(uart, COM1 + DLL, size=4) == 0x83 << 24 | IIR_NONE << 16 | 0x0102


def test_registers_in_memory_stand_a_stride_apart(lab: Lab, make: Maker) -> None:
    uart = make(lab, bus="mmio", base=hex(MMIO_BASE), reg_shift="2", irq="10")
    mmio_out(uart, MMIO_BASE + (SCR << 2), 0xFFFF_FF5A, size=4)
    assert mmio_in(uart, MMIO_BASE + (SCR << 2), size=4) == 0x5A
    assert mmio_in(uart, MMIO_BASE + (SCR << 2), size=1) == 0x5A
    assert mmio_in(uart, MMIO_BASE + (SCR << 2) + 1, size=1) == 0
    assert mmio_in(uart, MMIO_BASE + (LSR << 2), size=8) == LINES_UP << 32 | IDLE


# Who finds it.


def test_seabios_finds_it(uart: Uart16550) -> None:
    put(uart, IER, IER_ETBEI)
    assert get(uart, IER) == IER_ETBEI
    assert get(uart, IIR) & 0x3F == IIR_THRE


def test_linux_finds_a_16550a_and_nothing_more(uart: Uart16550) -> None:
    """The questions of its 8250 driver's autoconfig, in its order."""
    put(uart, IER, 0)
    assert get(uart, IER) & 0x0F == 0
    put(uart, IER, 0x0F)
    assert get(uart, IER) & 0x0F == 0x0F
    put(uart, IER, 0)
    put(uart, MCR, MCR_LOOP | MCR_OUT2 | MCR_RTS)
    assert get(uart, MSR) & 0xF0 == MSR_DCD | MSR_CTS
    put(uart, MCR, 0)
    put(uart, LCR, 0)
    put(uart, FCR, FCR_ENABLE)
    assert get(uart, IIR) >> 6 == 3  # FIFOs that work
    for lcr in (LCR_DLAB, 0xBF):  # an enhanced feature register would read as zero
        put(uart, LCR, lcr)
        assert get(uart, IIR) != 0
    for lcr in (0, LCR_DLAB):  # a 16750 would say 7 with DLAB
        put(uart, LCR, lcr)
        put(uart, FCR, FCR_ENABLE | 0x20)
        assert get(uart, IIR) >> 5 == 6
    put(uart, LCR, 0xE0)  # a SuperIO chip would show MCR_LOOP in its bank 2
    assert not get(uart, IIR) & MCR_LOOP
    put(uart, LCR, 0)
    put(uart, IER, 0x40)  # an XScale would keep it
    assert get(uart, IER) == 0
    put(uart, FCR, FCR_ENABLE | FCR_CLEAR_RX | FCR_CLEAR_TX)
    put(uart, MCR, MCR_LOOP)
    for character in range(256):
        put(uart, THR, character)
    count = 0
    while get(uart, LSR) & LSR_DR:
        assert get(uart, RBR) == count
        count += 1
    assert count == 16


def test_linux_sees_that_enabling_the_thre_interrupt_causes_it_each_time(uart: Uart16550) -> None:
    for _ in range(2):
        put(uart, IER, IER_ETBEI)
        assert iir(uart) == IIR_THRE
        put(uart, IER, 0)


# Interrupts: the data sheet's table IV, one row a cause.


def cause_overrun(uart: Uart16550) -> None:
    loop(uart, *range(FIFO_DEPTH + 1))


def cause_break(uart: Uart16550) -> None:
    uart.receive_break()


def cause_data(uart: Uart16550) -> None:
    loop(uart, 0x41)


def cause_modem_status(uart: Uart16550) -> None:
    put(uart, MCR, MCR_LOOP)  # CTS, DSR and DCD fall
    put(uart, MCR, MCR_OUT2)


def cause_nothing(_uart: Uart16550) -> None:
    """Enabling is enough."""


@dataclass(frozen=True)
class Row:
    """What enables it, what causes it, what IIR says, and what is read to reset it."""

    ier: int
    cause: Callable[[Uart16550], None]
    interrupt: int
    reset_by: int


TABLE_IV = {
    "overrun": Row(IER_ELSI, cause_overrun, IIR_LINE_STATUS, LSR),
    "break": Row(IER_ELSI, cause_break, IIR_LINE_STATUS, LSR),
    "data": Row(IER_ERBFI, cause_data, IIR_DATA, RBR),
    "thre": Row(IER_ETBEI, cause_nothing, IIR_THRE, IIR),
    "modem-status": Row(IER_EDSSI, cause_modem_status, IIR_MODEM_STATUS, MSR),
}
EACH_ROW = pytest.mark.parametrize("row", TABLE_IV.values(), ids=TABLE_IV)


def prepared(uart: Uart16550, ier: int) -> Uart16550:
    put(uart, MCR, MCR_OUT2)
    put(uart, FCR, FCR_ENABLE)
    get(uart, MSR)
    put(uart, IER, ier)
    return uart


@EACH_ROW
def test_a_cause_interrupts_until_its_register_is_read(uart: Uart16550, lab: Lab, row: Row) -> None:
    prepared(uart, row.ier)
    row.cause(uart)
    assert lab.asserted(IRQ)
    assert iir(uart) == row.interrupt
    if row.reset_by != IIR:  # this read has reset it
        for register in {LSR, RBR, IIR, MSR} - {row.reset_by}:
            get(uart, register)
        assert lab.asserted(IRQ)
        get(uart, row.reset_by)
    assert not lab.asserted(IRQ)
    assert iir(uart) == IIR_NONE


@EACH_ROW
def test_a_cause_that_is_not_enabled_does_not_interrupt_until_it_is(
    uart: Uart16550, lab: Lab, row: Row
) -> None:
    prepared(uart, 0)
    row.cause(uart)
    assert not lab.asserted(IRQ)
    assert iir(uart) == IIR_NONE
    put(uart, IER, row.ier)
    assert lab.asserted(IRQ)


def test_interrupts_come_in_the_order_of_their_priority(uart: Uart16550, lab: Lab) -> None:
    prepared(uart, 0x0F)
    cause_modem_status(uart)
    cause_data(uart)
    cause_break(uart)
    get(uart, RBR)  # the break comes to the top, after this character
    cause_data(uart)
    assert iir(uart) == IIR_LINE_STATUS
    get(uart, LSR)
    assert iir(uart) == IIR_DATA
    get(uart, RBR)
    get(uart, RBR)
    assert iir(uart) == IIR_THRE
    assert iir(uart) == IIR_MODEM_STATUS
    get(uart, MSR)
    assert iir(uart) == IIR_NONE
    assert not lab.asserted(IRQ)


def test_a_read_of_iir_clears_the_thre_interrupt_only_if_it_is_the_one_reported(
    uart: Uart16550,
) -> None:
    prepared(uart, IER_ETBEI | IER_ERBFI)
    cause_data(uart)
    assert iir(uart) == IIR_DATA
    get(uart, RBR)
    assert iir(uart) == IIR_THRE
    assert iir(uart) == IIR_NONE


def test_enabling_an_enabled_thre_interrupt_again_does_not_cause_it(uart: Uart16550) -> None:
    prepared(uart, IER_ETBEI)
    assert iir(uart) == IIR_THRE
    put(uart, IER, IER_ETBEI)
    assert iir(uart) == IIR_NONE


def test_enabling_the_thre_interrupt_while_characters_wait_does_not_cause_it() -> None:
    chip = Pc16550d()
    chip.write(THR, 0x41)
    chip.write(IER, IER_ETBEI)
    assert chip.interrupt() == IIR_NONE
    chip.transmit(len)
    assert chip.interrupt() == IIR_THRE


def test_clearing_an_empty_transmitter_does_not_interrupt(uart: Uart16550) -> None:
    prepared(uart, IER_ETBEI)
    assert iir(uart) == IIR_THRE
    put(uart, FCR, FCR_ENABLE | FCR_CLEAR_TX)
    assert iir(uart) == IIR_NONE


def test_a_character_written_makes_a_new_edge_of_the_thre_interrupt(
    uart: Uart16550, lab: Lab
) -> None:
    prepared(uart, IER_ETBEI)
    events: list[InterruptEvent] = []
    lab.interrupts.subscribe(events.append)
    put(uart, THR, 0x41)  # by a handler that knows the cause, and doesn't read IIR
    assert [event.kind for event in events] == [InterruptKind.DEASSERTED, InterruptKind.ASSERTED]


@pytest.mark.parametrize("enable", [0, FCR_ENABLE])
def test_a_change_of_fifo_mode_interrupts_at_once(uart: Uart16550, enable: int) -> None:
    put(uart, FCR, FCR_ENABLE ^ enable)
    put(uart, IER, IER_ETBEI)
    assert iir(uart) == IIR_THRE
    put(uart, FCR, enable)
    assert iir(uart) == IIR_THRE


@pytest.mark.parametrize(("bits", "level"), [(0x00, 1), (0x40, 4), (0x80, 8), (0xC0, 14)])
def test_data_interrupts_at_the_trigger_level_and_no_longer_below_it(
    uart: Uart16550, lab: Lab, bits: int, level: int
) -> None:
    prepared(uart, IER_ERBFI)
    put(uart, FCR, FCR_ENABLE | bits)
    for _ in range(level - 1):
        loop(uart, 0x41)
        assert not lab.asserted(IRQ)
    loop(uart, 0x42)
    assert lab.asserted(IRQ)
    assert get(uart, IIR) == IIR_FIFOS | IIR_DATA
    get(uart, RBR)
    assert not lab.asserted(IRQ)


def test_without_fifos_each_character_interrupts(uart: Uart16550, lab: Lab) -> None:
    put(uart, MCR, MCR_OUT2)
    put(uart, IER, IER_ERBFI)
    put(uart, FCR, 0xC0)  # no trigger level without the enable bit
    loop(uart, 0x41)
    assert lab.asserted(IRQ)
    assert get(uart, IIR) == IIR_DATA


@pytest.mark.parametrize(("mcr", "reaches"), [(0, False), (MCR_OUT2, True), (0x1F, False)])
def test_out2_gates_the_interrupt_of_a_pc_and_loopback_switches_it_off(
    uart: Uart16550, lab: Lab, mcr: int, *, reaches: bool
) -> None:
    put(uart, MCR, mcr)
    put(uart, IER, IER_ETBEI)
    assert lab.asserted(IRQ) is reaches
    assert iir(uart) == IIR_THRE


def test_in_memory_there_is_no_gate(lab: Lab, make: Maker) -> None:
    uart = make(lab, bus="mmio", base=hex(MMIO_BASE), irq="10")
    mmio_out(uart, MMIO_BASE + IER, IER_ETBEI, size=1)
    assert lab.asserted(10)


def test_without_an_interrupt_it_can_be_polled(make: Maker) -> None:
    uart = make(Lab(), irq="none")
    put(uart, IER, IER_ETBEI)
    assert iir(uart) == IIR_THRE


# The time-out of the receiver FIFO.


@pytest.fixture(name="waiting")
def waiting_fixture(uart: Uart16550) -> Uart16550:
    """A character in the FIFO, below the trigger level."""
    prepared(uart, IER_ERBFI)
    put(uart, FCR, FCR_ENABLE | 0x80)
    loop(uart, 0x41, 0x42)
    return uart


def test_a_time_out_interrupts_after_four_characters_and_ends_with_a_read(
    waiting: Uart16550, lab: Lab
) -> None:
    lab.clock.advance(TIMEOUT_NS - 1)
    assert not lab.asserted(IRQ)
    lab.clock.advance(1)
    assert lab.asserted(IRQ)
    assert get(waiting, IIR) == IIR_FIFOS | IIR_TIMEOUT
    get(waiting, LSR)
    assert get(waiting, RBR) == 0x41
    assert not lab.asserted(IRQ)
    lab.clock.advance(TIMEOUT_NS)
    assert iir(waiting) == IIR_TIMEOUT  # there is another character
    assert get(waiting, RBR) == 0x42
    lab.clock.advance(2 * TIMEOUT_NS)
    assert iir(waiting) == IIR_NONE


@pytest.mark.parametrize("activity", ["read", "arrival"])
def test_a_time_out_begins_anew_with_each_character_read_or_received(
    waiting: Uart16550, lab: Lab, activity: str
) -> None:
    lab.clock.advance(TIMEOUT_NS * 3 // 4)
    if activity == "read":
        get(waiting, RBR)
    else:
        loop(waiting, 0x43)
    lab.clock.advance(TIMEOUT_NS - 1)
    assert not lab.asserted(IRQ)
    lab.clock.advance(1)
    assert lab.asserted(IRQ)


@pytest.mark.parametrize(
    ("lcr", "half_bits"),
    [(0x03, 20), (0x00, 14), (0x04, 15), (0x07, 22), (0x0B, 22), (0x1F, 24), (0x02, 18)],
)
def test_the_time_out_follows_the_format_of_a_character(
    uart: Uart16550, lab: Lab, lcr: int, half_bits: int
) -> None:
    prepared(uart, IER_ERBFI)
    put(uart, FCR, FCR_ENABLE | 0x80)
    put(uart, LCR, LCR_DLAB)
    put(uart, DLL, 3)
    put(uart, LCR, lcr)
    loop(uart, 0x41)
    duration = 4 * half_bits * 8 * 3 * 1_000_000_000 // 1_843_200
    lab.clock.advance(duration - 1)
    assert not lab.asserted(IRQ)
    lab.clock.advance(1)
    assert lab.asserted(IRQ)


def test_a_shorter_character_time_counts_from_the_next_character_on(
    waiting: Uart16550, lab: Lab
) -> None:
    put(waiting, LCR, LCR_DLAB)
    put(waiting, DLL, 1)
    put(waiting, LCR, 0x03)
    loop(waiting, 0x43)
    lab.clock.advance(TIMEOUT_NS // DIVISOR_AT_POWER_ON + 1)
    assert lab.asserted(IRQ)


def test_a_divisor_of_zero_does_no_harm(waiting: Uart16550, lab: Lab) -> None:
    put(waiting, LCR, LCR_DLAB)
    put(waiting, DLL, 0)
    put(waiting, LCR, 0x03)
    loop(waiting, 0x43)
    lab.clock.advance(TIMEOUT_NS)
    assert lab.asserted(IRQ)


def test_characters_that_are_fetched_in_time_do_not_time_out(waiting: Uart16550, lab: Lab) -> None:
    get(waiting, RBR)
    get(waiting, RBR)
    assert waiting.save()["timeout_in_ns"] == 0
    lab.clock.advance(2 * TIMEOUT_NS)
    assert iir(waiting) == IIR_NONE


@pytest.mark.parametrize("fcr", [FCR_ENABLE | FCR_CLEAR_RX, 0])
def test_a_cleared_fifo_does_not_time_out(waiting: Uart16550, lab: Lab, fcr: int) -> None:
    lab.clock.advance(TIMEOUT_NS)
    assert lab.asserted(IRQ)
    put(waiting, FCR, fcr)
    assert not lab.asserted(IRQ)
    lab.clock.advance(2 * TIMEOUT_NS)
    assert not lab.asserted(IRQ)
    assert not get(waiting, LSR) & LSR_DR


def test_without_fifos_nothing_times_out(uart: Uart16550, lab: Lab) -> None:
    prepared(uart, IER_ERBFI)
    put(uart, FCR, 0)
    loop(uart, 0x41)
    lab.clock.advance(2 * TIMEOUT_NS)
    assert get(uart, IIR) == IIR_DATA


# FIFOs and errors.


def test_characters_are_read_in_order_and_the_last_one_stays(uart: Uart16550) -> None:
    put(uart, FCR, FCR_ENABLE)
    loop(uart, 1, 2, 3)
    assert [get(uart, RBR) for _ in range(4)] == [1, 2, 3, 3]
    assert get(uart, LSR) == IDLE


def test_an_overrun_fifo_keeps_its_characters(uart: Uart16550) -> None:
    put(uart, FCR, FCR_ENABLE)
    loop(uart, *range(FIFO_DEPTH + 2))
    assert get(uart, LSR) == IDLE | LSR_DR | LSR_OE
    assert get(uart, LSR) == IDLE | LSR_DR
    assert [get(uart, RBR) for _ in range(FIFO_DEPTH)] == list(range(FIFO_DEPTH))
    assert uart.counters().overruns == 2


def test_an_overrun_buffer_register_has_the_new_character(uart: Uart16550) -> None:
    loop(uart, 0x41, 0x42)
    assert get(uart, LSR) == IDLE | LSR_DR | LSR_OE
    assert get(uart, RBR) == 0x42
    assert not get(uart, LSR) & LSR_DR


@pytest.mark.parametrize("fcr", [FCR_ENABLE | FCR_CLEAR_RX, FCR_ENABLE | FCR_CLEAR_TX | 0xC0, 0])
def test_fcr_clears_the_receiver_when_told_to_or_when_fifos_are_switched(
    uart: Uart16550, fcr: int
) -> None:
    put(uart, FCR, FCR_ENABLE)
    loop(uart, 1, 2)
    put(uart, FCR, fcr)
    assert bool(get(uart, LSR) & LSR_DR) is bool(fcr & FCR_CLEAR_TX)
    assert get(uart, IIR) >> 6 == (3 if fcr else 0)


def test_without_the_enable_bit_fcr_clears_nothing(uart: Uart16550) -> None:
    loop(uart, 0x41)
    put(uart, FCR, FCR_CLEAR_RX)
    assert get(uart, LSR) & LSR_DR


def test_a_break_is_a_zero_whose_error_shows_when_it_is_at_the_top(uart: Uart16550) -> None:
    put(uart, FCR, FCR_ENABLE)
    loop(uart, 0x41)
    uart.receive_break()
    loop(uart, 0x42)
    assert get(uart, LSR) == IDLE | LSR_DR | LSR_FIFO_ERROR
    assert get(uart, RBR) == 0x41
    assert get(uart, LSR) == IDLE | LSR_DR | LSR_FIFO_ERROR | LSR_BI
    assert get(uart, LSR) == IDLE | LSR_DR
    assert [get(uart, RBR), get(uart, RBR)] == [0, 0x42]


def test_the_fifo_error_bit_stays_while_a_later_character_has_one(uart: Uart16550) -> None:
    put(uart, FCR, FCR_ENABLE)
    uart.receive_break()
    loop(uart, 0x41)
    uart.receive_break()
    assert get(uart, LSR) & (LSR_BI | LSR_FIFO_ERROR) == LSR_BI | LSR_FIFO_ERROR
    assert get(uart, LSR) & (LSR_BI | LSR_FIFO_ERROR) == LSR_FIFO_ERROR
    get(uart, RBR)
    get(uart, RBR)
    get(uart, LSR)
    assert not get(uart, LSR) & LSR_FIFO_ERROR


def test_without_fifos_a_break_shows_without_the_fifo_error_bit(uart: Uart16550) -> None:
    uart.receive_break()
    assert get(uart, LSR) == IDLE | LSR_DR | LSR_BI
    assert get(uart, RBR) == 0


def test_a_break_is_not_heard_in_loopback(uart: Uart16550) -> None:
    put(uart, MCR, MCR_LOOP)
    uart.receive_break()
    assert get(uart, LSR) == IDLE


# Loopback.


def test_loopback_receives_what_is_sent_and_the_peer_gets_nothing(
    lab: Lab, make: Maker, tmp_path: Path
) -> None:
    uart = make(lab, chardev=f"file:{tmp_path}/out")
    put(uart, MCR, MCR_LOOP)
    put(uart, THR, 0x41)
    assert get(uart, LSR) == IDLE | LSR_DR
    assert get(uart, RBR) == 0x41
    put(uart, MCR, 0)
    put(uart, THR, 0x42)
    uart.close()
    assert (tmp_path / "out").read_bytes() == b"B"


def test_loopback_hears_nothing_from_outside(lab: Lab, make: Maker, tmp_path: Path) -> None:
    uart = make(lab, chardev=f"unix:{tmp_path}/s")
    put(uart, MCR, MCR_LOOP)
    with connect(tmp_path / "s") as client:
        client.sendall(b"x")
        until(lambda: uart._stream.pending)
        assert not get(uart, LSR) & LSR_DR
        put(uart, MCR, 0)
        assert get(uart, RBR) == ord("x")


@pytest.mark.parametrize(
    ("output", "modem_input"),
    [(MCR_DTR, MSR_DSR), (MCR_RTS, MSR_CTS), (MCR_OUT1, MSR_RI), (MCR_OUT2, MSR_DCD)],
)
def test_loopback_connects_the_modem_outputs_to_the_inputs(
    uart: Uart16550, output: int, modem_input: int
) -> None:
    put(uart, MCR, MCR_LOOP | output)
    assert get(uart, MSR) & 0xF0 == modem_input


@pytest.mark.parametrize(
    ("output", "rise", "fall"),
    [
        (MCR_DTR, MSR_DDSR, MSR_DDSR),
        (MCR_RTS, MSR_DCTS, MSR_DCTS),
        (MCR_OUT1, 0, MSR_TERI),  # only the trailing edge
        (MCR_OUT2, MSR_DDCD, MSR_DDCD),
    ],
)
def test_a_change_of_an_input_shows_once(
    uart: Uart16550, output: int, rise: int, fall: int
) -> None:
    put(uart, MCR, MCR_LOOP)
    get(uart, MSR)
    put(uart, MCR, MCR_LOOP | output)
    assert get(uart, MSR) & MSR_DELTAS == rise
    put(uart, MCR, MCR_LOOP)
    assert get(uart, MSR) & MSR_DELTAS == fall
    assert get(uart, MSR) & MSR_DELTAS == 0


def test_a_looped_break_is_received_once_and_silences_the_transmitter(uart: Uart16550) -> None:
    put(uart, FCR, FCR_ENABLE)
    put(uart, MCR, MCR_LOOP)
    put(uart, LCR, 0x03 | LCR_BREAK)
    put(uart, LCR, 0x03 | LCR_BREAK)
    put(uart, THR, 0x41)
    assert get(uart, LSR) == IDLE | LSR_DR | LSR_BI | LSR_FIFO_ERROR
    assert get(uart, RBR) == 0
    assert get(uart, LSR) == IDLE
    put(uart, LCR, 0x03)
    put(uart, THR, 0x42)
    assert get(uart, RBR) == 0x42
    put(uart, LCR, 0x03 | LCR_BREAK)
    assert get(uart, LSR) & LSR_BI


# With a peer.


def test_modem_lines_tell_whether_somebody_is_there(lab: Lab, make: Maker, tmp_path: Path) -> None:
    uart = prepared(make(lab, chardev=f"unix:{tmp_path}/s"), IER_EDSSI)
    assert get(uart, MSR) == 0
    with connect(tmp_path / "s"):
        until(lambda: lab.asserted(IRQ))
        assert iir(uart) == IIR_MODEM_STATUS
        assert get(uart, MSR) == LINES_UP | MSR_DCTS | MSR_DDSR | MSR_DDCD
        assert get(uart, MSR) == LINES_UP
        assert not lab.asserted(IRQ)
    until(lambda: lab.asserted(IRQ))
    assert get(uart, MSR) == MSR_DCTS | MSR_DDSR | MSR_DDCD


def test_input_interrupts_and_is_read(lab: Lab, make: Maker, tmp_path: Path) -> None:
    uart = prepared(make(lab, chardev=f"unix:{tmp_path}/s"), IER_ERBFI)
    with connect(tmp_path / "s") as client:
        client.sendall(b"k")
        until(lambda: lab.asserted(IRQ))
        assert iir(uart) == IIR_DATA
        assert get(uart, RBR) == ord("k")
        assert not lab.asserted(IRQ)


@pytest.mark.parametrize("fcr", [0, FCR_ENABLE, FCR_ENABLE | 0xC0])
def test_a_paste_arrives_whole_and_without_overruns(
    lab: Lab, make: Maker, tmp_path: Path, fcr: int
) -> None:
    uart = make(lab, chardev=f"unix:{tmp_path}/s")
    put(uart, FCR, fcr)
    data = pattern(100_000)
    with connect(tmp_path / "s") as client:
        sender = threading.Thread(target=client.sendall, args=(data,))
        sender.start()
        got = bytearray()
        give_up_at = time.monotonic() + DEADLINE_S
        while len(got) < len(data):
            assert time.monotonic() < give_up_at
            status = get(uart, LSR)
            assert not status & (LSR_OE | LSR_CHARACTER_ERRORS)
            if status & LSR_DR:
                got.append(get(uart, RBR))
        sender.join(DEADLINE_S)
    assert got == data
    assert uart.counters().overruns == 0


@pytest.mark.parametrize(
    ("fcr", "burst", "size"), [(0, 1, 1 << 19), (FCR_ENABLE, FIFO_DEPTH, 1 << 20)]
)
def test_a_guest_that_polls_thre_loses_nothing_to_a_slow_reader(
    make: Maker, tmp_path: Path, fcr: int, burst: int, size: int
) -> None:
    uart = make(Lab(), chardev=f"unix:{tmp_path}/s", buffer="4096")
    put(uart, FCR, fcr)
    data = pattern(size)
    received = bytearray()
    reader_may_go = threading.Event()
    with connect(tmp_path / "s") as client:
        until(lambda: get(uart, MSR) & MSR_DCD)

        def read_all() -> None:
            assert reader_may_go.wait(DEADLINE_S)
            received.extend(receive_exactly(client, len(data)))

        reader = threading.Thread(target=read_all)
        reader.start()
        at = 0
        give_up_at = time.monotonic() + 3 * DEADLINE_S
        while at < len(data):
            assert time.monotonic() < give_up_at
            if get(uart, LSR) & LSR_THRE:
                for character in data[at : at + burst]:
                    put(uart, THR, character)
                at += burst
            else:
                # The reader has read nothing: each access came back all the same.
                reader_may_go.set()
        reader_may_go.set()
        reader.join(DEADLINE_S)
    assert received == data
    assert uart.counters().dropped == 0
    until(lambda: uart.counters().sent == len(data))


def test_a_guest_with_interrupts_is_called_again_when_there_is_room(
    lab: Lab, make: Maker, tmp_path: Path
) -> None:
    uart = make(lab, chardev=f"unix:{tmp_path}/s", buffer="4096")
    data = pattern(1 << 20)
    with connect(tmp_path / "s") as client:
        until(lambda: get(uart, MSR) & MSR_DCD)
        prepared(uart, IER_ETBEI)
        at = 0
        while lab.asserted(IRQ):  # the handler runs until the sink is full
            assert iir(uart) == IIR_THRE
            for character in data[at : at + FIFO_DEPTH]:
                put(uart, THR, character)
            at += FIFO_DEPTH
        assert not get(uart, LSR) & (LSR_THRE | LSR_TEMT)
        got = receive_exactly(client, at)
        until(lambda: lab.asserted(IRQ), "the interrupt")
        assert iir(uart) == IIR_THRE
        assert get(uart, LSR) == IDLE
    assert got == data[:at]


def test_a_guest_that_does_not_wait_has_its_bytes_dropped_and_counted(
    lab: Lab, make: Maker, tmp_path: Path
) -> None:
    uart = make(lab, chardev=f"unix:{tmp_path}/s", buffer="4096")
    put(uart, FCR, FCR_ENABLE)
    size = 1 << 19
    with connect(tmp_path / "s") as client:
        until(lambda: get(uart, MSR) & MSR_DCD)
        for _ in range(size):
            put(uart, THR, 0x41)
        dropped = uart.counters().dropped
        assert dropped > 0
        assert receive_exactly(client, size - dropped) == b"A" * (size - dropped)
        until(lambda: uart.counters().sent == size - dropped)


def test_a_guest_with_nobody_attached_never_waits(lab: Lab, make: Maker, tmp_path: Path) -> None:
    uart = make(lab, chardev=f"unix:{tmp_path}/s", buffer="4096")
    for _ in range(200_000):
        put(uart, THR, 0x41)
    assert get(uart, LSR) == IDLE
    counters = uart.counters()
    assert (counters.dropped, counters.unheard) == (0, 200_000 - (64 << 10))


def test_fcr_can_clear_what_waits_for_a_slow_reader(lab: Lab, make: Maker, tmp_path: Path) -> None:
    uart = make(lab, chardev="file:/dev/full", buffer="1")
    put(uart, FCR, FCR_ENABLE)
    put(uart, IER, IER_ETBEI)
    for _ in range(3):
        put(uart, THR, 0x41)
    assert get(uart, LSR) == 0
    assert iir(uart) == IIR_NONE
    put(uart, FCR, FCR_ENABLE | FCR_CLEAR_TX)
    assert get(uart, LSR) == IDLE
    assert iir(uart) == IIR_THRE
    assert tmp_path.exists()


def test_output_before_close_is_in_the_file(lab: Lab, make: Maker, tmp_path: Path) -> None:
    uart = make(lab, chardev=f"file:{tmp_path}/out", buffer="10")
    put(uart, FCR, FCR_ENABLE)
    for character in b"the last words":  # more than the buffer: the rest is in the FIFO
        put(uart, THR, character)
    uart.close()
    assert (tmp_path / "out").read_bytes() == b"the last words"


def test_a_console_on_a_terminal(lab: Lab, make: Maker, tmp_path: Path) -> None:
    uart = make(lab, chardev=f"pty:{tmp_path}/console")
    for character in b"login: ":
        put(uart, THR, character)
    terminal = os.open(tmp_path / "console", os.O_RDWR | os.O_NOCTTY)
    try:
        assert select.select([terminal], [], [], DEADLINE_S)[0]
        assert os.read(terminal, 100) == b"login: "
        os.write(terminal, b"r")
        until(lambda: get(uart, LSR) & LSR_DR)
        assert get(uart, RBR) == ord("r")
    finally:
        os.close(terminal)


# The life of the device.


def test_reset_is_power_on_again(waiting: Uart16550, lab: Lab) -> None:
    fresh = made(Lab()).save()
    put(waiting, SCR, 0x55)
    put(waiting, LCR, LCR_DLAB)
    put(waiting, DLL, 1)
    put(waiting, LCR, 0x13)
    lab.clock.advance(TIMEOUT_NS)
    assert lab.asserted(IRQ)
    waiting.reset()
    assert not lab.asserted(IRQ)
    assert waiting.save() == fresh
    lab.clock.advance(2 * TIMEOUT_NS)
    assert waiting.save() == fresh


def test_close_lets_go_of_the_line_and_the_timer(waiting: Uart16550, lab: Lab) -> None:
    put(waiting, IER, IER_ETBEI | IER_ERBFI)
    assert lab.asserted(IRQ)
    waiting.close()
    assert not lab.asserted(IRQ)
    assert lab.clock._timers.next_deadline_ns() is None


def test_the_last_characters_go_out_at_close_without_an_interrupt(
    lab: Lab, make: Maker, tmp_path: Path
) -> None:
    uart = make(lab, chardev=f"unix:{tmp_path}/s", buffer="4096")
    with connect(tmp_path / "s") as client:
        until(lambda: get(uart, MSR) & MSR_DCD)
        prepared(uart, IER_ETBEI)
        while get(uart, LSR) & LSR_THRE:
            put(uart, THR, 0x41)
        assert not lab.asserted(IRQ)

        def read_to_the_end() -> None:
            while client.recv(1 << 16):
                pass

        reader = threading.Thread(target=read_to_the_end)
        reader.start()
        uart.close()
        reader.join(DEADLINE_S)
    assert get(uart, LSR) & LSR_THRE
    assert not lab.asserted(IRQ)


def test_close_works_after_a_failed_assign(lab: Lab) -> None:
    uart = Uart16550(parse("uart16550", Config, {"chardev": "file:/missing/log"}))
    with pytest.raises(BadConfig, match="No such file"):
        lab.host(uart)
    uart.close()


def test_the_default_buffer_is_what_the_documentation_says() -> None:
    assert Config().buffer == DEFAULT_CAPACITY == 1 << 20


# State.


def test_a_restored_device_goes_on_where_the_saved_one_was(
    waiting: Uart16550, lab: Lab, make: Maker
) -> None:
    waiting.receive_break()
    lab.clock.advance(TIMEOUT_NS * 3 // 4)
    state = json.loads(json.dumps(waiting.save()))
    other_lab = Lab()
    other = make(other_lab)
    other.restore(state)
    assert other.save() == state
    other_lab.clock.advance(TIMEOUT_NS - TIMEOUT_NS * 3 // 4 - 1)
    assert not other_lab.asserted(IRQ)
    other_lab.clock.advance(1)
    assert other_lab.asserted(IRQ)
    assert iir(other) == IIR_TIMEOUT
    assert [get(other, RBR), get(other, RBR)] == [0x41, 0x42]
    assert get(other, LSR) & LSR_BI


def test_a_restored_interrupt_is_on_the_line(uart: Uart16550, make: Maker) -> None:
    prepared(uart, IER_ETBEI)
    other_lab = Lab()
    make(other_lab).restore(uart.save())
    assert other_lab.asserted(IRQ)


def test_characters_that_waited_for_the_sink_are_sent_after_a_restore(
    lab: Lab, make: Maker, tmp_path: Path
) -> None:
    full = make(lab, chardev="file:/dev/full", buffer="1")
    put(full, FCR, FCR_ENABLE)
    for character in b"abc":
        put(full, THR, character)
    other = make(Lab(), chardev=f"file:{tmp_path}/out")
    other.restore(full.save())
    other.close()
    assert (tmp_path / "out").read_bytes() == b"bc"


def test_a_peer_that_has_left_since_then_is_a_change(make: Maker, tmp_path: Path) -> None:
    attached, alone = make(Lab()), make(Lab(), chardev=f"unix:{tmp_path}/s")
    alone.restore(attached.save())
    assert get(alone, MSR) == MSR_DCTS | MSR_DDSR | MSR_DDCD


def test_an_error_of_the_oldest_character_in_a_state_shows(uart: Uart16550) -> None:
    put(uart, FCR, FCR_ENABLE)
    uart.restore({**uart.save(), "rx": "0041", "rx_errors": "1010"})
    assert get(uart, LSR) & LSR_CHARACTER_ERRORS == LSR_BI
    assert get(uart, LSR) & LSR_CHARACTER_ERRORS == 0
    assert get(uart, RBR) == 0
    assert get(uart, LSR) & LSR_CHARACTER_ERRORS == LSR_BI
    assert get(uart, RBR) == 0x41


def test_counters_outlive_a_restore(uart: Uart16550) -> None:
    cause_overrun(uart)
    overruns = uart.counters().overruns
    uart.restore(uart.save())
    assert uart.counters().overruns == overruns > 0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("ier", 0x10),
        ("mcr", 0x20),
        ("divisor", 0x10000),
        ("scratch", "5"),
        ("thre_pending", 1),
        ("rx", "4142"),  # without FIFOs there is one character
        ("rx_errors", "10"),
        ("tx", "xyz"),
        ("timeout_in_ns", -1),
        ("speed", 115200),
        ("lcr", None),
    ],
)
def test_a_bad_state_is_refused_and_changes_nothing(
    uart: Uart16550, field: str, value: object
) -> None:
    put(uart, SCR, 0x77)
    before = uart.save()
    with pytest.raises(BadState, match=field):
        uart.restore({**before, "scratch": 0, field: value})
    assert uart.save() == before


def test_a_state_that_lacks_a_field_is_refused(uart: Uart16550) -> None:
    state = uart.save()
    del state["msr"]
    with pytest.raises(BadState, match="msr"):
        uart.restore(state)


# Whatever a guest does.

ACCESSES = st.lists(
    st.one_of(
        st.tuples(st.just("read"), st.integers(0, 7), st.just(0)),
        st.tuples(st.just("write"), st.integers(0, 7), st.integers(0, 255)),
        st.tuples(st.just("write"), st.just(FCR), st.sampled_from([1, 3, 5, 7, 0x81, 0xC1])),
        st.tuples(st.just("write"), st.just(MCR), st.sampled_from([0x08, 0x10, 0x18, 0x1F])),
        st.tuples(st.just("write"), st.just(LCR), st.sampled_from([0x03, 0x43, 0x83])),
        st.tuples(st.just("break"), st.just(0), st.just(0)),
        st.tuples(st.just("wait"), st.just(0), st.integers(0, 10)),
    ),
    max_size=60,
)


def perform(uart: Uart16550, lab: Lab, access: tuple[str, int, int]) -> None:
    kind, register, value = access
    if kind == "read":
        get(uart, register)
    elif kind == "write":
        put(uart, register, value)
    elif kind == "break":
        uart.receive_break()
    else:
        lab.clock.advance(value * TIMEOUT_NS // 4)


@given(ACCESSES)
def test_any_accesses_leave_registers_that_agree(accesses: list[tuple[str, int, int]]) -> None:
    lab = Lab()
    uart = made(lab)
    for access in accesses:
        perform(uart, lab, access)
        state = uart.save()
        fifos = bool(state["fcr"] & FCR_ENABLE)
        mcr = state["mcr"]
        line = lab.asserted(IRQ)
        twin = made(Lab())  # reading has effects: ask a copy
        twin.restore(state)
        interrupt = get(twin, IIR)
        assert interrupt & IIR_FIFOS == (IIR_FIFOS if fifos else 0)
        interrupt &= ~IIR_FIFOS
        allowed = {IIR_NONE, IIR_LINE_STATUS, IIR_DATA, IIR_THRE, IIR_MODEM_STATUS}
        assert interrupt in (allowed | {IIR_TIMEOUT} if fifos else allowed)
        assert line == (interrupt != IIR_NONE and mcr & 0x18 == MCR_OUT2)
        status = get(twin, LSR)
        assert bool(status & LSR_DR) is bool(state["rx"])
        assert bool(status & LSR_THRE) is bool(status & LSR_TEMT) is not state["tx"]
        if not fifos:
            assert not status & LSR_FIFO_ERROR
        if interrupt in {IIR_DATA, IIR_TIMEOUT}:
            assert status & LSR_DR
        if interrupt == IIR_LINE_STATUS:
            assert status & 0x1E


@given(ACCESSES, ACCESSES)
def test_a_restored_device_cannot_be_told_from_the_saved_one(
    before: list[tuple[str, int, int]], after: list[tuple[str, int, int]]
) -> None:
    lab, other_lab = Lab(), Lab()
    uart, other = made(lab), made(other_lab)
    for access in before:
        perform(uart, lab, access)
    other.restore(json.loads(json.dumps(uart.save())))
    for access in after:
        assert other.save() == uart.save()
        assert lab.asserted(IRQ) == other_lab.asserted(IRQ)
        perform(uart, lab, access)
        perform(other, other_lab, access)
