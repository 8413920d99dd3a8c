"""Unregistering waits for the accesses in flight on what it removed, and for no others.

Threads are blocked in devices with real events; a `Gate` lets them in, and out when told.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait

import pytest

from devicehost_server.model.address_map import Trap
from devicehost_server.model.device_io import (
    DeviceIo,
    DeviceIoMut,
    ReadableBuffer,
    WritableBuffer,
)
from devicehost_server.model.errors import DeviceBusy, DeviceHostError
from devicehost_server.model.in_flight import LOOKING_UP, Cell, Cells, Nested
from devicehost_server.model.io_manager import IoManager
from devicehost_server.model.resources import MmioAddressRange, PioAddressRange

REGISTERS = MmioAddressRange(0x1000, 0x100)
PORTS = PioAddressRange(0x1000, 0x100)
ELSEWHERE = MmioAddressRange(0x8000, 0x100)
ALL_OPERATIONS = ["mmio_read", "mmio_write", "pio_read", "pio_write"]
WAIT_S = 30.0
A_MOMENT_S = 0.05


class Gate(DeviceIo):
    """Keeps accesses inside until `leave` is set."""

    def __init__(self, name: str = "gate") -> None:
        self._name = name
        self.entered = threading.Event()
        self.leave = threading.Event()
        self.ended = 0

    @property
    def name(self) -> str:
        return self._name

    def read(self, base: int, offset: int, data: ReadableBuffer) -> None:
        self.entered.set()
        assert self.leave.wait(WAIT_S)
        self.ended += 1

    def write(self, base: int, offset: int, data: ReadableBuffer) -> None:
        self.read(base, offset, data)

    def pio_read(self, base: int, offset: int, data: WritableBuffer) -> None:
        self.read(base, offset, data)

    def pio_write(self, base: int, offset: int, data: ReadableBuffer) -> None:
        self.read(base, offset, data)


class GateMut(Gate, DeviceIoMut):
    """A gate with room for one."""


class Raising(DeviceIo):
    def __init__(self, error: type[BaseException]) -> None:
        self.error = error

    def read(self, base: int, offset: int, data: WritableBuffer) -> None:
        raise self.error


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.leave.set()  # a failed test leaves nobody inside


@pytest.fixture
def pool(gate: Gate) -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as pool:
        yield pool
        gate.leave.set()


@pytest.fixture
def patient() -> IoManager:
    """A manager that waits longer than any test."""
    return IoManager(drain_timeout_s=WAIT_S)


@pytest.fixture
def hasty() -> IoManager:
    """A manager that fails at once where it would have to wait."""
    return IoManager(drain_timeout_s=0.0)


def enter(
    pool: ThreadPoolExecutor, manager: IoManager, gate: Gate, operation: str = "mmio_read"
) -> Future[None]:
    """Bring a thread into `gate` at REGISTERS or PORTS."""
    access: Callable[[int, bytearray], None] = getattr(manager, operation)
    inside = pool.submit(access, REGISTERS.base, bytearray(1))
    assert gate.entered.wait(WAIT_S)
    return inside


def number_inside(manager: IoManager) -> int:
    """Return how many threads are in a device."""
    cells = manager._cells
    with cells._lock:
        return sum(bool(cell.traps()) for cell in cells._cells)


# Waiting.


@pytest.mark.parametrize("operation", ALL_OPERATIONS)
def test_unregistering_returns_when_the_access_in_flight_has_ended(
    pool: ThreadPoolExecutor, patient: IoManager, gate: Gate, operation: str
) -> None:
    patient.register_device_io(gate, [REGISTERS, PORTS])
    inside = enter(pool, patient, gate, operation)
    unregistering = pool.submit(patient.unregister_device_io, [REGISTERS, PORTS])
    assert not wait([unregistering], A_MOMENT_S).done
    assert gate.ended == 0
    gate.leave.set()
    unregistering.result(WAIT_S)
    assert gate.ended == 1
    inside.result(WAIT_S)


def test_unregistering_waits_for_every_thread_that_is_inside(
    pool: ThreadPoolExecutor, patient: IoManager, gate: Gate
) -> None:
    patient.register_device_io(gate, [REGISTERS])
    insides = []
    for _ in range(3):
        gate.entered.clear()
        insides.append(enter(pool, patient, gate))
    unregistering = pool.submit(patient.unregister_device_io, [REGISTERS])
    assert not wait([unregistering], A_MOMENT_S).done
    gate.leave.set()
    unregistering.result(WAIT_S)
    assert gate.ended == 3
    wait(insides, WAIT_S)


def test_a_thread_that_queues_for_the_lock_of_a_device_is_in_flight_too(
    pool: ThreadPoolExecutor, patient: IoManager
) -> None:
    narrow = GateMut()
    patient.register_device_io(narrow, [REGISTERS])
    first = enter(pool, patient, narrow)
    queueing = pool.submit(patient.mmio_write, REGISTERS.base, b"\1")
    while number_inside(patient) < 2:
        assert not queueing.done()
    unregistering = pool.submit(patient.unregister_device_io, [REGISTERS])
    narrow.leave.set()
    unregistering.result(WAIT_S)
    assert narrow.ended == 2
    wait([first, queueing], WAIT_S)


def test_the_range_is_free_for_others_while_the_old_access_is_still_in_flight(
    pool: ThreadPoolExecutor, patient: IoManager, gate: Gate
) -> None:
    patient.register_device_io(gate, [REGISTERS])
    inside = enter(pool, patient, gate)
    unregistering = pool.submit(patient.unregister_device_io, [REGISTERS])
    while patient.ranges():  # it is published before it waits
        assert not unregistering.done()
    patient.register_device_io(DeviceIo(), [REGISTERS])
    patient.mmio_read(REGISTERS.base, bytearray(1))
    assert not unregistering.done()
    gate.leave.set()
    unregistering.result(WAIT_S)
    inside.result(WAIT_S)


def test_who_commits_without_waiting_can_wait_later(
    pool: ThreadPoolExecutor, hasty: IoManager, gate: Gate
) -> None:
    hasty.register_device_io(gate, [REGISTERS])
    inside = enter(pool, hasty, gate)
    tx = hasty.begin_tx()
    tx.unregister_device_io([REGISTERS])
    hasty.commit_tx(tx, wait=False)
    assert hasty.ranges() == []
    with pytest.raises(DeviceBusy):
        hasty.wait_until_idle(tx.removed)
    gate.leave.set()
    inside.result(WAIT_S)
    hasty.wait_until_idle(tx.removed)


# The bound.


def test_an_access_that_does_not_end_is_device_busy_with_the_name_of_the_device(
    pool: ThreadPoolExecutor, gate: Gate
) -> None:
    manager = IoManager(drain_timeout_s=0.01)
    manager.register_device_io(gate, [REGISTERS])
    inside = enter(pool, manager, gate)
    with pytest.raises(DeviceBusy, match=r"'gate' .* did not end within 0\.01 s") as caught:
        manager.unregister_device_io([REGISTERS])
    assert caught.value.metadata == {"device": "gate", "range": "0x1000-0x10ff"}
    assert manager.ranges() == []
    manager.register_device_io(DeviceIo(), [REGISTERS])  # the next transaction can begin
    gate.leave.set()
    inside.result(WAIT_S)


def test_device_busy_names_the_device_that_is_busy_not_another_of_the_transaction(
    pool: ThreadPoolExecutor, hasty: IoManager, gate: Gate
) -> None:
    hasty.register_device_io(gate, [REGISTERS])
    hasty.register_device_io(Gate("idle"), [ELSEWHERE])
    enter(pool, hasty, gate)
    with pytest.raises(DeviceBusy, match="'gate'"), hasty.begin_tx() as tx:
        tx.unregister_device_io([ELSEWHERE, REGISTERS])


# Who isn't waited for.


def test_accesses_in_flight_on_other_devices_are_not_waited_for(
    pool: ThreadPoolExecutor, hasty: IoManager, gate: Gate
) -> None:
    hasty.register_device_io(gate, [REGISTERS])
    hasty.register_device_io(DeviceIo(), [ELSEWHERE, PORTS])
    inside = enter(pool, hasty, gate)
    hasty.unregister_device_io([ELSEWHERE, PORTS])
    assert not inside.done()


def test_an_access_in_flight_on_a_range_that_the_device_keeps_is_not_waited_for(
    pool: ThreadPoolExecutor, hasty: IoManager, gate: Gate
) -> None:
    hasty.register_device_io(gate, [REGISTERS, PORTS])
    inside = enter(pool, hasty, gate)
    hasty.unregister_device_io([PORTS])
    assert not inside.done()


def test_accesses_on_the_successor_at_the_same_range_are_not_waited_for(
    pool: ThreadPoolExecutor, hasty: IoManager, gate: Gate
) -> None:
    hasty.register_device_io(DeviceIo(), [REGISTERS])
    with hasty.begin_tx() as tx:
        tx.unregister_device_io([REGISTERS])
        tx.register_device_io(gate, [REGISTERS])
    inside = enter(pool, hasty, gate)
    hasty.wait_until_idle(tx.removed)
    assert not inside.done()


def test_registering_waits_for_nobody(
    pool: ThreadPoolExecutor, hasty: IoManager, gate: Gate
) -> None:
    hasty.register_device_io(gate, [REGISTERS])
    inside = enter(pool, hasty, gate)
    hasty.register_device_io(gate, [PORTS, ELSEWHERE])
    assert not inside.done()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_access_that_failed_is_not_in_flight_any_more(
    pool: ThreadPoolExecutor, hasty: IoManager, error: type[BaseException]
) -> None:
    hasty.register_device_io(Raising(error), [REGISTERS, PORTS])
    with pytest.raises((DeviceHostError, KeyboardInterrupt)):
        hasty.mmio_read(REGISTERS.base, bytearray(1))
    for address, size in ((0, 1), (0, 0), (REGISTERS.last, 2), (REGISTERS.last, 0)):
        for access in (hasty.mmio_read, hasty.mmio_write, hasty.pio_read, hasty.pio_write):
            with pytest.raises(DeviceHostError):
                access(address, bytearray(size))
    pool.submit(hasty.unregister_device_io, [REGISTERS, PORTS]).result(WAIT_S)


def test_a_thread_that_died_is_not_waited_for_and_leaves_nothing_behind(hasty: IoManager) -> None:
    hasty.register_device_io(Raising(KeyboardInterrupt), [REGISTERS])
    cells = hasty._cells._cells
    before = len(cells)

    def die() -> None:
        with pytest.raises(KeyboardInterrupt):
            hasty.mmio_read(REGISTERS.base, bytearray(1))

    threads = [threading.Thread(target=die) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    hasty.unregister_device_io([REGISTERS])
    gc.collect()
    assert len(cells) <= before + 1  # this thread may have one by now


# The path of an access.


def test_an_access_takes_no_lock_of_the_manager(hasty: IoManager) -> None:
    hasty.register_device_io(DeviceIo(), [REGISTERS, PORTS])
    with ThreadPoolExecutor(1) as pool:
        pool.submit(hasty.mmio_read, REGISTERS.base, bytearray(1)).result(WAIT_S)
        with hasty._writer, hasty._cells._lock:
            for operation in ALL_OPERATIONS:
                access: Callable[[int, bytearray], None] = getattr(hasty, operation)
                pool.submit(access, REGISTERS.base, bytearray(1)).result(WAIT_S)


# The cells themselves.


def trap_of(device: DeviceIo, where: MmioAddressRange = REGISTERS) -> Trap:
    return Trap(where.base, where.last, device, device.read, device.write)


def test_a_thread_that_looks_up_may_be_in_any_trap() -> None:
    removed, other = trap_of(DeviceIo()), trap_of(DeviceIo(), ELSEWHERE)
    cells, own, cell = Cells(), Cell(), Cell()
    cells.add(cell)
    for doing in (LOOKING_UP, Nested(LOOKING_UP, other), removed, Nested(other, removed)):
        cell.now = doing
        assert cells.wait_until_out_of([removed], but=own, timeout_s=0.0) is removed
    for elsewhere in (None, other, Nested(other, other)):
        cell.now = elsewhere
        assert cells.wait_until_out_of([removed], but=own, timeout_s=0.0) is None


def test_a_cell_tells_all_traps_that_its_thread_is_in_innermost_first() -> None:
    a, b, c = (trap_of(DeviceIo()) for _ in range(3))
    cell = Cell()
    assert cell.traps() == []
    cell.now = Nested(a, Nested(b, Nested(LOOKING_UP, c)))
    assert cell.traps() == [a, b, c]


def test_the_callers_own_cell_is_not_waited_for() -> None:
    removed = trap_of(DeviceIo())
    cells, own = Cells(), Cell()
    cells.add(own)
    own.now = removed
    assert cells.wait_until_out_of([removed], but=own, timeout_s=0.0) is None
