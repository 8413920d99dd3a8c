"""Observers: they see accesses pass, and cost nothing when nobody looks."""

from __future__ import annotations

from dataclasses import replace

import pytest

from devicehost_server.model.address_map import Handler, Space, Trap
from devicehost_server.model.device_io import DeviceIo, WritableBuffer
from devicehost_server.model.errors import DeviceFault
from devicehost_server.model.io_manager import IoManager
from devicehost_server.model.resources import MmioAddressRange, PioAddressRange

PORTS = PioAddressRange(0x60, 1)
REGISTERS = MmioAddressRange(0x1000, 8)
LATER = MmioAddressRange(0x2000, 8)


class Constant(DeviceIo):
    def read(self, _base: int, _offset: int, data: WritableBuffer) -> None:
        data[:] = b"\x2a" * len(data)

    def pio_read(self, base: int, offset: int, data: WritableBuffer) -> None:
        self.read(base, offset, data)


class Trace:
    """Keeps a line for each access, with the data after it."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def wrap(self, trap: Trap, space: Space) -> Trap:
        return replace(
            trap,
            read=self._traced(f"{space.value} read", trap.read),
            write=self._traced(f"{space.value} write", trap.write),
        )

    def _traced(self, what: str, call: Handler) -> Handler:
        def traced(base: int, offset: int, data: WritableBuffer) -> None:
            call(base, offset, data)
            self.lines.append(f"{what} {base:#x}+{offset} {bytes(data).hex()}")

        return traced


class Clumsy(Trace):
    """Fails on the range at LATER."""

    def wrap(self, trap: Trap, space: Space) -> Trap:
        if trap.base == LATER.base:
            raise LookupError("on purpose")
        return super().wrap(trap, space)


@pytest.fixture
def manager() -> IoManager:
    manager = IoManager()
    manager.register_device_io(Constant(), [PORTS, REGISTERS])
    return manager


def test_an_observer_sees_each_access_and_the_guest_sees_no_difference(
    manager: IoManager,
) -> None:
    trace = Trace()
    manager.observe(trace)
    data = bytearray(2)
    manager.mmio_read(REGISTERS.base + 4, data)
    manager.mmio_write(REGISTERS.base, b"\1")
    manager.pio_read(PORTS.base, bytearray(1))
    manager.pio_write(PORTS.base, b"\2")
    assert data == b"\x2a\x2a"
    assert trace.lines == [
        "mmio read 0x1000+4 2a2a",
        "mmio write 0x1000+0 01",
        "pio read 0x60+0 2a",
        "pio write 0x60+0 02",
    ]


def test_an_observer_sees_ranges_that_are_registered_after_it(manager: IoManager) -> None:
    trace = Trace()
    manager.observe(trace)
    manager.register_device_io(Constant(), [LATER])
    manager.mmio_read(LATER.base, bytearray(1))
    manager.mmio_read(REGISTERS.base, bytearray(1))
    assert trace.lines == ["mmio read 0x2000+0 2a", "mmio read 0x1000+0 2a"]


def test_an_observer_sees_nothing_any_more_after_another_or_none_took_its_place(
    manager: IoManager,
) -> None:
    first, second = Trace(), Trace()
    for observer in (first, second, None):
        manager.observe(observer)
        manager.mmio_read(REGISTERS.base, bytearray(1))
    assert len(first.lines) == len(second.lines) == 1


def test_without_an_observer_a_device_is_called_directly(manager: IoManager) -> None:
    manager.observe(Trace())
    manager.observe(None)
    assert manager._live.mmio.find(REGISTERS.base) is manager._registered.mmio.traps[0]


def test_an_observer_does_not_change_what_is_listed_or_what_can_be_unregistered(
    manager: IoManager,
) -> None:
    before = manager.ranges()
    manager.observe(Trace())
    assert manager.ranges() == before
    manager.unregister_device_io([PORTS, REGISTERS])
    assert manager.ranges() == []


def test_a_clone_is_not_observed(manager: IoManager) -> None:
    trace = Trace()
    manager.observe(trace)
    manager.clone().mmio_read(REGISTERS.base, bytearray(1))
    assert trace.lines == []


def test_an_observer_that_fails_in_an_access_is_that_accesss_fault(manager: IoManager) -> None:
    class Failing(Trace):
        def _traced(self, what: str, _call: Handler) -> Handler:
            def fail(_base: int, _offset: int, _data: WritableBuffer) -> None:
                raise LookupError(what)

            return fail

    manager.observe(Failing())
    with pytest.raises(DeviceFault, match="mmio read"):
        manager.mmio_read(REGISTERS.base, bytearray(1))


def test_a_change_that_an_observer_can_not_wrap_changes_nothing_and_ends(
    manager: IoManager,
) -> None:
    clumsy = Clumsy()
    manager.observe(clumsy)
    before = manager.ranges()
    with pytest.raises(LookupError):
        manager.register_device_io(Constant(), [LATER])
    assert manager.ranges() == before
    manager.unregister_device_io([PORTS])  # the next transaction can begin
    manager.mmio_read(REGISTERS.base, bytearray(1))
    assert len(clumsy.lines) == 1


def test_an_observer_that_can_not_wrap_what_there_is_does_not_take_over(
    manager: IoManager,
) -> None:
    trace = Trace()
    manager.register_device_io(Constant(), [LATER])
    manager.observe(trace)
    with pytest.raises(LookupError):
        manager.observe(Clumsy())
    manager.unregister_device_io([PORTS])
    manager.mmio_read(LATER.base, bytearray(1))
    assert trace.lines == ["mmio read 0x2000+0 2a"]
