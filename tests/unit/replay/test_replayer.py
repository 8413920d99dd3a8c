"""Recorded devices do the same when they are replayed; spoiled ones are found out."""

from __future__ import annotations

import os
import random
import select
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from daemonlab import wait_until
from devicehost.access_status import AccessStatus
from devicehost.recording import DeviceRecord, Header, Recording
from devicehost.recording.events import (
    Access,
    Dma,
    Event,
    Interrupt,
    InterruptKind,
    Learned,
    Lost,
    Operation,
    Told,
    Woken,
)
from devicehost_server.devices.pc16550d_registers import (
    FCR,
    FCR_CLEAR_RX,
    FCR_ENABLE,
    IER,
    IIR,
    LCR,
    LCR_DLAB,
    LSR,
    LSR_DR,
    LSR_THRE,
    MCR,
    MCR_LOOP,
    MCR_OUT2,
    MSR,
    RBR,
    SCR,
    THR,
)
from devicehost_server.devices.uart16550 import Uart16550
from devicehost_server.model.guest_memory import MappedBacking, MemoryBlock
from devicehost_server.replay import CannotReplay, Replayer, Spoiled, What
from replaylab import TYPES, Bench, replayed

COM1, RTC = 0x3F8, 0x70
DATA_PORT, COMMAND_PORT = 0x60, 0x64
REG_A, REG_B, REG_C = 0x0A, 0x0B, 0x0C  # of the RTC
A_DIVIDER_32KHZ = 0x20
B_PIE, B_AIE, B_UIE, B_DM, B_24H = 0x40, 0x20, 0x10, 0x04, 0x02
DEADLINE_S = 20.0


class Phone:
    """The other end of a UART's stream."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(str(path))

    def expect(self, data: bytes) -> None:
        got = b""
        self.socket.settimeout(DEADLINE_S)
        while len(got) < len(data):
            got += self.socket.recv(len(data) - len(got))
        assert got == data

    def close(self) -> None:
        self.socket.close()


def poll(bench: Bench, port: int, mask: int) -> None:
    wait_until(lambda: bench.pio_in(port) & mask == mask)


def talk(bench: Bench, path: Path) -> None:
    """Drive a UART as a driver would: output, input, interrupts, a time-out, loopback."""
    phone = Phone(path)
    wait_until(lambda: bench.pio_in(COM1 + MSR) & 0xF0 == 0xB0)
    bench.pio_out(COM1 + LCR, LCR_DLAB | 3)
    bench.pio_out(COM1, 1)
    bench.pio_out(COM1 + LCR, 3)
    bench.pio_out(COM1 + FCR, FCR_ENABLE | FCR_CLEAR_RX | 0xC0)
    bench.pio_out(COM1 + MCR, MCR_OUT2 | 3)
    bench.pio_out(COM1 + IER, 0x0F)
    for character in b"login: ":
        poll(bench, COM1 + LSR, LSR_THRE)
        bench.pio_out(COM1 + THR, character)
        bench.pio_in(COM1 + IIR)
    phone.expect(b"login: ")
    phone.socket.sendall(b"root")
    wait_until(lambda: bench.pio_in(COM1 + IIR) & 0x0F == 0x0C)  # too few: they time out
    wait_until(lambda: bench.pio_in(COM1 + LSR, 2) & LSR_DR != 0)
    got = bytearray()
    while bench.pio_in(COM1 + LSR) & LSR_DR:
        got.append(bench.pio_in(COM1 + RBR))
    assert got == b"root"
    phone.socket.sendall(bytes(range(256)) * 4)
    got.clear()
    while len(got) < 1024:
        poll(bench, COM1 + LSR, LSR_DR)
        got.append(bench.pio_in(COM1 + RBR))
    assert got == bytes(range(256)) * 4
    bench.pio_out(COM1 + MCR, MCR_LOOP)
    bench.pio_out(COM1 + THR, 0x55)
    bench.pio_in(COM1 + RBR)
    bench.pio_out(COM1 + MCR, MCR_OUT2)
    phone.close()
    wait_until(lambda: bench.pio_in(COM1 + MSR) & 0xF0 == 0)
    bench.pio_out(COM1 + SCR, 0xA5)
    bench.pio_in(COM1, 8)
    bench.pio_in(COM1 + SCR)


@pytest.fixture(name="uart")
def uart_fixture(uart_at: Path, bench: Bench) -> Uart16550:
    assert uart_at.exists()
    uart = bench.devices.device("com1")
    assert isinstance(uart, Uart16550)
    return uart


@pytest.fixture(name="uart_at")
def uart_at_fixture(bench: Bench, tmp_path: Path) -> Path:
    path = tmp_path / "com1"
    bench.plug("uart16550", "com1", chardev=f"unix:{path}")
    return path


def test_a_uart_on_a_socket_replays(bench: Bench, uart_at: Path) -> None:
    bench.begin()
    talk(bench, uart_at)
    sources = {event.source for event in bench.events if isinstance(event, Woken)}
    assert sources == {"save", "stream", "timer:_timer_due"}
    assert replayed(bench.recording) == []


def test_a_uart_that_is_in_the_middle_of_something_replays(bench: Bench, uart_at: Path) -> None:
    phone = Phone(uart_at)
    bench.pio_out(COM1 + FCR, FCR_ENABLE | 0xC0)
    bench.pio_out(COM1 + MCR, MCR_OUT2)
    bench.pio_out(COM1 + IER, 0x0F)
    phone.socket.sendall(b"0123456789" * 3)
    poll(bench, COM1 + LSR, LSR_DR)
    bench.pio_in(COM1 + RBR)
    bench.begin()
    for _ in range(40):
        bench.pio_in(COM1 + IIR)
        bench.pio_in(COM1 + RBR)
    phone.close()
    wait_until(lambda: bench.pio_in(COM1 + MSR) & 0xF0 == 0)
    assert replayed(bench.recording) == []


def test_a_uart_on_a_terminal_replays(bench: Bench, tmp_path: Path) -> None:
    link = tmp_path / "tty"
    bench.plug("uart16550", "com1", chardev=f"pty:{link}")
    bench.begin()
    terminal = os.open(link, os.O_RDWR | os.O_NOCTTY)
    wait_until(lambda: bench.pio_in(COM1 + MSR) & 0xF0 == 0xB0)
    os.write(terminal, b"hello")
    got = bytearray()
    while len(got) < 5:
        poll(bench, COM1 + LSR, LSR_DR)
        got.append(bench.pio_in(COM1 + RBR))
    for character in got:
        bench.pio_out(COM1 + THR, character)
    assert select.select([terminal], [], [], DEADLINE_S)[0]
    os.close(terminal)
    wait_until(lambda: bench.pio_in(COM1 + MSR) & 0xF0 == 0)
    assert replayed(bench.recording) == []


def test_a_uart_whose_peer_is_slow_replays(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "com1"
    bench.plug("uart16550", "com1", chardev=f"unix:{path}", buffer="100")
    bench.begin()
    phone = Phone(path)
    wait_until(lambda: bench.pio_in(COM1 + MSR) & 0xF0 == 0xB0)
    bench.pio_out(COM1 + FCR, FCR_ENABLE)
    bench.pio_out(COM1 + IER, 2)
    bench.pio_out(COM1 + MCR, MCR_OUT2)
    sent = 0
    while bench.pio_in(COM1 + LSR) & LSR_THRE:  # until the socket, and the buffer, are full
        bench.pio_out(COM1 + THR, sent & 0xFF)
        sent += 1
    bench.pio_out(COM1 + THR, sent & 0xFF)
    phone.expect(bytes(number & 0xFF for number in range(sent)))
    poll(bench, COM1 + LSR, LSR_THRE)
    phone.close()
    partly = [e for e in bench.events if isinstance(e, Learned) and e.source == "write"]
    assert partly
    assert replayed(bench.recording) == []


def rtc_read(bench: Bench, register: int) -> int:
    bench.pio_out(RTC, register)
    return bench.pio_in(RTC + 1)


def rtc_write(bench: Bench, register: int, value: int) -> None:
    bench.pio_out(RTC, register)
    bench.pio_out(RTC + 1, value)


def asserted(bench: Bench, gsi: int) -> bool:
    return gsi in bench.interrupts.asserted()


def test_a_clock_with_periodic_interrupts_replays(bench: Bench) -> None:
    bench.plug("mc146818", "rtc")
    rtc_write(bench, REG_A, A_DIVIDER_32KHZ | 6)
    rtc_write(bench, REG_B, B_24H | B_PIE)  # it runs already when the recording begins
    bench.begin()
    for _ in range(50):
        wait_until(lambda: asserted(bench, 8))
        assert rtc_read(bench, REG_C) & 0x40
        rtc_read(bench, 0)
    rtc_write(bench, REG_B, B_24H | B_UIE | B_AIE | B_DM)
    for register in (1, 3, 5):
        rtc_write(bench, register, 0xFF)  # an alarm each second
    for _ in range(2):
        wait_until(lambda: asserted(bench, 8))
        assert rtc_read(bench, REG_C) & 0x30
        assert [rtc_read(bench, register) for register in range(10)]
    woken = [event for event in bench.events if isinstance(event, Woken)]
    assert len(woken) > 50
    assert replayed(bench.recording) == []


def test_an_arm_clock_replays(bench: Bench) -> None:
    rtc = bench.plug("pl031", "rtc", irq="9")
    base = rtc.context.resources.get_mmio_address_ranges()[0].base
    bench.begin()
    now = bench.mmio_in(base)
    bench.mmio_out(base + 4, now + 1)
    bench.mmio_out(base + 0x10, 1)
    wait_until(lambda: asserted(bench, 9))
    assert bench.mmio_in(base + 0x18) == 1
    bench.mmio_out(base + 0x1C, 1)
    assert replayed(bench.recording) == []


def test_a_keyboard_controller_replays(bench: Bench) -> None:
    bench.plug("i8042", "kbd")
    bench.begin()
    for command in (0xAA, 0xAB, 0xA9, 0x20, 0xD0, 0xA7, 0xA8, 0xAE):
        bench.pio_out(COMMAND_PORT, command)
        if bench.pio_in(COMMAND_PORT) & 1:
            bench.pio_in(DATA_PORT)
    for octet in (0xFF, 0xF2, 0xED, 0x02, 0xF4):
        bench.pio_out(DATA_PORT, octet)
        while bench.pio_in(COMMAND_PORT) & 1:
            bench.pio_in(DATA_PORT)
    assert any(isinstance(event, Interrupt) for event in bench.events)
    assert replayed(bench.recording) == []


def test_the_small_devices_replay(bench: Bench, tmp_path: Path) -> None:
    bench.plug("debugcon", "log", chardev=f"file:{tmp_path}/log")
    bench.plug("postcode", "post")
    bench.plug("fw-cfg", "fw", memory="64M", files="opt/motd='hello'")
    bench.plug("scratch", "ram", base="0xC0000000", irq="11", fault_offset="8")
    bench.begin()
    assert bench.pio_in(0x402) == 0xE9
    for character in b"SeaBIOS\n":
        bench.pio_out(0x402, character)
        bench.pio_out(0x80, character)
    bench.pio_in(0x80)
    bench.pio_out(0x510, 0x19, 2)
    bench.pio_in(0x511, 1, 64)
    bench.mmio_out(0xC000_0000, 0x1234_5678)
    bench.mmio_in(0xC000_0000, 8)
    bench.mmio_out(0xC000_00FF, 1, 1)
    bench.mmio_in(0xC000_0008)  # it raises
    bench.mmio_in(0xC000_00FE)  # past the end
    bench.mmio_in(0xC100_0000)  # nobody there
    statuses = {event.status.name for event in bench.events if isinstance(event, Access)}
    assert statuses == {"OK", "DEVICE_FAULT", "ACCESS_OUT_OF_RANGE", "NO_DEVICE"}
    assert any(isinstance(event, Told) for event in bench.events)
    replayer = Replayer(bench.recording, TYPES)
    assert list(replayer.run()) == []
    summary = replayer.summary
    assert summary.events == len(bench.events)
    assert summary.accesses == sum(isinstance(event, Access) for event in bench.events)
    assert sorted(summary.devices) == ["fw", "log", "post", "ram"]


def test_dma_replays_and_that_which_fails_too(bench: Bench) -> None:
    content = bytearray(range(256)) * 16
    backing = MappedBacking(memoryview(content))
    bench.memory.add(MemoryBlock(0, 0x1000, readable=True, writable=True, backing=backing))
    bench.plug("copier", "dma", base="0xC0000000")
    bench.begin()
    bench.mmio_out(0xC000_0000, 0x10, 8)
    bench.mmio_out(0xC000_0008, 0x40, 8)
    bench.mmio_out(0xC000_0000, 0x5000, 8)
    bench.mmio_out(0xC000_0008, 0x5000, 8)
    bench.mmio_in(0xC000_0000, 8)
    assert sum(isinstance(event, Dma) for event in bench.events) == 4
    assert replayed(bench.recording) == []


def test_devices_that_come_and_go_replay(bench: Bench) -> None:
    bench.plug("scratch", "first", base="0xC0000000")
    bench.begin()
    bench.mmio_out(0xC000_0000, 1)
    bench.plug_recorded("scratch", "second", base="0xC1000000")
    bench.mmio_out(0xC100_0000, 2)
    bench.unplug_recorded("first")
    bench.mmio_in(0xC000_0000)
    bench.mmio_in(0xC100_0000)
    bench.plug_recorded("scratch", "first", base="0xC2000000")
    bench.mmio_in(0xC200_0000)
    assert replayed(bench.recording) == []


def test_what_others_call_on_a_device_replays_if_it_was_told(bench: Bench, uart: Uart16550) -> None:
    bench.begin()
    bench.pio_out(COM1 + SCR, 0x12)
    bench.devices.doors.save(uart)
    with bench.devices.doors.calling(uart, "reset"):
        uart.reset()
    bench.pio_in(COM1 + SCR)
    assert replayed(bench.recording) == []


# Differences.


def first_read(bench: Bench, port: int, wrong: Callable[[int], bool]) -> int:
    """The number of the first read of a port that a fault shows in."""
    return next(
        number
        for number, event in enumerate(bench.events)
        if isinstance(event, Access)
        and event.operation is Operation.READ
        and event.address <= port < event.address + event.size
        and wrong(event.data[port - event.address])
    )


def test_a_stuck_bit_is_found_at_the_first_access_that_it_shows_in(
    bench: Bench, uart_at: Path
) -> None:
    bench.begin()
    talk(bench, uart_at)
    found = replayed(bench.recording, Spoiled("com1", "LSR", stuck_at_zero=LSR_THRE))
    number = first_read(bench, COM1 + LSR, lambda value: value & LSR_THRE != 0)
    first = found[0]
    assert (first.event, first.what, first.device) == (number, What.READ, "com1")
    assert (first.range, first.offset) == (0, LSR)
    assert [each.register for each in first.registers_expected] == ["LSR"]
    assert first.registers_expected[0].value & ~first.registers_got[0].value == LSR_THRE
    assert "LSR = 0x60" in str(first)
    assert "LSR = 0x40" in str(first)
    assert "\n" not in first.text


@pytest.mark.usefixtures("uart")
def test_a_bit_that_is_stuck_at_one_is_found_in_a_wide_access_too(bench: Bench) -> None:
    bench.begin()
    bench.pio_in(COM1, 4)
    bench.pio_in(COM1 + LSR - 1, 4)
    found = replayed(bench.recording, Spoiled("com1", "SCR", stuck_at_one=0x80))
    assert [(each.event, each.expected, each.got) for each in found] == [
        (len(bench.events) - 1, "00600000", "00600080")
    ]


def test_a_register_behind_another_can_be_spoiled(bench: Bench) -> None:
    bench.plug("mc146818", "rtc")
    bench.begin()
    rtc_read(bench, 0x0F)
    rtc_read(bench, 0x0D)
    found = replayed(bench.recording, Spoiled("rtc", "REG_D", stuck_at_zero=0x80))
    assert [each.event for each in found] == [len(bench.events) - 1]


@pytest.mark.usefixtures("uart")
def test_a_wrong_bit_does_not_change_what_later_accesses_are_taken_for(bench: Bench) -> None:
    bench.begin()
    bench.pio_in(COM1 + LCR)
    bench.pio_in(COM1 + RBR)
    faults = (
        Spoiled("com1", "LCR", stuck_at_one=LCR_DLAB),
        Spoiled("com1", "RBR", stuck_at_one=1),
    )
    found = replayed(bench.recording, *faults)
    assert [each.registers_expected[0].register for each in found] == ["LCR", "RBR"]
    assert [each.registers_got[0].register for each in found] == ["LCR", "RBR"]


@pytest.mark.parametrize("who", ["", "somebody-who-is-not-recorded"])
def test_an_interrupt_that_others_have_a_hand_in_is_not_compared(bench: Bench, who: str) -> None:
    bench.plug("scratch", "ram", base="0xc0000000", irq="5")
    bench.begin()
    bench.events.append(Interrupt(0, 5, InterruptKind.ASSERTED, who))
    bench.mmio_out(0xC000_00FF, 1, 1)
    at = next(
        n
        for n, each in enumerate(bench.events)
        if isinstance(each, Interrupt) and each.device == "ram"
    )
    del bench.events[at]  # the line was up already
    assert replayed(bench.recording) == []


def test_an_access_that_never_got_to_its_device_is_not_made(bench: Bench) -> None:
    bench.plug("scratch", "ram", base="0xc0000000")
    bench.begin()
    bench.mmio_out(0xC000_0000, 7)
    write = next(event for event in bench.events if isinstance(event, Access))
    bench.events[-1] = replace(write, status=AccessStatus.DEVICE_TIMEOUT)
    bench.events.append(replace(write, operation=Operation.READ, data=bytes(4)))
    replayer = Replayer(bench.recording, TYPES)
    assert list(replayer.run()) == []
    assert replayer.summary.accesses == 1


def changed(bench: Bench, event: Event, other: Event) -> Recording:
    bench.events[bench.events.index(event)] = other
    return bench.recording


def test_a_device_that_raises_is_a_difference_in_how_the_access_ended(bench: Bench) -> None:
    bench.plug("scratch", "ram", base="0xC0000000")
    bench.begin()
    bench.mmio_in(0xC000_0008)
    bench.header.devices[0].config["fault_offset"] = "8"
    [difference] = replayed(bench.recording)
    assert (difference.what, difference.expected, difference.got) == (
        What.STATUS,
        "OK",
        "DEVICE_FAULT",
    )
    assert "fault_offset 0x8 was accessed" in difference.cause


def test_an_interrupt_that_does_not_come_is_found(bench: Bench) -> None:
    bench.plug("scratch", "ram", base="0xC0000000", irq="11")
    bench.begin()
    bench.mmio_out(0xC000_00FF, 1, 1)
    number = len(bench.events) - 1
    bench.header.devices[0].resources[1]["irq"] = 12
    [difference] = replayed(bench.recording)
    assert (difference.event, difference.what) == (number, What.INTERRUPT)
    assert (difference.expected, difference.got) == ("GSI 11 asserted", "GSI 12 asserted")


def test_other_output_is_found(bench: Bench) -> None:
    bench.plug("debugcon", "log")
    bench.begin()
    bench.pio_out(0x402, ord("a"))
    told = next(event for event in bench.events if isinstance(event, Told))
    [difference] = replayed(changed(bench, told, Told(told.time_ns, "log", b"b")))
    assert (difference.what, difference.expected, difference.got) == (What.OUTPUT, "62", "61")


def test_other_dma_is_found(bench: Bench) -> None:
    backing = MappedBacking(memoryview(bytearray(0x1000)))
    bench.memory.add(MemoryBlock(0, 0x1000, readable=True, writable=True, backing=backing))
    bench.plug("copier", "dma", base="0xC0000000")
    bench.begin()
    bench.mmio_out(0xC000_0008, 0x40, 8)
    dma = next(event for event in bench.events if isinstance(event, Dma))
    other = Dma(dma.time_ns, "dma", Operation.WRITE, 0x48, dma.data)
    [difference] = replayed(changed(bench, dma, other))
    assert difference.what is What.DMA
    assert difference.got == f"0x40: {'00' * 8}"


def test_what_a_device_asks_for_that_was_not_recorded_is_found(bench: Bench) -> None:
    bench.plug("postcode", "post")
    bench.begin()
    bench.pio_out(0x80, 1)
    bench.events = [event for event in bench.events if not isinstance(event, Learned)]
    [difference] = replayed(bench.recording)
    assert (difference.what, difference.got) == (What.ASKED, "wall")


def test_a_timer_that_is_not_there_is_found_if_it_did_something(bench: Bench) -> None:
    bench.plug("scratch", "ram", base="0xC0000000", irq="11")
    bench.begin()
    bench.woken("ram", "timer:alarm")
    bench.events += [
        Interrupt(1, 11, InterruptKind.ASSERTED, "ram"),
        Woken(2, "ram", "timer:alarm"),
    ]
    [difference] = replayed(bench.recording)
    assert (difference.event, difference.what) == (len(bench.events) - 1, What.TIMER)
    assert "alarm" in difference.got


def test_differences_after_lost_events_are_unsure(bench: Bench) -> None:
    bench.plug("scratch", "ram", base="0xC0000000")
    bench.begin()
    bench.mmio_out(0xC000_0000, 1)
    bench.mmio_in(0xC000_0000)
    write = next(event for event in bench.events if isinstance(event, Access))
    [difference] = replayed(changed(bench, write, Lost(1)))
    assert difference.is_unsure
    assert "unsure" in str(difference)


def test_differences_after_a_call_that_nobody_can_repeat_are_unsure(bench: Bench) -> None:
    ram = bench.plug("scratch", "ram", base="0xc0000000")
    bench.begin()
    with bench.devices.doors.calling(ram, "dance"):
        ram.write(0, 0, b"\1")
    bench.mmio_in(0xC000_0000)
    [difference] = replayed(bench.recording)
    assert (difference.what, difference.is_unsure) == (What.READ, True)


# What can't be replayed.


def test_devices_that_can_not_be_replayed_are_named() -> None:
    header = Header(
        (
            DeviceRecord("a", "no-such-type", state={}),
            DeviceRecord("b", "postcode", state=None),
            DeviceRecord("c", "postcode", state={}),
        )
    )
    bench = Bench()
    bench.header = header
    with pytest.raises(CannotReplay, match=r"'a'.*'no-such-type'.*'b'.*state") as caught:
        Replayer(bench.recording, TYPES)
    assert "'c'" not in str(caught.value)
    bench.close()


def test_devices_that_can_not_be_replayed_can_be_left_out(bench: Bench) -> None:
    bench.plug("scratch", "ram", base="0xC0000000", irq="5")
    bench.plug("scratch", "other", base="0xC1000000", irq="5")
    bench.mmio_out(0xC000_00FF, 1, 1)
    bench.begin()
    bench.mmio_out(0xC100_00FF, 1, 1)  # the line is up already
    bench.mmio_in(0xC100_00FF, 1)
    ram = next(device for device in bench.header.devices if device.id == "ram")
    at = bench.header.devices.index(ram)
    devices = list(bench.header.devices)
    devices[at] = DeviceRecord(ram.id, "gone", ram.config, ram.resources, ram.ranges)
    bench.header = Header(tuple(devices), now_ns=bench.header.now_ns)
    replayer = Replayer(bench.recording, TYPES, leave_out=True)
    assert list(replayer.run()) == []
    assert replayer.summary.devices == ["other"]
    assert list(replayer.summary.left_out) == ["ram"]


def test_a_state_that_does_not_fit_is_an_error_that_names_the_device(bench: Bench) -> None:
    bench.plug("postcode", "post")
    bench.begin()
    state = bench.header.devices[0].state
    assert state is not None
    state["last"] = 1000
    with pytest.raises(CannotReplay, match=r"'post'.*'last'"):
        replayed(bench.recording)
    bench.pio_out(0x80, 5)
    replayer = Replayer(bench.recording, TYPES, leave_out=True)
    assert list(replayer.run()) == []
    assert (replayer.summary.devices, list(replayer.summary.left_out)) == ([], ["post"])


@pytest.mark.parametrize(
    ("fault", "match"),
    [(Spoiled("ghost", "LSR"), "ghost.*com1"), (Spoiled("com1", "XYZ"), "XYZ")],
)
@pytest.mark.usefixtures("uart")
def test_a_fault_of_nothing_is_an_error(bench: Bench, fault: Spoiled, match: str) -> None:
    bench.begin()
    with pytest.raises(CannotReplay, match=match):
        replayed(bench.recording, fault)


def test_random_accesses_replay(bench: Bench, uart_at: Path) -> None:
    chance = random.Random(7)
    bench.plug("mc146818", "rtc")
    bench.plug("i8042", "kbd")
    bench.begin()
    phone = Phone(uart_at)
    ports = [*range(COM1, COM1 + 8), RTC, RTC + 1, DATA_PORT, COMMAND_PORT]
    for _ in range(3000):
        port = chance.choice(ports)
        if chance.random() < 0.5:
            bench.pio_in(port)
        else:
            bench.pio_out(port, chance.randrange(256))
        if chance.random() < 0.05:
            phone.socket.sendall(bytes(chance.randrange(256) for _ in range(20)))
    phone.close()
    assert replayed(bench.recording) == []


def test_progress_is_told(bench: Bench) -> None:
    bench.plug("scratch", "ram", base="0xC0000000")
    bench.begin()
    for _ in range(2100):
        bench.mmio_in(0xC000_0000)
    seen: list[int] = []
    assert list(Replayer(bench.recording, TYPES).run(seen.append)) == []
    assert seen == [1024, 2048]


def test_a_replay_can_be_left_in_the_middle_and_run_again(bench: Bench, uart_at: Path) -> None:
    bench.begin()
    talk(bench, uart_at)
    replayer = Replayer(bench.recording, TYPES, [Spoiled("com1", "LSR", stuck_at_one=0x80)])
    first = next(replayer.run())
    assert next(replayer.run()) == first
    assert len(list(replayer.run())) > 1
