"""A queue from end to end, one step at a time: order, sizes, failures, overdue accesses."""

from __future__ import annotations

import asyncio
import ctypes
import random
import struct
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from devicehost.access_status import AccessStatus
from devicehost.ring.consumer import BURST_MAX
from devicehost.ring.layout import CONTROLS, DATA_MAX, HELD, LOOK_AGAIN_S, NEED_WAKEUP, Operation
from devicehost.ring.producer import AccessFailed, AccessOverdue
from devicehost.ring.spin import Spin
from devicehost_server.model.device_io import DeviceIo
from devicehost_server.model.errors import DeviceTimeout
from devicehost_server.model.io_manager import IoManager
from ringlab import WAIT_S
from ringpair import BASE, PORT, SIZE, Board, Pair, bus_with


@pytest.fixture
def board() -> Board:
    return Board()


@pytest.fixture
def io(board: Board) -> IoManager:
    return bus_with(board)


@pytest.fixture
def pair(io: IoManager) -> Pair:
    return Pair(io)


def read(pair: Pair, size: int = 1, address: int = BASE) -> bytes:
    data = bytearray(size)
    pair.client.read(Operation.MMIO_READ, address, data)
    return bytes(data)


# Sizes and operations.


@pytest.mark.parametrize("size", range(1, DATA_MAX + 1))
def test_memory_is_read_and_written_in_any_size(pair: Pair, board: Board, size: int) -> None:
    data = bytes(range(0x80, 0x80 + size))
    pair.client.write(Operation.MMIO_WRITE, BASE + 3, data)
    assert board.content[: size + 6] == bytes(3) + data + bytes(3)
    pair.client.post(Operation.MMIO_POST, BASE + 0x40, data[::-1])
    assert read(pair, size, BASE + 3) == data
    assert read(pair, size, BASE + 0x40) == data[::-1]


@pytest.mark.parametrize("size", range(1, DATA_MAX + 1))
def test_ports_take_the_sizes_of_in_and_out_and_no_other(
    pair: Pair, board: Board, size: int
) -> None:
    board.content[:] = bytes(range(SIZE))
    data = bytearray(size)
    if size in (1, 2, 4):
        pair.client.read(Operation.PIO_READ, PORT + 8, data)
        assert data == bytes(range(8, 8 + size))
        pair.client.write(Operation.PIO_WRITE, PORT, b"\xff" * size)
        pair.client.post(Operation.PIO_POST, PORT + 0x10, b"\xee" * size)
        pair.client.flush()
        assert board.content[:size] == b"\xff" * size
        assert board.content[0x10 : 0x10 + size] == b"\xee" * size
        return
    for access in (pair.client.read, pair.client.write):
        operation = Operation.PIO_READ if access == pair.client.read else Operation.PIO_WRITE
        with pytest.raises(AccessFailed, match="BAD_ACCESS_SIZE"):
            access(operation, PORT, data)
    pair.client.post(Operation.PIO_POST, PORT, data)
    pair.client.flush()
    assert pair.client.posted_failures == 1
    assert board.seen == []


def test_what_a_read_does_not_fill_is_zero_whatever_the_entry_held() -> None:
    pair = Pair(bus_with(DeviceIo()), 2)
    for _ in range(10):
        pair.client.write(Operation.MMIO_WRITE, BASE, b"\xff" * 32)
        pair.client.write(Operation.MMIO_WRITE, BASE, b"\xff" * 32)
        assert read(pair, 32) == bytes(32)


def test_a_read_into_a_part_of_something_larger_fills_that_part(pair: Pair, board: Board) -> None:
    board.content[:4] = b"abcd"
    into = bytearray(8)
    pair.client.read(Operation.MMIO_READ, BASE, memoryview(into)[2:6])
    assert into == b"\0\0abcd\0\0"


# Order, and laps.


def test_a_read_sees_the_writes_before_it(pair: Pair) -> None:
    for number in range(1000):
        pair.client.post(Operation.MMIO_POST, BASE, number.to_bytes(4, "little"))
        pair.client.post(Operation.MMIO_POST, BASE + 4, number.to_bytes(4, "little"))
        assert read(pair, 8) == number.to_bytes(4, "little") * 2


@pytest.mark.parametrize("entries", [2, 4, 8, 256])
def test_thousands_of_accesses_go_round_a_small_queue(
    io: IoManager, board: Board, entries: int
) -> None:
    pair = Pair(io, entries)
    chance = random.Random(entries)
    expected: list[tuple[str, int, bytes | int]] = []
    for number in range(5000):
        offset = chance.randrange(SIZE - 4)
        data = number.to_bytes(4, "little")
        what = chance.choice(["read", "write", "post", "post", "flush"])
        if what == "read":
            assert read(pair, 4, BASE + offset) == board.content[offset : offset + 4]
            expected.append(("mmio_read", offset, 4))
        elif what == "flush":
            pair.client.flush()
            assert board.seen == expected
        else:
            access = pair.client.write if what == "write" else pair.client.post
            operation = Operation.MMIO_WRITE if what == "write" else Operation.MMIO_POST
            access(operation, BASE + offset, data)
            expected.append(("mmio_write", offset, data))
    pair.client.flush()
    assert board.seen == expected


def test_a_full_queue_is_waited_for_until_half_of_it_is_free(io: IoManager, board: Board) -> None:
    pair = Pair(io, 8)
    for number in range(8):
        pair.client.post(Operation.MMIO_POST, BASE, bytes([number]))
    assert (pair.slept, board.seen) == ([], [])
    waiting: list[int] = []

    def serve() -> None:
        waiting.extend(struct.unpack_from("<Q", pair.memory, CONTROLS))
        pair.server.serve(1)

    pair.asleep = serve
    for number in range(8, 12):
        pair.client.post(Operation.MMIO_POST, BASE, bytes([number]))
    assert waiting == [4]
    pair.client.flush()
    assert [data for _, _, data in board.seen] == [bytes([number]) for number in range(12)]


def test_room_is_as_large_as_the_queue_after_an_answer_that_came_at_once(
    io: IoManager, board: Board
) -> None:
    pair = Pair(io, 4)
    struct.pack_into("<Q", pair.memory, NEED_WAKEUP * 8, 1)
    pair.at_doorbell = lambda: pair.server.serve(1)
    read(pair)
    assert pair.slept == []
    pair.at_doorbell = lambda: None
    for number in range(5):
        pair.client.post(Operation.MMIO_POST, BASE, bytes([number]))
    assert len(pair.slept) == 1
    pair.client.flush()
    assert [data for _, _, data in board.seen[1:]] == [bytes([number]) for number in range(5)]


def test_a_server_takes_so_many_at_once_and_no_more(io: IoManager) -> None:
    pair = Pair(io, 256)
    for _ in range(BURST_MAX + 10):
        pair.client.post(Operation.MMIO_POST, BASE, b"x")
    assert [pair.server.serve(1) for _ in range(3)] == [BURST_MAX, 10, 0]


def test_flush_waits_only_for_what_is_not_made(pair: Pair) -> None:
    pair.client.flush()
    pair.client.post(Operation.MMIO_POST, BASE, b"x")
    pair.client.flush()
    pair.client.flush()
    read(pair)
    pair.client.flush()
    assert len(pair.slept) == 2


# Failures.


def test_each_status_comes_from_the_access_that_it_is_about(pair: Pair, board: Board) -> None:
    def status(operation: Operation, address: int, size: int) -> AccessStatus:
        reads = operation in (Operation.MMIO_READ, Operation.PIO_READ)
        access: Any = pair.client.read if reads else pair.client.write
        with pytest.raises(AccessFailed) as caught:
            access(operation, address, bytearray(size))
        return caught.value.status

    for space, base in (("MMIO", BASE), ("PIO", PORT)):
        for direction in ("READ", "WRITE"):
            operation = Operation[f"{space}_{direction}"]
            assert status(operation, base - 1, 1) is AccessStatus.NO_DEVICE
            assert status(operation, base + SIZE, 1) is AccessStatus.NO_DEVICE
            assert status(operation, base + SIZE - 1, 2) is AccessStatus.ACCESS_OUT_OF_RANGE
            assert status(operation, base, 0) is AccessStatus.BAD_ACCESS_SIZE
            assert board.seen == []
            board.failing = ValueError("broken")
            assert status(operation, base, 1) is AccessStatus.DEVICE_FAULT
            board.failing = DeviceTimeout("busy")
            assert status(operation, base, 1) is AccessStatus.DEVICE_TIMEOUT
            board.failing = None
    assert status(Operation.MMIO_READ, BASE, 33) is AccessStatus.BAD_ACCESS_SIZE
    assert status(Operation.MMIO_READ, (1 << 64) - 1, 1) is AccessStatus.NO_DEVICE
    assert status(Operation.PIO_READ, 1 << 63, 1) is AccessStatus.NO_DEVICE
    assert read(pair) == b"\0"


@pytest.mark.parametrize("operation", [0, 7, 255])
def test_an_operation_that_is_none_is_a_bad_access(pair: Pair, operation: int) -> None:
    with pytest.raises(AccessFailed, match=r"^BAD_ACCESS$"):
        pair.client.read(operation, BASE, bytearray(1))


@pytest.mark.parametrize(
    "error", [asyncio.CancelledError(), SystemExit(), KeyboardInterrupt(), GeneratorExit()]
)
def test_whatever_a_device_raises_is_that_accesss_and_no_more(
    pair: Pair, board: Board, error: BaseException
) -> None:
    board.failing = error
    with pytest.raises(AccessFailed, match="DEVICE_FAULT"):
        read(pair)
    board.failing = None
    assert read(pair) == b"\0"


def test_failed_posted_writes_are_counted_and_the_others_are_made(pair: Pair, board: Board) -> None:
    client = pair.client
    assert (client.posted_failures, client.posted_failure) == (0, AccessStatus.OK)
    for number in range(30):
        client.post(Operation.MMIO_POST, BASE if number % 3 else BASE - 1, bytes([number]))
    client.flush()
    assert (client.posted_failures, client.posted_failure) == (10, AccessStatus.NO_DEVICE)
    assert [data for _, _, data in board.seen] == [bytes([n]) for n in range(30) if n % 3]
    client.post(Operation.PIO_POST, PORT, b"abc")
    client.flush()
    assert (client.posted_failures, client.posted_failure) == (11, AccessStatus.BAD_ACCESS_SIZE)


def test_a_failed_write_that_was_waited_for_is_not_a_posted_one(pair: Pair) -> None:
    with pytest.raises(AccessFailed):
        pair.client.write(Operation.MMIO_WRITE, BASE - 1, b"x")
    assert pair.client.posted_failures == 0


@pytest.mark.parametrize(
    ("operation", "address", "data"),
    [
        (Operation.MMIO_POST, -1, b"x"),
        (Operation.MMIO_POST, 1 << 64, b"x"),
        (Operation.MMIO_POST, BASE, bytes(33)),
        ("write", BASE, b"x"),
    ],
)
def test_an_access_that_cannot_be_written_down_leaves_the_queue_as_it_was(
    pair: Pair, operation: Any, address: int, data: bytes
) -> None:
    for _ in range(20):
        with pytest.raises((ValueError, IndexError, TypeError)):
            pair.client.post(operation, address, data)
    with pytest.raises((ValueError, TypeError)):
        pair.client.read(operation, -1, bytearray(1))
    assert read(pair) == b"\0"


# Overdue accesses.


def test_an_access_that_nobody_makes_is_overdue_in_time_and_made_later(
    io: IoManager, board: Board
) -> None:
    pair = Pair(io, timeout_s=0)
    pair.asleep = lambda: None
    with pytest.raises(AccessOverdue, match=r"within 0 s"):
        read(pair)
    with pytest.raises(AccessOverdue):
        pair.client.write(Operation.MMIO_WRITE, BASE, b"x")
    pair.at_barrier = lambda: pair.server.serve(1)
    assert read(pair) == b"x"
    assert [operation for operation, _, _ in board.seen] == ["mmio_read", "mmio_write", "mmio_read"]


def test_a_queue_that_stays_full_is_overdue_and_works_again_later(
    io: IoManager, board: Board
) -> None:
    pair = Pair(io, 4, timeout_s=0)
    for number in range(4):
        pair.client.post(Operation.MMIO_POST, BASE, bytes([number]))
    for access in (pair.client.post, pair.client.write):
        with pytest.raises(AccessOverdue):
            access(Operation.MMIO_WRITE, BASE, b"lost")
    with pytest.raises(AccessOverdue):
        read(pair)
    with pytest.raises(AccessOverdue):
        pair.client.flush()
    pair.at_barrier = lambda: pair.server.serve(1)
    assert read(pair) == b"\3"
    assert [data for _, _, data in board.seen] == [b"\0", b"\1", b"\2", b"\3", 1]


def test_the_time_of_an_access_begins_anew_when_it_is_no_longer_held(io: IoManager) -> None:
    pair = Pair(io, timeout_s=0.4)

    held = iter([(1, 0.3), (0, 0.2)])  # let go before its own time is up, completed after it

    def asleep() -> None:
        count, for_s = next(held, (0, 0.0))
        struct.pack_into("<Q", pair.memory, 8 * HELD, count)
        time.sleep(for_s)
        if not for_s:
            pair.server.serve(1)

    pair.asleep = asleep
    assert read(pair) == b"\0"


def test_a_client_sleeps_until_the_access_is_overdue_and_no_longer_than_it_looks_again(
    io: IoManager,
) -> None:
    pair = Pair(io, timeout_s=60)
    signals = iter([True, True])
    pair.asleep = lambda: next(signals, None) or pair.server.serve(1)
    read(pair)
    assert pair.slept == [LOOK_AGAIN_S] * 3
    assert struct.unpack_from("<Q", pair.memory, CONTROLS) == (0,)


# Sleeping and waking.


def test_a_completion_that_comes_with_the_barrier_is_seen_without_sleeping(pair: Pair) -> None:
    seen_by_the_server: list[int] = []

    def serve() -> None:
        seen_by_the_server.extend(struct.unpack_from("<Q", pair.memory, CONTROLS))
        pair.server.serve(1)

    pair.at_barrier = serve
    assert read(pair) == b"\0"
    assert seen_by_the_server == [1]
    assert pair.slept == []


def test_a_sleeping_client_is_woken_once_for_what_it_waits_for(io: IoManager) -> None:
    pair = Pair(io, 64)
    for _ in range(BURST_MAX - 1):
        pair.client.post(Operation.MMIO_POST, BASE, b"x")
    pair.client.flush()
    assert (pair.woken, len(pair.slept)) == (1, 1)


def test_a_client_that_does_not_sleep_is_not_woken(pair: Pair) -> None:
    pair.client.post(Operation.MMIO_POST, BASE, b"x")
    pair.server.serve(1)
    assert pair.woken == 0


def test_a_completion_found_without_a_signal_is_counted_as_late(pair: Pair) -> None:
    read(pair)
    assert pair.client.late_wakeups == 0
    pair.signalled = False
    for number in range(1, 4):
        read(pair)
        assert pair.client.late_wakeups == number


def test_a_signal_that_comes_just_after_the_sleep_is_not_late(pair: Pair) -> None:
    pair.signalled = False

    def wake_up_late() -> None:
        if not pair.server.serve(1):
            pair.signalled = True  # the second look finds it

    pair.asleep = wake_up_late
    read(pair)
    assert pair.client.late_wakeups == 0
    assert pair.slept == [LOOK_AGAIN_S, 0]


def test_spins_in_vain_make_the_client_spin_less(pair: Pair) -> None:
    spin = pair.client._spin = Spin(1e-9)
    for _ in range(6):
        read(pair)
    assert spin.now_s == 1e-9 / 64
    assert len(pair.slept) == 6


def test_spins_that_see_the_completion_make_the_client_spin_more(pair: Pair) -> None:
    spin = pair.client._spin = Spin(WAIT_S)
    spin.now_s = WAIT_S / 64
    done = threading.Event()

    def serve() -> None:
        while not done.is_set():
            pair.server.serve(1)

    with ThreadPoolExecutor(1) as pool:
        serving = pool.submit(serve)
        deadline = time.monotonic() + WAIT_S
        while spin.now_s < WAIT_S:  # one that is there at the first look needs no spin
            assert time.monotonic() < deadline
            read(pair)
        done.set()
        serving.result(WAIT_S)
    assert pair.slept == []


# A wait that raises: the connection is lost.


class Lost(Exception):
    """What the client's wait raises."""


@pytest.mark.parametrize("way", ["read", "write", "post", "flush"])
def test_a_wait_that_raises_ends_the_access_and_says_no_more_that_anybody_waits(
    io: IoManager, way: str
) -> None:
    pair = Pair(io, 4)
    if way in ("post", "flush"):
        for _ in range(4):
            pair.client.post(Operation.MMIO_POST, BASE, b"x")
    waiting: list[int] = []

    def lose() -> None:
        waiting.extend(struct.unpack_from("<Q", pair.memory, CONTROLS))
        raise Lost

    pair.asleep = lose
    accesses: dict[str, Callable[[], object]] = {
        "read": lambda: read(pair),
        "write": lambda: pair.client.write(Operation.MMIO_WRITE, BASE, b"x"),
        "post": lambda: pair.client.post(Operation.MMIO_POST, BASE, b"x"),
        "flush": pair.client.flush,
    }
    with pytest.raises(Lost):
        accesses[way]()
    assert waiting == [{"read": 1, "write": 1, "post": 2, "flush": 4}[way]]
    assert struct.unpack_from("<Q", pair.memory, CONTROLS) == (0,)
    pair.client.close()
    pair.server.close()
    pair.memory.release()  # nobody holds on to it


# A client that isn't ours.


def test_what_a_write_brings_does_not_change_under_the_device(pair: Pair, board: Board) -> None:
    def scribble(_data: object) -> None:
        pair.memory[0x1000:] = b"\xee" * (len(pair.memory) - 0x1000)

    board.before = scribble
    pair.client.post(Operation.MMIO_POST, BASE, b"abcd")
    pair.server.serve(1)
    assert board.seen == [("mmio_write", 0, b"abcd")]


def test_what_an_entry_asks_for_is_read_once(pair: Pair, board: Board) -> None:
    board.content[:4] = b"abcd"

    def scribble(data: object) -> None:
        assert isinstance(data, memoryview)
        assert len(data) == 4
        struct.pack_into("<QQ", pair.memory, 0x1040 + 0x10, 0, 0xFFFF_FFFF_FFFF_FFFF)

    board.before = scribble
    assert read(pair, 4) == b"abcd"
    assert pair.client.posted_failures == 0


@pytest.mark.parametrize("waiting", [2, 1 << 63, (1 << 64) - 1])
def test_a_client_that_says_it_waits_for_what_is_not_made_is_not_woken(
    pair: Pair, waiting: int
) -> None:
    pair.client.post(Operation.MMIO_POST, BASE, b"x")
    struct.pack_into("<Q", pair.memory, CONTROLS, waiting)
    assert pair.server.serve(1) == 1
    assert pair.woken == 0


# The end.


def test_closing_lets_go_of_the_memory(io: IoManager) -> None:
    pair = Pair(io)
    whole = pair.memory.obj
    read(pair)
    pair.client.close()
    pair.server.close()
    pair.memory.release()
    assert isinstance(whole, bytearray)
    whole.clear()  # not while anybody holds a view of it


def test_a_device_that_kept_its_buffer_finds_it_gone(pair: Pair, board: Board) -> None:
    kept: list[Any] = []
    board.before = kept.append
    read(pair, 4)
    pair.server.close()
    with pytest.raises(ValueError, match="released"):
        kept[0][0] = 1


def test_a_device_that_still_uses_its_buffer_does_not_stop_the_closing(
    pair: Pair, board: Board
) -> None:
    board.content[:4] = b"abcd"
    kept: list[Any] = []
    # A memoryview is a window of its own; ctypes, like numpy, holds on to the one it got.
    board.before = lambda data: kept.extend(
        [memoryview(data), (ctypes.c_char * 4).from_buffer(data)]
    )
    read(pair, 4)
    pair.server.close()
    assert bytes(kept[0]) == bytes(kept[1]) == b"abcd"
