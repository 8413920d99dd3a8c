"""Initiators: whose an access is, and who may look on."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from typing import NoReturn

import pytest

from devicehost_server.model.address_map import Space
from devicehost_server.model.device_io import DeviceIo, WritableBuffer
from devicehost_server.model.errors import Draining, NoDevice
from devicehost_server.model.initiator import Calls
from devicehost_server.model.io_manager import IoManager
from devicehost_server.model.resources import MmioAddressRange, PioAddressRange

PORTS = PioAddressRange(0x60, 1)
REGISTERS = MmioAddressRange(0x1000, 8)


class Constant(DeviceIo):
    def read(self, _base: int, _offset: int, data: WritableBuffer) -> None:
        data[:] = b"\x2a" * len(data)

    def pio_read(self, base: int, offset: int, data: WritableBuffer) -> None:
        self.read(base, offset, data)


class Trace:
    """Keeps a line for each access."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def around(self, calls: Calls, vcpu: int | None) -> Calls:
        return Calls(*(self._traced(call, vcpu) for call in calls))

    def _traced(self, call: Callable[..., None], vcpu: int | None) -> Callable[..., None]:
        def traced(address: int, data: WritableBuffer, size: int = 0) -> None:
            try:
                call(address, data, *([size] if size else []))
            finally:
                self.lines.append(f"{vcpu} {call.__name__} {address:#x} {bytes(data).hex()}")

        return traced


@pytest.fixture
def manager() -> IoManager:
    manager = IoManager()
    manager.register_device_io(Constant(), [PORTS, REGISTERS])
    return manager


def test_while_nobody_looks_an_initiator_calls_the_bus_itself(manager: IoManager) -> None:
    initiator = manager.initiator(3)
    assert initiator.mmio_read == manager.mmio_read
    manager.observe(Trace())
    assert initiator.mmio_read != manager.mmio_read
    manager.observe(None)
    assert Calls.of(initiator) == Calls.of(manager)


def test_an_observer_sees_whose_each_access_is_and_the_guest_sees_no_difference(
    manager: IoManager,
) -> None:
    trace = Trace()
    before = manager.initiator(0)
    manager.observe(trace)
    after = manager.initiator()
    data = bytearray(2)
    before.mmio_read(REGISTERS.base + 4, data)
    before.mmio_write(REGISTERS.base, b"\1")
    after.pio_read(PORTS.base, bytearray(1))
    after.pio_write(PORTS.base, b"\2")
    assert data == b"\x2a\x2a"
    assert trace.lines == [
        "0 mmio_read 0x1004 2a2a",
        "0 mmio_write 0x1000 01",
        "None pio_read 0x60 2a",
        "None pio_write 0x60 02",
    ]


def test_an_observer_sees_accesses_that_find_no_device(manager: IoManager) -> None:
    trace = Trace()
    manager.observe(trace)
    with pytest.raises(NoDevice):
        manager.initiator(1).mmio_write(0x9000, b"\1")
    assert trace.lines == ["1 mmio_write 0x9000 01"]


def test_an_observer_sees_nothing_any_more_after_another_or_none_took_its_place(
    manager: IoManager,
) -> None:
    first, second = Trace(), Trace()
    initiator = manager.initiator()
    for observer in (first, second, None):
        manager.observe(observer)
        initiator.mmio_read(REGISTERS.base, bytearray(1))
    assert len(first.lines) == len(second.lines) == 1


def test_what_is_made_on_the_manager_itself_is_not_observed(manager: IoManager) -> None:
    trace = Trace()
    manager.observe(trace)
    manager.mmio_read(REGISTERS.base, bytearray(1))
    manager.clone().initiator().mmio_read(REGISTERS.base, bytearray(1))
    assert trace.lines == []


def test_a_shut_initiator_refuses_for_ever_whoever_looks(manager: IoManager) -> None:
    def refuse(_address: int, _data: bytes) -> NoReturn:
        raise Draining("shut")

    shut, other = manager.initiator(), manager.initiator()
    shut.shut(refuse)
    for observer in (Trace(), None):
        manager.observe(observer)
        with pytest.raises(Draining):
            shut.pio_write(PORTS.base, b"\1")
        other.pio_write(PORTS.base, b"\1")


def test_the_manager_does_not_keep_an_initiator_that_nobody_uses(manager: IoManager) -> None:
    kept = manager.initiator()
    manager.initiator()
    gc.collect()
    assert list(manager._initiators) == [kept]


def test_accesses_go_on_while_observers_come_and_go(manager: IoManager) -> None:
    initiator, stop = manager.initiator(0), threading.Event()
    failures: list[Exception] = []

    def access() -> None:
        data = bytearray(1)
        try:
            while not stop.is_set():
                initiator.mmio_read(REGISTERS.base, data)
                assert data == b"\x2a"
        except Exception as error:  # noqa: BLE001 # the assertion is below
            failures.append(error)

    vcpu = threading.Thread(target=access)
    vcpu.start()
    trace = Trace()
    for _ in range(200):
        manager.observe(trace)
        manager.observe(None)
    manager.observe(trace)
    seen = len(trace.lines)
    while len(trace.lines) < seen + 10:
        assert vcpu.is_alive()
    stop.set()
    vcpu.join()
    assert failures == []


def test_a_trap_can_be_found_by_any_address_of_its_range(manager: IoManager) -> None:
    found = manager.find(Space.MMIO, REGISTERS.base + 7)
    assert found is not None
    assert found.base == REGISTERS.base
    assert manager.find(Space.PIO, PORTS.base) is not None
    assert manager.find(Space.MMIO, REGISTERS.base + 8) is None
