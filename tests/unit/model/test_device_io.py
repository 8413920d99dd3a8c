"""What a device does by default, and who is let into it at the same time."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from devicehost_server.model.device_io import (
    DeviceIo,
    DeviceIoMut,
    ReadableBuffer,
    WritableBuffer,
)
from devicehost_server.model.errors import DeviceFault, DeviceTimeout
from devicehost_server.model.io_manager import IoManager
from devicehost_server.model.resources import (
    DeviceResources,
    LegacyIrq,
    MemAddressRange,
    MmioAddressRange,
    PioAddressRange,
)

PORTS = PioAddressRange(0x3F8, 8)
REGISTERS = MmioAddressRange(0xD000_0000, 0x1000)
WAIT_S = 30.0


class Plain(DeviceIo):
    """Overrides nothing."""


class Gate(DeviceIoMut):
    """Holds whoever reads MMIO inside, until `leave` is set."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.leave = threading.Event()

    def read(self, base: int, offset: int, data: WritableBuffer) -> None:
        self.entered.set()
        assert self.leave.wait(WAIT_S)

    def pio_read(self, base: int, offset: int, data: WritableBuffer) -> None:
        data[0] = 0x5A


@pytest.fixture
def manager() -> IoManager:
    return IoManager()


# Defaults.


def test_a_device_ignores_every_access_by_default(manager: IoManager) -> None:
    manager.register_device_io(Plain(), [PORTS, REGISTERS])
    data = bytearray(b"\xff\xff")
    manager.mmio_write(REGISTERS.base, data)
    manager.pio_write(PORTS.base, data)
    assert data == b"\xff\xff"
    manager.mmio_read(REGISTERS.base, data)
    assert data == b"\0\0"
    data[:] = b"\xff\xff"
    manager.pio_read(PORTS.base, data)
    assert data == b"\0\0"


def test_a_device_has_no_resources_by_default() -> None:
    assert Plain().get_assigned_resources() == DeviceResources()
    assert list(Plain().get_trapped_io_resources()) == []


def test_what_traps_are_the_pio_and_mmio_ranges_of_the_assigned_resources() -> None:
    class Assigned(DeviceIo):
        def get_assigned_resources(self) -> DeviceResources:
            return DeviceResources([MemAddressRange(0, 8), REGISTERS, LegacyIrq(4), PORTS])

    assert list(Assigned().get_trapped_io_resources()) == [REGISTERS, PORTS]


def test_a_device_is_named_after_its_class_by_default() -> None:
    assert Plain().name == "Plain"


# Exclusive access.


def test_a_device_io_mut_has_its_lock_without_calling_init_of_its_base() -> None:
    class Careless(DeviceIoMut):
        def __init__(self, size: int, *, fill: int) -> None:
            self.content = bytes([fill]) * size

    one, other = Careless(4, fill=1), Careless(4, fill=2)
    assert one.lock is not other.lock
    with one.lock:
        assert one.content == b"\1\1\1\1"


def test_a_device_io_lets_several_threads_in_at_once(manager: IoManager) -> None:
    meeting = threading.Barrier(3)

    class Open(DeviceIo):
        def read(self, base: int, offset: int, data: WritableBuffer) -> None:
            meeting.wait(WAIT_S)

    manager.register_device_io(Open(), [REGISTERS])
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda _: manager.mmio_read(REGISTERS.base, bytearray(4)), range(3)))
    assert not meeting.broken


def test_a_device_io_mut_lets_one_thread_in_at_a_time(manager: IoManager) -> None:
    threads, accesses = 4, 200

    class Alone(DeviceIoMut):
        def __init__(self) -> None:
            self.inside = 0
            self.most_inside = 0
            self.count = 0

        def write(self, base: int, offset: int, data: ReadableBuffer) -> None:
            self.inside += 1
            self.most_inside = max(self.most_inside, self.inside)
            count = self.count
            time.sleep(0)  # offer the others to come in
            self.count = count + 1
            self.inside -= 1

    device = Alone()
    manager.register_device_io(device, [REGISTERS])
    together = threading.Barrier(threads)

    def hammer(_number: int) -> None:
        together.wait(WAIT_S)
        for _ in range(accesses):
            manager.mmio_write(REGISTERS.base, b"\1")

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(hammer, range(threads)))
    assert device.most_inside == 1
    assert device.count == threads * accesses


def test_who_waits_too_long_for_a_device_io_mut_gets_device_timeout_with_its_name() -> None:
    gate = Gate()
    manager = IoManager(lock_timeout_s=0.01)
    manager.register_device_io(gate, [REGISTERS])
    with ThreadPoolExecutor() as pool:
        first = pool.submit(manager.mmio_read, REGISTERS.base, bytearray(1))
        assert gate.entered.wait(WAIT_S)
        try:
            with pytest.raises(DeviceTimeout, match=r"'Gate' was in use for longer than 0\.01 s"):
                manager.mmio_read(REGISTERS.base, bytearray(1))
        finally:
            gate.leave.set()
        first.result(WAIT_S)
    manager.mmio_read(REGISTERS.base, bytearray(1))


def test_the_lock_is_one_for_all_ranges_buses_and_managers_of_a_device() -> None:
    gate = Gate()
    one, other = IoManager(lock_timeout_s=0.01), IoManager(lock_timeout_s=0.01)
    one.register_device_io(gate, [REGISTERS, PORTS])
    other.register_device_io(gate, [PORTS])
    with ThreadPoolExecutor() as pool:
        first = pool.submit(one.mmio_read, REGISTERS.base, bytearray(1))
        assert gate.entered.wait(WAIT_S)
        try:
            for manager in (one, other):
                with pytest.raises(DeviceTimeout):
                    manager.pio_read(PORTS.base, bytearray(1))
        finally:
            gate.leave.set()
        first.result(WAIT_S)


def test_who_waits_gets_in_when_the_first_leaves(manager: IoManager) -> None:
    gate = Gate()
    manager.register_device_io(gate, [REGISTERS, PORTS])
    data = bytearray(1)
    with ThreadPoolExecutor() as pool:
        first = pool.submit(manager.mmio_read, REGISTERS.base, bytearray(1))
        assert gate.entered.wait(WAIT_S)
        second = pool.submit(manager.pio_read, PORTS.base, data)
        gate.leave.set()
        first.result(WAIT_S)
        second.result(WAIT_S)
    assert data == b"\x5a"


def test_the_lock_is_free_again_after_a_device_raised(manager: IoManager) -> None:
    class Broken(DeviceIoMut):
        def read(self, base: int, offset: int, data: WritableBuffer) -> None:
            raise RuntimeError("on purpose")

    device = Broken()
    manager.register_device_io(device, [REGISTERS])
    with pytest.raises(DeviceFault):
        manager.mmio_read(REGISTERS.base, bytearray(1))
    with ThreadPoolExecutor() as pool:  # the lock is re-entrant: ask from another thread
        assert pool.submit(device.lock.acquire, blocking=False).result(WAIT_S)


def test_work_outside_of_accesses_keeps_accesses_out_under_the_same_lock() -> None:
    manager = IoManager(lock_timeout_s=0.01)
    gate = Gate()
    gate.leave.set()
    manager.register_device_io(gate, [REGISTERS])
    with ThreadPoolExecutor() as pool, gate.lock:
        with pytest.raises(DeviceTimeout):
            pool.submit(manager.mmio_read, REGISTERS.base, bytearray(1)).result(WAIT_S)
        assert not gate.entered.is_set()


def test_an_access_that_reaches_its_own_device_again_does_not_wait_for_itself(
    manager: IoManager,
) -> None:
    class Window(DeviceIoMut):
        """Its first register shows what its second one holds."""

        def read(self, base: int, offset: int, data: WritableBuffer) -> None:
            if offset == 0:
                manager.mmio_read(base + 1, data)
            else:
                data[0] = 0x77

    manager.register_device_io(Window(), [REGISTERS])
    data = bytearray(1)
    manager.mmio_read(REGISTERS.base, data)
    assert data == b"\x77"
