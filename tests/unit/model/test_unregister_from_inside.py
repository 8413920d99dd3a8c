"""Unregistering from inside an access: it can't wait for itself, and must not deadlock."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait

import pytest

from devicehost_server.model.address_map import Trap
from devicehost_server.model.device_io import DeviceIo, DeviceIoMut, WritableBuffer
from devicehost_server.model.errors import DeviceBusy, DeviceFault, NoDevice
from devicehost_server.model.io_manager import IoManager
from devicehost_server.model.resources import MmioAddressRange

FIRST = MmioAddressRange(0x1000, 0x100)
SECOND = MmioAddressRange(0x2000, 0x100)
WAIT_S = 30.0
A_MOMENT_S = 0.05


class Doing(DeviceIo):
    """Does, inside of a read, what a test wants."""

    def __init__(self, name: str, do: Callable[[], object]) -> None:
        self._name = name
        self._do = do

    @property
    def name(self) -> str:
        return self._name

    def read(self, base: int, offset: int, data: WritableBuffer) -> None:
        self._do()


class DoingMut(Doing, DeviceIoMut):
    """Likewise, one thread at a time."""


class Gate:
    """A place to wait in."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.leave = threading.Event()

    def __call__(self) -> None:
        self.entered.set()
        assert self.leave.wait(WAIT_S)


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
def hasty() -> IoManager:
    """A manager that fails at once where it would have to wait."""
    return IoManager(drain_timeout_s=0.0)


def read(manager: IoManager, where: MmioAddressRange) -> None:
    manager.mmio_read(where.base, bytearray(1))


# One device.


@pytest.mark.parametrize("kind", [Doing, DoingMut])
def test_a_device_can_unregister_itself_in_its_own_access(
    hasty: IoManager, kind: type[Doing]
) -> None:
    device = kind("leaving", lambda: hasty.unregister_device_io([FIRST]))
    hasty.register_device_io(device, [FIRST])
    read(hasty, FIRST)
    with pytest.raises(NoDevice):
        read(hasty, FIRST)


def test_a_device_that_unregisters_itself_does_not_wait_for_another_thread_in_it(
    pool: ThreadPoolExecutor, hasty: IoManager, gate: Gate
) -> None:
    def act() -> None:
        if gate.entered.is_set():
            hasty.unregister_device_io([FIRST])
        else:
            gate()

    hasty.register_device_io(Doing("device", act), [FIRST])
    inside = pool.submit(read, hasty, FIRST)
    assert gate.entered.wait(WAIT_S)
    read(hasty, FIRST)
    assert hasty.ranges() == []
    assert not inside.done()


def test_what_was_unregistered_from_inside_can_be_waited_for_from_elsewhere(
    pool: ThreadPoolExecutor, gate: Gate
) -> None:
    manager = IoManager(drain_timeout_s=WAIT_S)
    removed: list[Trap] = []

    def leave_the_bus() -> None:
        with manager.begin_tx() as tx:
            tx.unregister_device_io([FIRST])
        removed.extend(tx.removed)
        gate()

    manager.register_device_io(Doing("device", leave_the_bus), [FIRST])
    inside = pool.submit(read, manager, FIRST)
    assert gate.entered.wait(WAIT_S)
    waiting = pool.submit(manager.wait_until_idle, removed)
    assert not wait([waiting], A_MOMENT_S).done
    gate.leave.set()
    waiting.result(WAIT_S)
    inside.result(WAIT_S)


def test_from_inside_one_device_others_of_the_same_transaction_are_still_waited_for(
    pool: ThreadPoolExecutor, hasty: IoManager, gate: Gate
) -> None:
    hasty.register_device_io(
        Doing("first", lambda: hasty.unregister_device_io([FIRST, SECOND])), [FIRST]
    )
    hasty.register_device_io(Doing("second", gate), [SECOND])
    pool.submit(read, hasty, SECOND)
    assert gate.entered.wait(WAIT_S)
    with pytest.raises(DeviceFault) as caught:
        read(hasty, FIRST)
    assert isinstance(caught.value.__cause__, DeviceBusy)
    assert caught.value.__cause__.metadata["device"] == "second"


# Nested accesses: FIRST's device reads SECOND, on the same thread.


def test_an_outer_access_is_in_flight_while_the_inner_one_runs(
    pool: ThreadPoolExecutor, gate: Gate
) -> None:
    manager = IoManager(drain_timeout_s=WAIT_S)
    manager.register_device_io(Doing("outer", lambda: read(manager, SECOND)), [FIRST])
    manager.register_device_io(Doing("inner", gate), [SECOND])
    inside = pool.submit(read, manager, FIRST)
    assert gate.entered.wait(WAIT_S)
    waiting = [pool.submit(manager.unregister_device_io, [at]) for at in (FIRST, SECOND)]
    assert not wait(waiting, A_MOMENT_S).done
    gate.leave.set()
    for unregistering in waiting:
        unregistering.result(WAIT_S)
    inside.result(WAIT_S)


def test_an_outer_access_is_in_flight_after_the_inner_one_has_ended(
    pool: ThreadPoolExecutor, hasty: IoManager, gate: Gate
) -> None:
    def read_and_wait() -> None:
        read(hasty, SECOND)
        with pytest.raises(NoDevice):
            hasty.mmio_read(0, bytearray(1))
        gate()

    hasty.register_device_io(Doing("outer", read_and_wait), [FIRST])
    hasty.register_device_io(Doing("inner", lambda: None), [SECOND])
    pool.submit(read, hasty, FIRST)
    assert gate.entered.wait(WAIT_S)
    hasty.unregister_device_io([SECOND])
    with pytest.raises(DeviceBusy, match="'outer'"):
        hasty.unregister_device_io([FIRST])


def test_an_inner_access_can_unregister_the_outer_device(hasty: IoManager) -> None:
    hasty.register_device_io(Doing("outer", lambda: read(hasty, SECOND)), [FIRST])
    inner = Doing("inner", lambda: hasty.unregister_device_io([FIRST]))
    hasty.register_device_io(inner, [SECOND])
    read(hasty, FIRST)
    assert [held.device for held in hasty.ranges()] == ["inner"]


def test_a_thread_is_inside_of_all_devices_of_a_nested_access_and_other_threads_are_not(
    pool: ThreadPoolExecutor, hasty: IoManager
) -> None:
    def look() -> None:
        seen.append([hasty.is_inside(device) for device in devices])
        elsewhere = pool.submit(lambda: [hasty.is_inside(device) for device in devices])
        seen.append(elsewhere.result(WAIT_S))

    seen: list[list[bool]] = []
    devices = [Doing("outer", lambda: read(hasty, SECOND)), Doing("inner", look)]
    for device, where in zip(devices, (FIRST, SECOND), strict=True):
        hasty.register_device_io(device, [where])
    look()
    read(hasty, FIRST)
    assert seen == [[False, False], [False, False], [True, True], [False, False]]


def test_an_outer_access_is_never_missed_while_inner_ones_come_and_go(
    pool: ThreadPoolExecutor, hasty: IoManager
) -> None:
    entered, stop = threading.Event(), threading.Event()

    def hammer() -> None:
        entered.set()
        while not stop.is_set():
            read(hasty, SECOND)

    hasty.register_device_io(Doing("outer", hammer), [FIRST])
    hasty.register_device_io(Doing("inner", lambda: None), [SECOND])
    inside = pool.submit(read, hasty, FIRST)
    interval = sys.getswitchinterval()
    try:
        sys.setswitchinterval(1e-6)  # as many interleavings as there can be
        assert entered.wait(WAIT_S)
        tx = hasty.begin_tx()
        tx.unregister_device_io([FIRST])
        hasty.commit_tx(tx, wait=False)
        for _ in range(50_000):
            with pytest.raises(DeviceBusy, match="'outer'"):
                hasty.wait_until_idle(tx.removed)
    finally:
        stop.set()
        sys.setswitchinterval(interval)
    inside.result(WAIT_S)
    hasty.wait_until_idle(tx.removed)


# Two devices.


@pytest.mark.parametrize("kind", [Doing, DoingMut])
def test_two_devices_that_unregister_each_other_end_in_bounded_time(
    pool: ThreadPoolExecutor, kind: type[Doing]
) -> None:
    manager = IoManager(drain_timeout_s=A_MOMENT_S)
    both_inside = threading.Barrier(2)

    def unregister(where: MmioAddressRange) -> None:
        both_inside.wait(WAIT_S)
        manager.unregister_device_io([where])

    manager.register_device_io(kind("first", lambda: unregister(SECOND)), [FIRST])
    manager.register_device_io(kind("second", lambda: unregister(FIRST)), [SECOND])
    accesses = [pool.submit(read, manager, where) for where in (FIRST, SECOND)]
    errors = [error for access in accesses if (error := access.exception(WAIT_S)) is not None]
    assert errors  # one may get away, when the other has given up and left
    assert all(isinstance(error.__cause__, DeviceBusy) for error in errors)
    assert manager.ranges() == []
