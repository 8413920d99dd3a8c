"""A ring with its poller: order, failures, hostile clients, idling, and what is left behind."""

from __future__ import annotations

import ctypes
import fcntl
import gc
import mmap
import os
import re
import resource
import struct
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from daemonlab import wait_until
from devicehost.access_status import AccessStatus
from devicehost.ring.consumer import BURST_MAX
from devicehost.ring.layout import (
    CONTROL_SIZE,
    CONTROLS,
    ENTRIES,
    INTERRUPT_GENERATION,
    LATE_WAKEUPS,
    LOOK_AGAIN_S,
    NEED_WAKEUP,
    BadRing,
    Operation,
    RingLayout,
)
from devicehost.ring.producer import AccessFailed, AccessOverdue
from devicehost_server.endpoints.ring import Ring
from devicehost_server.endpoints.statuses import status_of
from devicehost_server.model.device_io import DeviceIo, ReadableBuffer, WritableBuffer
from devicehost_server.model.errors import DeviceTimeout, Draining, NoSpace
from devicehost_server.model.interrupts import InterruptController, InterruptLine
from devicehost_server.model.io_manager import IoManager
from devicehost_server.model.resources import MmioAddressRange, PioAddressRange
from ringlab import LATE_S, WAIT_S, Client, attached, client_process
from ringpair import BASE, PORT, SIZE, Board, WatchedRing, bus_with

FUZZ_S = float(os.environ.get("DEVICEHOST_RING_FUZZ_S", "2"))
"""How long a hostile client may scribble, in seconds."""


@pytest.fixture
def board() -> Board:
    return Board()


@pytest.fixture
def io(board: Board) -> IoManager:
    return bus_with(board)


@pytest.fixture
def ring(io: IoManager) -> Iterator[WatchedRing]:
    ring = WatchedRing(io.initiator)
    yield ring
    ring.close()
    assert ring.join(WAIT_S)


@pytest.fixture
def client(ring: WatchedRing) -> Iterator[Client]:
    ring.open_queue(0)
    with attached(ring) as client:
        yield client


def word(ring: Ring, index: int) -> int:
    """A 64-bit word of the ring."""
    value: int = struct.unpack("<Q", os.pread(ring.fd, 8, index * 8))[0]
    return value


def scrawl(ring: Ring, offset: int, data: bytes) -> None:
    """Write into the ring as its client can."""
    os.pwrite(ring.fd, data, offset)


def is_asleep(ring: Ring) -> bool:
    return word(ring, NEED_WAKEUP) == 1


def open_fds() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


class Gate(DeviceIo):
    """A read waits until it is let go on."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.leave = threading.Event()

    def read(self, base: int, offset: int, data: WritableBuffer) -> None:
        del base, offset
        self.entered.set()
        assert self.leave.wait(WAIT_S)
        data[:] = b"\x5a" * len(data)


@pytest.fixture
def gate(io: IoManager) -> Iterator[Gate]:
    gate = Gate()
    io.register_device_io(gate, [MmioAddressRange(0x1000, 0x1000)])
    yield gate
    gate.leave.set()


# Accesses.


def test_accesses_are_made_and_answered(client: Client, board: Board) -> None:
    client.mmio_write(BASE + 4, b"abcd")
    assert client.mmio_read(BASE + 3, 6) == b"\0abcd\0"
    client.write(Operation.PIO_WRITE, PORT + 8, b"\x55")
    data = bytearray(1)
    client.read(Operation.PIO_READ, PORT + 8, data)
    assert data == b"\x55"
    with pytest.raises(AccessFailed, match="NO_DEVICE"):
        client.mmio_read(BASE - 1, 1)
    assert len(board.seen) == 4


def test_all_posted_writes_arrive_in_order(ring: WatchedRing) -> None:
    count = 200_000

    class Sequence(DeviceIo):
        """Checks on the spot: to remember them all takes longer than to make them."""

        following = 0
        out_of_order = 0

        def write(self, base: int, offset: int, data: ReadableBuffer) -> None:
            del base, offset
            self.out_of_order += data != self.following.to_bytes(8, "little")
            self.following += 1

    device, io = Sequence(), IoManager()
    io.register_device_io(device, [MmioAddressRange(BASE, 8)])
    ring._accesses_of = io.initiator
    ring.open_queue(3)
    with attached(ring, 3) as client:
        for number in range(count):
            client.mmio_post(BASE, number.to_bytes(8, "little"))
        client.flush()
        assert (device.following, device.out_of_order) == (count, 0)
        assert client.posted_failures == 0


def test_failed_posted_writes_are_counted_with_the_status_of_the_last(client: Client) -> None:
    for number in range(1000):
        client.mmio_post(BASE if number % 4 else BASE + SIZE - 1, b"xy")
    client.flush()
    assert client.posted_failures == 250
    assert client.posted_failure is AccessStatus.ACCESS_OUT_OF_RANGE


def test_several_queues_at_once_are_each_in_order(ring: WatchedRing, board: Board) -> None:
    board.content = bytearray(SIZE)
    queues, count = 4, 2000

    def run(queue: int) -> None:
        ring.open_queue(queue)
        at = BASE + queue * 8
        with attached(ring, queue) as client:
            for number in range(count):
                client.mmio_post(at, struct.pack("<II", queue, number))
                if number % 50 == 0:
                    assert client.mmio_read(at, 8) == struct.pack("<II", queue, number)
            client.flush()

    with ThreadPoolExecutor(queues) as pool:
        list(pool.map(run, range(queues)))
    written = [struct.unpack("<II", d) for _, _, d in board.seen if isinstance(d, bytes)]
    for queue in range(queues):
        assert [number for of, number in written if of == queue] == list(range(count))


def test_a_queue_that_is_always_busy_leaves_the_others_their_turn(
    ring: WatchedRing, board: Board
) -> None:
    for queue in (0, 1):
        ring.open_queue(queue)
    with (
        client_process(ring, 0, "write_and_read_back", address=BASE, size=64) as busy,
        attached(ring, 1) as client,
    ):
        wait_until(lambda: len(board.seen) > 1000)
        for number in range(200):
            client.mmio_write(BASE + 128, number.to_bytes(4, "little"))
            assert client.mmio_read(BASE + 128, 4) == number.to_bytes(4, "little")
        busy.stop()
        assert busy.facts()["accesses"] > 0


def test_queues_that_are_full_take_turns(ring: WatchedRing, board: Board, gate: Gate) -> None:
    ring.open_queue(0)
    count = 200
    with attached(ring, 0) as first, attached(ring, 1) as second:
        first.post(Operation.MMIO_READ, 0x1000, b"x")  # keeps the poller busy
        assert gate.entered.wait(WAIT_S)
        for client, data in ((first, b"0"), (second, b"1")):
            for _ in range(count):
                client.mmio_post(BASE, data)
        ring.open_queue(1)
        gate.leave.set()
        first.flush()
        second.flush()
    of_queue = b"".join(data for _, _, data in board.seen if isinstance(data, bytes))
    runs = [len(run) for run in re.findall(b"0+|1+", of_queue)]
    assert sum(runs) == 2 * count
    # The first run has the rest of the burst in which the poller was stopped, too.
    assert runs[0] < 2 * BURST_MAX
    assert runs[1:-2] == [BURST_MAX] * len(runs[1:-2])
    assert len(runs) > 2 * count // BURST_MAX - 2


def test_an_idle_queue_beside_a_busy_one_is_found_busy_when_it_is(ring: WatchedRing) -> None:
    for queue in (0, 1, 2):
        ring.open_queue(queue)
    with attached(ring, 0) as busy, attached(ring, 1) as other:
        for number in range(2000):
            busy.mmio_write(BASE, number.to_bytes(4, "little"))
            if number % 100 == 0:
                assert other.mmio_read(BASE, 4) == number.to_bytes(4, "little")


def test_a_device_that_hangs_in_one_queue_does_not_hold_up_the_others(
    ring: WatchedRing, board: Board, gate: Gate
) -> None:
    for queue in range(3):
        ring.open_queue(queue)
    with attached(ring, 0) as hanging, attached(ring, 1) as first, attached(ring, 2) as second:
        hanging.post(Operation.MMIO_READ, 0x1000, b"\0")
        for number in range(10):
            hanging.mmio_post(BASE + 64, bytes([number]))
        assert gate.entered.wait(WAIT_S)
        for number in range(200):
            for at, client in ((0, first), (8, second)):
                client.mmio_write(BASE + at, bytes([number]))
                assert client.mmio_read(BASE + at, 1) == bytes([number])
        assert ring.reliefs == 1
        assert board.content[64] == 0, "what comes after the hanging access waits for it"
        gate.leave.set()
        hanging.mmio_write(BASE + 65, b"x")
        assert board.content[64:66] == b"\x09x"
        second.mmio_write(BASE, b"y")
        assert hanging.mmio_read(BASE, 1) == b"y"
    written = [offset for operation, offset, _ in board.seen if operation == "mmio_write"]
    assert len(written) == 10 + 400 + 2, "no access is made twice"


def test_devices_may_hang_in_all_queues_but_one(ring: WatchedRing, io: IoManager) -> None:
    gates = [Gate() for _ in range(4)]
    for number, gate in enumerate(gates):
        io.register_device_io(gate, [MmioAddressRange(0x10000 * (number + 1), 0x1000)])
        ring.open_queue(number)
    ring.open_queue(4)
    with ExitStack() as clients:
        for number, gate in enumerate(gates):
            client = clients.enter_context(attached(ring, number))
            client.post(Operation.MMIO_READ, 0x10000 * (number + 1), b"\0")
            assert gate.entered.wait(WAIT_S)
        last = clients.enter_context(attached(ring, 4))
        last.mmio_write(BASE, b"z")
        assert last.mmio_read(BASE, 1) == b"z"
        assert ring.reliefs == 4
        ring.close()
        assert not ring.join(0.01)
        for gate in gates:
            gate.leave.set()
        assert ring.join(WAIT_S)


class RelievedRing(WatchedRing):
    """A ring whose poller can be relieved between its last look and its sleep."""

    relieve_now = False

    def let_others(self) -> None:
        if self.relieve_now and threading.current_thread() is self._poller:
            self.relieve_now = False
            relieve(self)
        super().let_others()


def relieve(ring: Ring) -> None:
    """Put another poller on duty, as the watch does."""
    with ring._lock:
        assert ring._poller is not None
        relieved = ring._poller
        ring._give(ring._put_on_duty(), *relieved.relieve())


def test_a_poller_that_is_relieved_when_it_is_about_to_sleep_takes_no_queue_along(
    io: IoManager,
) -> None:
    ring = RelievedRing(io.initiator, spin_s=0)
    for queue in (0, 1):
        ring.open_queue(queue)
    with attached(ring, 0) as first, attached(ring, 1) as second:
        for number in range(20):
            ring.relieve_now = True
            first.mmio_write(BASE, bytes([number]))
            wait_until(lambda: not ring.relieve_now)
            # Nobody rings: it must not sleep with the queue that it was at.
            wait_until(lambda: len(ring._pollers) == 1, "the poller to end")
            assert second.mmio_read(BASE, 1) == bytes([number])
    ring.close()
    assert ring.join(WAIT_S)


def test_a_poller_that_is_relieved_in_its_sleep_passes_the_doorbell_on(ring: WatchedRing) -> None:
    for queue in (0, 1):
        ring.open_queue(queue)
    with attached(ring, 0) as first, attached(ring, 1) as second:
        for client in (first, second) * 5:
            ring.until_asleep()
            relieve(ring)
            client.mmio_write(BASE, b"x")
            ring.until_asleep()
            client.mmio_write(BASE, b"y")
        assert ring.late_wakeups == 0


def refuse_threads(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Let no thread start; return what is set when one should have."""
    refused = threading.Event()

    def start(thread: threading.Thread) -> None:
        del thread
        refused.set()
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    return refused


@pytest.mark.parametrize("opened", [0, 1])
def test_a_queue_for_which_there_is_no_thread_can_be_opened_later(
    io: IoManager, monkeypatch: pytest.MonkeyPatch, opened: int
) -> None:
    before = open_fds(), threading.active_count()
    ring = Ring(io.initiator)
    for queue in range(opened):
        ring.open_queue(queue)
    with monkeypatch.context() as patched:
        refuse_threads(patched)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            ring.open_queue(opened)
    ring.open_queue(opened)
    with attached(ring, opened) as client:
        client.mmio_write(BASE, b"x")
    ring.close()
    assert ring.join(WAIT_S)
    assert (open_fds(), threading.active_count()) == before


def test_a_relief_for_which_there_is_no_thread_is_tried_again(
    ring: WatchedRing, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    for queue in (0, 1):
        ring.open_queue(queue)
    with attached(ring, 0) as hanging, attached(ring, 1) as other:
        hanging.post(Operation.MMIO_READ, 0x1000, b"\0")
        assert gate.entered.wait(WAIT_S)
        with monkeypatch.context() as patched:
            refused = refuse_threads(patched)
            other.mmio_post(BASE, b"x")
            assert refused.wait(WAIT_S)
        assert other.mmio_read(BASE, 1) == b"x"
        assert ring.reliefs == 1
        gate.leave.set()
        hanging.mmio_write(BASE, b"y")


def test_a_queue_that_is_not_open_is_not_looked_at(ring: WatchedRing) -> None:
    ring.open_queue(0)
    with attached(ring, 1, timeout_s=0.05) as client:
        client.mmio_post(BASE, b"x")
        with pytest.raises(AccessOverdue):
            client.flush()
        ring.open_queue(1)
        ring.open_queue(1)  # it stays so
        client._timeout_s = WAIT_S
        assert client.mmio_read(BASE, 1) == b"x"
    assert ring.late_wakeups == 0


@pytest.mark.parametrize("queue", [-1, 30, 1 << 63])
def test_a_queue_that_does_not_exist_cannot_be_opened(ring: WatchedRing, queue: int) -> None:
    with pytest.raises(BadRing, match=f"queue {queue} of a ring"):
        ring.open_queue(queue)
    assert ring._poller is None


def test_a_status_stands_for_each_error() -> None:
    assert status_of(DeviceTimeout("late")) is AccessStatus.DEVICE_TIMEOUT
    assert status_of(Draining("stopping")) is AccessStatus.DRAINING
    assert status_of(NoSpace("not an access")) is AccessStatus.DEVICE_FAULT
    assert status_of(MemoryError()) is AccessStatus.DEVICE_FAULT


# Devices that hang.


def test_an_access_that_takes_too_long_is_overdue_and_the_queue_works_after_it(
    ring: WatchedRing, gate: Gate
) -> None:
    ring.open_queue(0)
    with attached(ring, timeout_s=0.05) as client:
        with pytest.raises(AccessOverdue, match=r"no completion within 0\.05 s"):
            client.mmio_read(0x1000, 4)
        for number in range(300):  # more than there is room for: the queue stays full
            try:
                client.mmio_post(BASE, number.to_bytes(4, "little"))
            except AccessOverdue:
                break
        assert number == 255
        gate.leave.set()
        client._timeout_s = WAIT_S
        assert client.mmio_read(BASE, 4) == (254).to_bytes(4, "little")
        assert client.mmio_read(0x1000, 4) == b"\x5a" * 4


def test_closing_does_not_wait_for_the_access_that_is_being_made_but_joining_does(
    io: IoManager, gate: Gate
) -> None:
    before = open_fds()
    ring = Ring(io.initiator)
    ring.open_queue(0)
    with attached(ring) as client:
        client.post(Operation.MMIO_READ, 0x1000, b"1234")
        assert gate.entered.wait(WAIT_S)
        ring.close()
        ring.close()
        assert not ring.join(0.01)
        assert os.fstat(ring.fd).st_size == ring.size  # nothing is freed under the device
        gate.leave.set()
        assert ring.join(WAIT_S)
        assert client.memory[ENTRIES + 64 + 32 : ENTRIES + 64 + 36] == b"\x5a" * 4
    assert open_fds() <= before + 1  # the client's own memory


# Sleeping, waking, spinning.


def test_a_doorbell_wakes_the_sleeping_server(ring: WatchedRing, client: Client) -> None:
    for number in range(1, 6):
        ring.until_asleep()
        assert client.mmio_read(BASE, 1) == b"\0"
        assert client.rung == number
    assert ring.late_wakeups == 0


def test_the_doorbell_wakes_the_server_whichever_queue_it_is_rung_for(
    ring: WatchedRing,
) -> None:
    for queue in (0, 7):
        ring.open_queue(queue)
    with attached(ring, 0) as first, attached(ring, 7) as second:
        for client in (first, second) * 3:
            ring.until_asleep()
            client.mmio_read(BASE, 1)
        assert (first.rung, second.rung) == (3, 3)
    assert ring.late_wakeups == 0


def test_clients_of_two_queues_that_sleep_at_once_are_each_woken(
    ring: WatchedRing, gate: Gate
) -> None:
    for queue in (0, 1):
        ring.open_queue(queue)
    with (
        attached(ring, 0, spin_s=0) as first,
        attached(ring, 1, spin_s=0) as second,
        ThreadPoolExecutor(2) as pool,
    ):
        reading = [pool.submit(client.mmio_read, 0x1000, 4) for client in (first, second)]
        wait_until(lambda: word(ring, CONTROLS // 8) and word(ring, (CONTROLS + CONTROL_SIZE) // 8))
        gate.leave.set()
        assert [each.result(WAIT_S) for each in reading] == [b"\x5a" * 4] * 2
        assert first.late_wakeups == second.late_wakeups == 0


def test_an_entry_that_comes_with_the_barrier_is_seen_without_sleeping(
    ring: WatchedRing, client: Client
) -> None:
    ring.until_asleep()
    armed: list[bool] = []

    def publish() -> None:
        if not armed:
            armed.append(is_asleep(ring))
            client._doorbell = lambda: None  # the server has to see it by itself
            client.mmio_post(BASE, b"x")

    ring._barrier = publish
    client.mmio_read(BASE, 1)  # rings: after this the server goes to sleep again
    wait_until(lambda: armed)
    client.flush()
    assert armed == [True]
    assert ring.late_wakeups == 0


def test_an_entry_without_a_doorbell_is_found_late_and_counted(
    ring: WatchedRing, client: Client
) -> None:
    client._doorbell = lambda: None
    for number in range(1, 4):
        ring.until_asleep()
        began = time.monotonic()
        client.mmio_read(BASE, 1)
        assert time.monotonic() - began < LATE_S
        assert ring.late_wakeups == number
        assert word(ring, LATE_WAKEUPS) == number


def test_a_doorbell_that_rings_just_when_the_server_looks_again_is_not_late(
    ring: WatchedRing, client: Client
) -> None:
    ring.until_asleep()

    def publish() -> None:
        del ring.at_last_look
        client.mmio_post(BASE, b"x")

    ring.at_last_look = publish  # type: ignore[method-assign] # that is what it is for
    wait_until(lambda: client.rung)
    client.flush()
    assert ring.late_wakeups == 0


def test_an_idle_ring_costs_less_than_a_percent_of_a_core(
    ring: WatchedRing, client: Client
) -> None:
    client.mmio_read(BASE, 1)
    ring.until_asleep()
    assert ring._poller is not None
    assert ring._poller.ident is not None
    clock = time.pthread_getcpuclockid(ring._poller.ident)
    began, before = time.monotonic(), time.clock_gettime(clock)
    time.sleep(1.0)  # what is measured is a time in which nothing happens
    spent = time.clock_gettime(clock) - before
    assert spent < 0.01 * (time.monotonic() - began)


def test_the_poller_spins_less_where_accesses_are_far_apart_and_more_where_they_are_near(
    io: IoManager,
) -> None:
    longest_s = 0.05  # so long that a busy machine can't often make a near access a far one
    ring = Ring(io.initiator, spin_s=longest_s)
    ring.open_queue(0)

    assert ring._poller is not None
    spin = ring._poller._spin

    def access_until(client: Client, spin_s: float, gap_s: float) -> None:
        deadline = time.monotonic() + WAIT_S
        while spin.now_s != spin_s:
            assert time.monotonic() < deadline, spin.now_s
            time.sleep(gap_s)
            client.mmio_read(BASE, 1)

    try:
        with attached(ring) as client:
            assert spin.now_s == longest_s
            access_until(client, longest_s / 64, 2 * longest_s)
            access_until(client, longest_s, 0.001)
    finally:
        ring.close()


def test_without_spinning_every_access_is_made_all_the_same(io: IoManager) -> None:
    ring = Ring(io.initiator, spin_s=0)
    ring.open_queue(0)
    with attached(ring, spin_s=0) as client:
        for number in range(500):
            client.mmio_post(BASE, number.to_bytes(4, "little"))
            assert client.mmio_read(BASE, 4) == number.to_bytes(4, "little")
    ring.close()


# Interrupts.


class Alarm(DeviceIo):
    """A write changes the level of its interrupt."""

    def __init__(self, line: InterruptLine) -> None:
        self._line = line

    def write(self, base: int, offset: int, data: ReadableBuffer) -> None:
        self._line.set_level(asserted=bool(data[0]))


def test_the_generation_in_the_ring_counts_the_interrupt_of_an_access_that_has_returned(
    io: IoManager,
) -> None:
    interrupts = InterruptController()
    io.register_device_io(Alarm(interrupts.line(5, "alarm")), [MmioAddressRange(0x1000, 1)])
    interrupts.pulse(30)
    ring = Ring(io.initiator, interrupts=interrupts)
    ring.open_queue(0)
    with attached(ring) as client:
        assert client.interrupt_generation == 1  # it begins with what was before
        for number in range(1, 1000):
            client.mmio_write(0x1000, bytes([number % 2]))
            assert client.interrupt_generation == 1 + number
        interrupts.pulse(30)
        assert client.interrupt_generation == interrupts.generation
    ring.close()
    assert ring.join(WAIT_S)


def test_a_ring_is_made_while_interrupts_change_and_does_not_miss_the_last(io: IoManager) -> None:
    interrupts, stop = InterruptController(), threading.Event()

    def change() -> None:
        while not stop.is_set():
            interrupts.pulse(30)

    with ThreadPoolExecutor(1) as pool:
        changing = pool.submit(change)
        rings = [Ring(io.initiator, interrupts=interrupts) for _ in range(50)]
        stop.set()
        changing.result(WAIT_S)
    found = {word(ring, INTERRUPT_GENERATION) for ring in rings}
    for ring in rings:
        ring.close()
    assert found == {interrupts.generation}


def test_interrupts_that_change_while_rings_close_touch_no_memory_that_is_gone(
    io: IoManager,
) -> None:
    interrupts, stop = InterruptController(), threading.Event()

    def change() -> None:
        while not stop.is_set():
            interrupts.pulse(30)  # raises where a listener does

    with ThreadPoolExecutor(1) as pool:
        changing = pool.submit(change)
        for queues in (0, 1) * 50:
            ring = Ring(io.initiator, interrupts=interrupts)
            for queue in range(queues):
                ring.open_queue(queue)
            ring.close()
            assert ring.join(WAIT_S)
        stop.set()
        changing.result(WAIT_S)
    assert interrupts._listeners == []


# Hostile clients.


def test_the_memory_cannot_be_resized_or_sealed(ring: WatchedRing) -> None:
    for size in (0, ring.size - 1, ring.size + 1):
        with pytest.raises(PermissionError):
            os.ftruncate(ring.fd, size)
    with pytest.raises(PermissionError):
        fcntl.fcntl(ring.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
    assert os.fstat(ring.fd).st_size == ring.size


def test_what_the_client_writes_into_the_header_means_nothing(ring: WatchedRing) -> None:
    scrawl(ring, 0, struct.pack("<8sIII", b"DHRING\0\0", 1, 1, 2048))
    for queue in (0, 14):
        ring.open_queue(queue)
    scrawl(ring, 0, bytes(64))
    ring.open_queue(5)
    RingLayout(15).write_header(memoryview(header := bytearray(64)))
    scrawl(ring, 0, bytes(header))
    for queue in (0, 5, 14):
        with attached(ring, queue) as client:
            client.mmio_write(BASE, bytes([queue]))
            assert client.mmio_read(BASE, 1) == bytes([queue])


def test_a_count_that_the_client_has_raised_to_the_last_number_is_put_right(
    ring: WatchedRing, client: Client
) -> None:
    scrawl(ring, LATE_WAKEUPS * 8, b"\xff" * 8)
    scrawl(ring, CONTROLS + 0x40, b"\xff" * 16)
    client._doorbell = lambda: None
    ring.until_asleep()
    client.mmio_post(BASE - 1, b"x")
    client.flush()
    assert word(ring, LATE_WAKEUPS) == 1
    assert (client.posted_failures, client.posted_failure) == (1, AccessStatus.NO_DEVICE)


def test_a_client_that_hides_that_the_server_sleeps_is_served_late(
    ring: WatchedRing, client: Client
) -> None:
    ring.until_asleep()
    scrawl(ring, NEED_WAKEUP * 8, bytes(8))
    began = time.monotonic()
    client.mmio_read(BASE, 1)
    assert time.monotonic() - began < LATE_S


@pytest.mark.parametrize("blocking", [False, True])
def test_eventfds_that_the_client_has_filled_stop_nobody_but_itself(
    io: IoManager, *, blocking: bool
) -> None:
    ring = Ring(io.initiator)
    ring.open_queue(0)
    with attached(ring) as client:
        wait_until(lambda: is_asleep(ring))
        for fd in (ring.doorbell, ring.wake_ups[0]):
            os.set_blocking(fd, True)
            os.eventfd_write(fd, (1 << 64) - 2)
            os.set_blocking(fd, blocking)
        wait_until(lambda: is_asleep(ring))
        scrawl(ring, CONTROLS, (1).to_bytes(8, "little"))
        client._doorbell = lambda: None
        client.mmio_post(BASE, b"x")
        wait_until(lambda: client.memory[ENTRIES + 64 + 8] == 2)
    ring.close()
    assert ring.join(WAIT_S)


def test_a_doorbell_that_the_client_has_emptied_and_made_block_stops_nobody(
    ring: WatchedRing, client: Client
) -> None:
    os.set_blocking(ring.doorbell, True)
    for _ in range(5):
        wait_until(lambda: is_asleep(ring))
        client.mmio_read(BASE, 1)
        os.eventfd_read(ring.doorbell)


def bus_of_two(honest: Board, target: Board) -> IoManager:
    """A bus with a device for each client. The ports are the target's: rubbish may hit them."""
    io = IoManager()
    io.register_device_io(honest, [MmioAddressRange(BASE, SIZE)])
    io.register_device_io(target, [MmioAddressRange(0x1000, SIZE), PioAddressRange(PORT, SIZE)])
    return io


def test_scribbling_over_one_queue_does_not_touch_another(ring: WatchedRing, board: Board) -> None:
    target = Board(0x1000, PORT)
    ring._accesses_of = bus_of_two(board, target).initiator
    for queue in (0, 1):
        ring.open_queue(queue)
    with (
        client_process(
            ring, 0, "scribble", address=0x1000, everywhere=False, seed=int(FUZZ_S)
        ) as hostile,
        client_process(ring, 1, "write_and_read_back", address=BASE, size=SIZE) as honest,
    ):
        time.sleep(FUZZ_S)  # however long is enough
        honest.stop()
        facts = honest.facts()
        hostile.stop()
        harm = hostile.facts()
    assert facts["accesses"] > 0
    assert facts["posted_failures"] == 0
    assert harm["scribbled"] > 1000
    assert harm["taken"] > 1000
    assert len(board.seen) >= facts["accesses"]
    assert len(target.seen) > 100
    assert all(1 <= (s if isinstance(s, int) else len(s)) <= 32 for _, _, s in target.seen)
    assert ring._poller is not None
    assert ring._poller.is_alive()


def test_scribbling_over_everything_harms_no_other_client(board: Board) -> None:
    target = Board(0x1000, PORT)
    io = bus_of_two(board, target)
    with ExitStack() as closing:
        rings = []
        for _ in range(2):
            rings.append(Ring(io.initiator))
            closing.callback(rings[-1].join, WAIT_S)
            closing.callback(rings[-1].close)
            rings[-1].open_queue(0)
            rings[-1].open_queue(1)
        with (
            client_process(
                rings[0], 0, "scribble", address=0x1000, everywhere=True, seed=int(FUZZ_S)
            ) as hostile,
            client_process(rings[1], 0, "write_and_read_back", address=BASE, size=SIZE) as honest,
        ):
            time.sleep(FUZZ_S)  # however long is enough
            honest.stop()
            facts = honest.facts()
            hostile.stop()
            harm = hostile.facts()
        pollers = [ring._poller for ring in rings if ring._poller is not None]
        assert [poller.is_alive() for poller in pollers] == [True, True]
    assert facts["accesses"] > 0
    assert harm["scribbled"] > 1000
    assert harm["taken"] > 1000
    assert len(target.seen) > 100
    assert [poller.is_alive() for poller in pollers] == [False, False]


# The end.


def test_closing_frees_everything_once(io: IoManager) -> None:
    before = open_fds(), threading.active_count()
    for opened in (0, 1, 3):
        ring = Ring(io.initiator)
        for queue in range(opened):
            ring.open_queue(queue)
        ring.close()
        assert ring.join(WAIT_S)
        ring.close()
    assert (open_fds(), threading.active_count()) == before


def test_closing_does_not_wait_until_the_poller_looks_again(io: IoManager) -> None:
    took_s = 0.0
    for _ in range(20):
        ring = WatchedRing(io.initiator)
        ring.open_queue(0)
        ring.until_asleep()
        began = time.monotonic()
        ring.close()
        assert ring.join(WAIT_S)
        took_s += time.monotonic() - began
    assert took_s < 20 * LOOK_AGAIN_S / 2


def test_a_closed_ring_opens_no_queue(io: IoManager) -> None:
    ring = Ring(io.initiator)
    ring.close()
    before = threading.active_count()
    with pytest.raises(ValueError, match="queue 0 of a ring that is closed"):
        ring.open_queue(0)
    assert threading.active_count() == before


def test_a_device_that_keeps_a_part_of_the_memory_does_not_stop_the_closing(
    io: IoManager, board: Board
) -> None:
    board.content[:4] = b"abcd"
    kept: list[Any] = []
    board.before = lambda data: kept.extend(
        [memoryview(data), (ctypes.c_char * 4).from_buffer(data)]
    )
    before = open_fds()
    ring = Ring(io.initiator)
    ring.open_queue(0)
    with attached(ring) as client:
        client.mmio_read(BASE, 4)
    ring.close()
    assert ring.join(WAIT_S)
    gc.collect()
    assert bytes(kept[0]) == bytes(kept[1]) == b"abcd"
    assert (mappings(), open_fds()) == (1, before + 1)  # a mapping has a descriptor of its own
    kept.clear()
    gc.collect()
    assert (mappings(), open_fds()) == (0, before)


def mappings() -> int:
    """How many rings are mapped into this process."""
    return Path("/proc/self/maps").read_text().count("devicehost-ring")


def test_a_ring_that_cannot_be_made_leaves_nothing_behind(io: IoManager) -> None:
    before = open_fds()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    for allowed in range(25):
        # The lowest free descriptor is about as high as there are descriptors.
        resource.setrlimit(resource.RLIMIT_NOFILE, (before + allowed, limits[1]))
        try:
            Ring(io.initiator).close()
        except OSError:
            continue
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert open_fds() == before
        assert allowed > 15
        break
    else:
        pytest.fail("it could not be made with 25 descriptors more either")


def test_a_thousand_rings_leave_nothing_behind(io: IoManager) -> None:
    def live(*, with_client: bool) -> None:
        ring = Ring(io.initiator)
        ring.open_queue(0)
        if with_client:
            with attached(ring) as client:
                client.mmio_write(BASE, b"x")
        ring.close()
        assert ring.join(WAIT_S)

    for _ in range(20):
        live(with_client=True)
    gc.collect()
    fds, threads, maps, memory = open_fds(), threading.active_count(), mappings(), resident()
    for number in range(1000):
        live(with_client=number % 20 == 0)
    gc.collect()
    assert (open_fds(), threading.active_count(), mappings()) == (fds, threads, maps)
    assert resident() - memory < 1000 * 4096, "bytes of memory"


def resident() -> int:
    """Bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE
