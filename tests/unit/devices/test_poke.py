"""Peek and poke of single devices: what follows from a poke, and what doesn't."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from devicehost.registers import Register, RegisterMap
from devicehost_server.devices.base import NoConfig
from devicehost_server.devices.peeking import Peekable, View, Views, attribute
from devicehost_server.devices.registry import DeviceTypes
from devicehost_server.model.errors import NotPeekable
from devicehost_server.model.resources import PioAddressConstraint, ResourceConstraint
from devicelab import FREE_BASE, Lab, mmio_in, mmio_out, pio_in, pio_out

NOW_NS = 1_700_000_000_000_000_000
COM1 = 0x3F8
TYPES = DeviceTypes()


@pytest.fixture
def lab() -> Lab:
    return Lab(NOW_NS)


def hosted(lab: Lab, kind: str, **config: str) -> Any:
    return lab.host(TYPES.make(kind, config))  # type: ignore[type-var]


class TestUart:
    @pytest.fixture
    def uart(self, lab: Lab) -> Any:
        return hosted(lab, "uart16550")

    def test_the_divisor_is_told_while_dlab_is_clear(self, uart: Any) -> None:
        pio_out(uart, COM1 + 3, 0x80)
        pio_out(uart, COM1, 0x34)
        pio_out(uart, COM1 + 1, 0x12)
        pio_out(uart, COM1 + 3, 0x03)
        assert (uart.peek("DLL"), uart.peek("DLM"), uart.peek("IER")) == (0x34, 0x12, 0)

    def test_the_divisor_is_set_while_dlab_is_clear(self, uart: Any) -> None:
        uart.poke("DLL", 0x56)
        uart.poke("DLM", 0x78)
        assert uart.peek("LCR") == 0
        pio_out(uart, COM1 + 3, 0x80)
        assert (pio_in(uart, COM1), pio_in(uart, COM1 + 1)) == (0x56, 0x78)

    def test_a_peek_leaves_the_characters_in_the_fifo(self, uart: Any) -> None:
        pio_out(uart, COM1 + 2, 0x01)
        pio_out(uart, COM1 + 4, 0x10)
        for character in b"abc":
            pio_out(uart, COM1, character)
        assert [uart.peek("RBR") for _ in range(3)] == [ord("a")] * 3
        assert bytes(pio_in(uart, COM1) for _ in range(3)) == b"abc"
        assert uart.peek("RBR") == ord("c")  # of an empty FIFO, as a read

    def test_a_poked_character_is_read_next(self, uart: Any) -> None:
        pio_out(uart, COM1 + 2, 0x01)
        pio_out(uart, COM1 + 4, 0x10)
        for character in b"abc":
            pio_out(uart, COM1, character)
        uart.poke("RBR", ord("x"))
        assert bytes(pio_in(uart, COM1) for _ in range(3)) == b"xbc"

    def test_the_line_follows_a_poke(self, lab: Lab, uart: Any) -> None:
        uart.poke("MCR", 0x08)
        uart.poke("LSR", 0x02)
        assert not lab.asserted(4)
        uart.poke("IER", 0x04)
        assert lab.asserted(4)
        assert uart.peek("IIR") == 0x06
        uart.poke("LSR", 0x60)
        assert not lab.asserted(4)

    def test_a_poke_of_ier_causes_no_thre_interrupt(self, uart: Any) -> None:
        uart.poke("IER", 0x02)
        assert uart.peek("IIR") == 0x01
        uart.poke("IER", 0x00)
        pio_out(uart, COM1 + 1, 0x02)  # as a write does
        assert uart.peek("IIR") == 0x02

    def test_a_peek_of_iir_does_not_end_the_thre_interrupt(self, lab: Lab, uart: Any) -> None:
        pio_out(uart, COM1 + 4, 0x08)
        pio_out(uart, COM1 + 1, 0x02)
        assert [uart.peek("IIR") for _ in range(2)] == [0x02, 0x02]
        assert lab.asserted(4)
        assert [pio_in(uart, COM1 + 2) for _ in range(2)] == [0x02, 0x01]

    def test_bits_that_a_register_does_not_have_are_left_out(self, uart: Any) -> None:
        uart.poke("IER", 0xFF)
        uart.poke("MCR", 0xFF)
        assert (uart.peek("IER"), uart.peek("MCR")) == (0x0F, 0x1F)

    def test_bits_that_follow_from_others_stay(self, uart: Any) -> None:
        uart.poke("LSR", 0x00)
        assert uart.peek("LSR") == 0x60
        uart.poke("LSR", 0xFF)
        assert uart.peek("LSR") == 0x7E

    def test_a_poke_of_mcr_notes_no_change_of_the_modem(self, uart: Any) -> None:
        uart.poke("MSR", 0x00)
        uart.poke("MCR", 0x1F)
        assert uart.peek("MSR") == 0xF0

    def test_a_break_in_loopback_that_is_poked_is_not_received(self, uart: Any) -> None:
        uart.poke("MCR", 0x10)
        uart.poke("LCR", 0x40)
        assert uart.peek("LSR") == 0x60
        pio_out(uart, COM1 + 3, 0x40)  # no new one either: it is on already
        assert uart.peek("LSR") == 0x60

    def test_disabling_the_fifos_keeps_what_there_is_room_for(self, uart: Any) -> None:
        pio_out(uart, COM1 + 2, 0x01)
        pio_out(uart, COM1 + 4, 0x10)
        for character in b"abc":
            pio_out(uart, COM1, character)
        uart.poke("FCR", 0x00)
        assert uart.peek("RBR") == ord("a")
        assert bytes(pio_in(uart, COM1) for _ in range(2)) == b"aa"

    def test_an_error_goes_with_the_character_that_there_is_no_room_for(self, uart: Any) -> None:
        pio_out(uart, COM1 + 2, 0x01)
        pio_out(uart, COM1 + 4, 0x10)
        pio_out(uart, COM1, 0x41)
        pio_out(uart, COM1 + 3, 0x40)  # a break, behind it
        assert uart.peek("LSR") == 0xE1
        uart.poke("FCR", 0x00)
        uart.poke("FCR", 0x01)
        assert uart.peek("LSR") == 0x61

    def test_what_clears_itself_in_fcr_is_not_done(self, uart: Any) -> None:
        pio_out(uart, COM1 + 2, 0x01)
        pio_out(uart, COM1 + 4, 0x10)
        pio_out(uart, COM1, 0x41)
        uart.poke("FCR", 0xC7)
        assert uart.peek("FCR") == 0xC1
        assert uart.peek("LSR") & 0x01

    def test_a_restored_chip_is_the_one_that_is_looked_at(self, uart: Any) -> None:
        state = uart.save()
        uart.poke("SCR", 0x77)
        uart.restore(state)
        assert uart.peek("SCR") == 0


class TestClock:
    @pytest.fixture
    def rtc(self, lab: Lab) -> Any:
        return hosted(lab, "mc146818")

    def test_the_time_goes_on_for_who_peeks(self, lab: Lab, rtc: Any) -> None:
        assert rtc.peek("SECONDS") == 0x20  # 22:13:20
        lab.clock.advance(7_000_000_000)
        assert [rtc.peek(name) for name in ("HOURS", "MINUTES", "SECONDS")] == [0x22, 0x13, 0x27]
        assert [rtc.peek(name) for name in ("CENTURY", "YEAR", "MONTH")] == [0x20, 0x23, 0x11]

    def test_a_peek_sees_flags_and_leaves_them(self, lab: Lab, rtc: Any) -> None:
        lab.clock.advance(2_000_000_000)
        assert [rtc.peek("REG_C") for _ in range(2)] == [0x50, 0x50]
        pio_out(rtc, 0x70, 0x0C)
        assert rtc.peek("DATA") == 0x50
        assert pio_in(rtc, 0x71) == 0x50
        assert rtc.peek("REG_C") == 0x00

    def test_a_peek_does_not_choose_the_register(self, rtc: Any) -> None:
        pio_out(rtc, 0x70, 0x5F)
        rtc.peek("SECONDS")
        assert rtc.peek("INDEX") == 0x5F
        rtc.poke("INDEX", 0x8B)
        assert rtc.peek("INDEX") == 0x0B
        assert pio_in(rtc, 0x71) == 0x02

    def test_the_line_follows_a_poke(self, lab: Lab, rtc: Any) -> None:
        rtc.poke("REG_C", 0x20)
        assert not lab.asserted(8)
        rtc.poke("REG_B", 0x22)
        assert lab.asserted(8)
        assert rtc.peek("REG_C") == 0xA0

    def test_an_alarm_that_is_poked_comes(self, lab: Lab, rtc: Any) -> None:
        for name, value in (("SECONDS_ALARM", 0x25), ("MINUTES_ALARM", 0xC0)):
            rtc.poke(name, value)
        rtc.poke("HOURS_ALARM", 0xFF)
        rtc.poke("REG_B", 0x22)
        lab.clock.advance(4_900_000_000)
        assert not lab.asserted(8)
        lab.clock.advance(200_000_000)
        assert lab.asserted(8)

    def test_bytes_of_memory_are_rows(self, rtc: Any) -> None:
        rtc.poke("RAM_39[1]", 0x5A)
        pio_out(rtc, 0x70, 0x3A)
        assert pio_in(rtc, 0x71) == 0x5A
        assert rtc.peek("EQUIPMENT") == 0x06


class TestPl031:
    @pytest.fixture
    def rtc(self, lab: Lab) -> Any:
        return hosted(lab, "pl031", irq="2")

    def test_a_poke_of_the_load_register_leaves_the_counter(self, rtc: Any) -> None:
        rtc.poke("LR", 77)
        assert (rtc.peek("LR"), rtc.peek("DR")) == (77, NOW_NS // 1_000_000_000)

    def test_a_counter_that_is_poked_counts_on(self, lab: Lab, rtc: Any) -> None:
        rtc.poke("DR", 1000)
        lab.clock.advance(2_000_000_000)
        assert rtc.peek("DR") == 1002

    def test_a_match_that_is_poked_comes_and_one_in_the_past_does_not(
        self, lab: Lab, rtc: Any
    ) -> None:
        rtc.poke("DR", 1000)
        rtc.poke("IMSC", 1)
        lab.clock.advance(5_000_000_000)
        rtc.poke("MR", 1003)
        lab.clock.advance(5_000_000_000)
        assert not lab.asserted(2)
        rtc.poke("MR", 1013)
        lab.clock.advance(5_000_000_000)
        assert lab.asserted(2)

    def test_the_line_follows_a_poke(self, lab: Lab, rtc: Any) -> None:
        rtc.poke("RIS", 1)
        assert (rtc.peek("MIS"), lab.asserted(2)) == (0, False)
        rtc.poke("IMSC", 1)
        assert (rtc.peek("MIS"), lab.asserted(2)) == (1, True)
        rtc.poke("RIS", 0)
        assert not lab.asserted(2)

    def test_a_match_that_nobody_has_seen_is_peeked_and_stays(self, lab: Lab, rtc: Any) -> None:
        rtc.poke("MR", rtc.peek("DR") + 3)
        lab.clock.advance(10_000_000_000)
        assert rtc.peek("RIS") == 1
        assert mmio_in(rtc, FREE_BASE + 0x14) == 1
        mmio_out(rtc, FREE_BASE + 0x1C, 1)
        assert rtc.peek("RIS") == 0


class TestI8042:
    @pytest.fixture
    def controller(self, lab: Lab) -> Any:
        return hosted(lab, "i8042")

    def test_a_peek_leaves_the_byte_in_the_buffer(self, controller: Any) -> None:
        pio_out(controller, 0x64, 0xAA)
        assert controller.peek("STATUS") & 0x01
        assert [controller.peek("DATA") for _ in range(2)] == [0x55, 0x55]
        assert pio_in(controller, 0x60) == 0x55
        assert not controller.peek("STATUS") & 0x01

    def test_a_byte_can_be_put_into_the_buffer(self, lab: Lab, controller: Any) -> None:
        controller.poke("DATA", 0x99)
        assert not lab.asserted(12)
        controller.poke("STATUS", 0x21)
        assert lab.asserted(12)
        assert pio_in(controller, 0x64) == 0x31
        assert pio_in(controller, 0x60) == 0x99
        assert not lab.asserted(12)

    def test_a_buffer_that_is_empty_holds_nothing_of_the_mouse(self, controller: Any) -> None:
        controller.poke("STATUS", 0x20)
        assert controller.peek("STATUS") == 0x10

    def test_the_system_flag_is_a_bit_of_the_command_byte(self, controller: Any) -> None:
        controller.poke("STATUS", 0x04)
        pio_out(controller, 0x64, 0x20)
        assert pio_in(controller, 0x60) & 0x04


def test_a_peek_at_an_item_goes_not_on(lab: Lab) -> None:
    firmware = hosted(lab, "fw-cfg")
    assert [firmware.peek("DATA") for _ in range(2)] == [ord("Q")] * 2
    assert bytes(pio_in(firmware, 0x511) for _ in range(5)) == b"QEMU\0"
    assert firmware.peek("DATA") == 0
    firmware.poke("SELECTOR", 0x4000)
    assert firmware.peek("SELECTOR") == 0x4000
    assert pio_in(firmware, 0x511) == ord("Q")


def test_a_code_that_is_poked_is_none_that_firmware_reported(lab: Lab) -> None:
    port = hosted(lab, "postcode")
    port.poke("CODE", 0x42)
    assert pio_in(port, 0x80) == 0x42
    assert port.history == []


@pytest.mark.parametrize(("size", "last"), [("1", "R"), ("4", "R[3]"), ("300", "R[299]")])
def test_bytes_of_scratch_are_as_many_as_configured(lab: Lab, size: str, last: str) -> None:
    device = hosted(lab, "scratch", size=size, irq="5")
    device.poke(last, 0x81)
    assert device.peek(last) == 0x81
    assert mmio_in(device, FREE_BASE + int(size) - 1, 1) == 0x81
    assert lab.asserted(5)


class Twins(Peekable[NoConfig]):
    """Counts how often it is told of pokes."""

    type_name = "twins"
    register_map = RegisterMap(
        "twins", (Register("A", 0), Register("ROW", 2, count=2), Register("NONE", 4))
    )

    def __init__(self) -> None:
        super().__init__(NoConfig())
        self.a = 0
        self.row = [0, 0]
        self.changes = 0
        self.locked = False

    def get_resource_constraints(self) -> list[ResourceConstraint]:
        return [PioAddressConstraint(size=8)]

    def views(self) -> Views:
        self.locked = not _free(self.lock)
        return {
            "A": attribute(self, "a"),
            "ROW": View(self.row.__getitem__, self.row.__setitem__),
        }

    def registers_changed(self) -> None:
        self.changes += 1


def _free(lock: threading.RLock) -> bool:
    """Whether another thread could take a lock now."""
    taken: list[bool] = []

    def attempt() -> None:
        if lock.acquire(blocking=False):
            lock.release()
            taken.append(True)

    thread = threading.Thread(target=attempt)
    thread.start()
    thread.join()
    return bool(taken)


def test_a_table_tells_and_sets_and_the_device_hears_of_pokes_only() -> None:
    device = Twins()
    device.poke("A", 3)
    device.poke("ROW[1]", 4)
    assert (device.peek("A"), device.peek("ROW[0]"), device.peek("ROW[1]")) == (3, 0, 4)
    assert device.changes == 2


def test_a_device_is_looked_at_under_its_lock() -> None:
    device = Twins()
    device.peek("A")
    assert device.locked
    assert _free(device.lock)


def test_a_register_without_a_view_can_be_neither_told_nor_set() -> None:
    device = Twins()
    for attempt in (lambda: device.peek("NONE"), lambda: device.poke("NONE", 1)):
        with pytest.raises(NotPeekable, match=r"'twins'.*'NONE'"):
            attempt()
    assert device.changes == 0


def test_a_device_that_says_nothing_of_its_registers_has_none_to_peek() -> None:
    class Silent(Twins):
        register_map = None  # type: ignore[assignment]

    with pytest.raises(NotPeekable):
        Silent().peek("A")
