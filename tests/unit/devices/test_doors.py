"""What passes the doors of a device, and what a journal is told of it."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from daemonlab import wait_until
from devicehost.recording.events import Operation
from devicehost_server.devices.base import ConcurrentDevice, Device, DeviceContext, NoConfig, State
from devicehost_server.devices.chardev import Stream, StreamCounters, open_stream
from devicehost_server.devices.doors import Doors
from devicehost_server.model.clock import ManualClock, SystemClock
from devicehost_server.model.device_io import ReadableBuffer
from devicehost_server.model.errors import BadConfig, MemoryNotMapped
from devicehost_server.model.guest_memory import GuestMemory, MappedBacking, MemoryBlock
from devicehost_server.model.interrupts import InterruptController
from devicehost_server.model.resources import DeviceResources, ResourceConstraint

WALL_NS = 1_700_000_000_000_000_000
PAGE = 0x1000


class Pages(list[tuple[Any, ...]]):
    """A journal that is a list."""

    def learned(self, device: str, source: str, value: int | bytes) -> None:
        self.append(("learned", device, source, value))

    def woken(self, device: str, source: str) -> None:
        self.append(("woken", device, source))

    def told(self, device: str, data: bytes) -> None:
        self.append(("told", device, data))

    def dma(self, device: str, operation: Operation, address: int, data: bytes) -> None:
        self.append((operation.value, device, address, data))

    def taken(self) -> list[tuple[Any, ...]]:
        """What was told since the last time."""
        pages = list(self)
        self.clear()
        return pages


class Probe(Device[NoConfig]):
    """A device that does nothing by itself."""

    type_name = "probe"

    stream: Stream

    def get_resource_constraints(self) -> list[ResourceConstraint]:
        return []

    def save(self) -> State:
        return {"now": self.context.clock.now_ns()}


class FreeProbe(ConcurrentDevice[NoConfig]):
    """One without a lock."""

    type_name = "free-probe"

    def get_resource_constraints(self) -> list[ResourceConstraint]:
        return []


class Pond(Stream):
    """A stream whose other end is the test."""

    def __init__(self) -> None:
        super().__init__(0, attached=True)
        self.is_attached = False
        self.input = bytearray()
        self.output = bytearray()
        self.room = 1 << 20
        self.news: Callable[[], None] = lambda: None
        self.closed_in_s: float | None = None

    @property
    def address(self) -> str:
        return "pond"

    @property
    def attached(self) -> bool:
        return self.is_attached

    @property
    def pending(self) -> int:
        return len(self.input)

    def counters(self) -> StreamCounters:
        return StreamCounters(len(self.output), 0, 0)

    def write(self, data: ReadableBuffer) -> int:
        taken = min(self.room, len(data))
        self.output += data[:taken]
        self.room -= taken
        return taken

    def read(self, size: int) -> bytes:
        data = bytes(self.input[:size])
        del self.input[:size]
        return data

    def start(self, listener: Callable[[], None]) -> None:
        self.news = listener

    def close(self, timeout_s: float = 1.0) -> None:
        self.closed_in_s = timeout_s

    def _transfer(self) -> None:
        raise NotImplementedError

    def _release(self) -> None:
        raise NotImplementedError


class Hall:
    """A device behind doors, and all that is on their other side."""

    def __init__(self, device: Probe | FreeProbe | None = None) -> None:
        self.device = device or Probe(NoConfig())
        self.clock = ManualClock(WALL_NS)
        self.memory = GuestMemory()
        self.doors = Doors()
        self.pages = Pages()
        self.pond = Pond()
        outside = DeviceContext(
            "it",
            DeviceResources(),
            self.clock,
            InterruptController(),
            self.memory,
            self.open_stream,
        )
        self.context = self.doors.context(self.device, outside)
        self.device.assign(self.context)
        self.stream = self.context.open_stream("pond")

    def open_stream(self, text: str, *, owner: str = "", capacity: int = 0) -> Stream:
        return self.pond

    def write_journal(self) -> Pages:
        self.doors.journal = self.pages
        return self.pages

    def add_memory(self, *, writable: bool = True) -> bytearray:
        content = bytearray(range(256)) * (PAGE // 256)
        backing = MappedBacking(memoryview(content))
        block = MemoryBlock(0, PAGE, readable=True, writable=writable, backing=backing)
        self.memory.add(block)
        return content


@pytest.fixture(name="hall")
def hall_fixture() -> Hall:
    return Hall()


def test_without_a_journal_all_passes_as_if_there_were_no_doors(hall: Hall) -> None:
    hall.add_memory()
    hall.pond.input += b"in"
    fired: list[int] = []
    timer = hall.context.clock.call_at(5, lambda: fired.append(hall.clock.now_ns()))
    assert timer.deadline_ns == 5
    hall.clock.advance(7)
    assert fired == [5]
    assert (hall.context.clock.now_ns(), hall.context.clock.wall_ns()) == (7, WALL_NS + 7)
    hall.context.memory.write(1, b"xy")
    assert hall.context.memory.read(0, 4) == b"\0xy\3"
    assert hall.stream.pending == 2
    assert hall.stream.read(5) == b"in"
    assert hall.stream.write(b"out") == 3
    assert hall.pond.output == b"out"
    assert not hall.stream.attached
    assert hall.stream.counters().sent == 3
    assert hall.stream.address == "pond"
    assert not hall.pages


def test_each_look_at_a_clock_is_told(hall: Hall) -> None:
    pages = hall.write_journal()
    hall.clock.advance(3)
    hall.context.clock.now_ns()
    hall.context.clock.wall_ns()
    hall.context.clock.now_ns()
    assert pages == [
        ("learned", "it", "now", 3),
        ("learned", "it", "wall", WALL_NS + 3),
        ("learned", "it", "now", 3),
    ]


def test_a_timer_is_told_by_the_name_of_its_function_once_it_has_returned(hall: Hall) -> None:
    pages = hall.write_journal()

    def alarm() -> None:
        hall.context.clock.now_ns()

    hall.context.clock.call_at(9, alarm)
    assert not pages
    hall.clock.advance(10)
    assert pages == [("learned", "it", "now", 9), ("woken", "it", "timer:alarm")]


def test_a_timer_whose_function_raises_is_told(hall: Hall) -> None:
    pages = hall.write_journal()

    def alarm() -> None:
        raise RuntimeError("too loud")

    hall.context.clock.call_at(9, alarm)
    with pytest.raises(RuntimeError, match="too loud"):
        hall.clock.advance(10)
    assert pages == [("woken", "it", "timer:alarm")]


def test_a_cancelled_timer_is_not_told(hall: Hall) -> None:
    pages = hall.write_journal()
    hall.context.clock.call_at(9, pages.clear).cancel()
    hall.clock.advance(10)
    assert not pages


@pytest.fixture(name="clock")
def clock_fixture() -> Iterator[SystemClock]:
    errors: list[BaseException] = []
    clock = SystemClock(errors.append)
    yield clock
    clock.close()
    assert errors == []


def test_a_timer_that_is_cancelled_while_it_waits_for_the_device_does_not_call(
    hall: Hall, clock: SystemClock
) -> None:
    device = hall.device
    assert isinstance(device, Probe)
    door = hall.doors.clock("it", device, clock)
    called = threading.Event()
    passed = threading.Event()
    with device.lock:
        timer = door.call_at(clock.now_ns(), called.set)
        clock.call_at(clock.now_ns(), passed.set)  # behind it on the clock's only thread
        assert not passed.wait(0.05), "the first one waits for the lock"
        timer.cancel()
    assert passed.wait(20)
    assert not called.is_set()


def test_a_timer_runs_under_the_lock_of_its_device(hall: Hall, clock: SystemClock) -> None:
    device = hall.device
    assert isinstance(device, Probe)
    pages = hall.write_journal()
    door = hall.doors.clock("it", device, clock)
    free: list[bool] = []
    done = threading.Event()

    def try_lock() -> None:
        free.append(device.lock.acquire(blocking=False))
        done.set()

    def alarm() -> None:
        thread = threading.Thread(target=try_lock)
        thread.start()
        thread.join()

    door.call_at(0, alarm)
    assert done.wait(20)
    wait_until(lambda: len(pages) == 1)
    assert free == [False]


def test_a_device_without_a_lock_is_woken_and_told(clock: SystemClock) -> None:
    hall = Hall(FreeProbe(NoConfig()))
    pages = hall.write_journal()

    def alarm() -> None:
        pass

    hall.doors.clock("it", hall.device, clock).call_at(0, alarm)
    wait_until(lambda: pages == [("woken", "it", "timer:alarm")])


def test_dma_is_told_with_its_data(hall: Hall) -> None:
    pages = hall.write_journal()
    hall.add_memory()
    memory = hall.context.memory
    memory.write(2, memoryview(b"abc"))
    memory.read(1, 3)
    with memory.view(4, 2) as window:
        assert bytes(window) == b"c\5"
    assert pages == [
        ("write", "it", 2, b"abc"),
        ("read", "it", 1, b"\1ab"),
        ("read", "it", 4, b"c\5"),
    ]


def test_dma_that_fails_is_told_without_data(hall: Hall) -> None:
    pages = hall.write_journal()
    hall.add_memory(writable=False)
    memory = hall.context.memory
    with pytest.raises(MemoryNotMapped):
        memory.read(PAGE, 1)
    with pytest.raises(MemoryNotMapped):
        memory.view(PAGE, 1)
    with pytest.raises(MemoryNotMapped):
        memory.write(0, b"x")
    assert pages == [
        ("read", "it", PAGE, b""),
        ("read", "it", PAGE, b""),
        ("write", "it", 0, b""),
    ]


def test_how_much_input_waits_is_told_when_it_is_new_and_how_often_it_was_not(hall: Hall) -> None:
    pages = hall.write_journal()
    stream, pond = hall.stream, hall.pond
    assert [stream.pending, stream.pending, stream.pending] == [0, 0, 0]
    pond.input += b"abc"
    assert [stream.pending, stream.pending] == [3, 3]
    stream.read(2)
    assert stream.pending == 1
    stream.read(2)
    assert stream.pending == 0
    assert pages == [
        ("learned", "it", "pending", 0),
        ("learned", "it", "unchanged", 2),
        ("learned", "it", "pending", 3),
        ("learned", "it", "read", b"ab"),
        ("learned", "it", "unchanged", 1),
        ("learned", "it", "pending", 1),
        ("learned", "it", "read", b"c"),
        ("learned", "it", "pending", 0),
    ]


def test_whether_there_is_a_peer_is_told(hall: Hall) -> None:
    pages = hall.write_journal()
    seen = [hall.stream.attached]
    hall.pond.is_attached = True
    seen.append(hall.stream.attached)
    assert seen == [False, True]
    assert pages == [("learned", "it", "attached", 0), ("learned", "it", "attached", 1)]


def test_what_a_stream_takes_is_told_and_how_much_only_if_that_is_not_all(hall: Hall) -> None:
    pages = hall.write_journal()
    hall.pond.room = 4
    data = bytearray(b"abc")
    assert hall.stream.write(data) == 3
    data[:] = b"def"
    assert hall.stream.write(data) == 1
    assert hall.stream.write(data) == 0
    assert pages == [
        ("told", "it", b"abc"),
        ("learned", "it", "write", 1),
        ("told", "it", b"d"),
        ("learned", "it", "write", 0),
    ]


def test_news_of_a_stream_is_told_once_the_device_has_heard_it(hall: Hall) -> None:
    device, pages = hall.device, hall.write_journal()
    assert isinstance(device, Probe)
    hall.stream.start(lambda: pages.append(("heard",)))
    hall.pond.news()
    assert pages == [("heard",), ("woken", "it", "stream")]
    with device.lock:
        thread = threading.Thread(target=hall.pond.news)
        thread.start()
        thread.join(0.05)
        assert thread.is_alive(), "it waits for the device"
    thread.join()


def test_to_close_a_stream_closes_the_one_behind_the_door(hall: Hall) -> None:
    hall.stream.close(0.25)
    assert hall.pond.closed_in_s == 0.25


def test_a_real_stream_works_through_its_door(tmp_path: Path, hall: Hall) -> None:
    with capture_logs() as logs:
        real = open_stream(f"file:{tmp_path}/out", owner="it")
        stream = hall.doors.stream("it", hall.device, real)
        pages = hall.write_journal()
        stream.name_events(colour="blue")
        stream.start(lambda: None)
        assert stream.write(b"hello") == 5
        stream.close()
    assert (tmp_path / "out").read_bytes() == b"hello"
    assert pages == [("told", "it", b"hello")]
    assert {log["colour"] for log in logs} == {"blue"}


def test_a_stream_that_can_not_be_opened_is_the_same_error_behind_a_door() -> None:
    hall = Hall()
    context = DeviceContext(
        "it", DeviceResources(), hall.clock, hall.context.interrupts, hall.memory
    )
    with pytest.raises(BadConfig, match="pipe"):
        hall.doors.context(hall.device, context).open_stream("pipe:x")


def test_nobody_is_told_any_more_once_there_is_no_journal(hall: Hall) -> None:
    pages = hall.write_journal()
    hall.context.clock.now_ns()
    hall.doors.journal = None
    hall.context.clock.now_ns()
    assert hall.doors.journal is None
    assert len(pages) == 1


def test_another_journal_is_told_all_that_it_does_not_know(hall: Hall) -> None:
    pages = hall.write_journal()
    assert hall.stream.pending == 0
    hall.doors.journal = other = Pages()
    assert hall.stream.pending == 0
    assert other == pages == [("learned", "it", "pending", 0)]


def test_a_device_that_comes_later_writes_the_same_journal(hall: Hall) -> None:
    pages = hall.write_journal()
    late = Probe(NoConfig())
    hall.doors.clock("late", late, hall.clock).now_ns()
    assert pages == [("learned", "late", "now", 0)]


def test_a_device_of_the_same_name_has_doors_of_its_own(hall: Hall) -> None:
    pages = hall.write_journal()
    assert hall.stream.pending == 0
    other = hall.doors.stream("it", Probe(NoConfig()), Pond())
    assert other.pending == 0
    assert pages == [("learned", "it", "pending", 0)] * 2


def test_a_saved_state_begins_with_all_that_a_replay_has_to_know(hall: Hall) -> None:
    pages = hall.write_journal()
    hall.pond.input += b"abc"
    assert hall.stream.pending == 3
    pages.clear()
    for _ in range(2):
        assert hall.doors.save(hall.device) == {"now": 0}
        assert pages.taken() == [
            ("learned", "it", "attached", 0),
            ("learned", "it", "pending", 3),
            ("learned", "it", "now", 0),
            ("woken", "it", "save"),
        ]
    assert hall.stream.pending == 3
    assert pages == [("learned", "it", "pending", 3)], "whoever wasn't told then is told now"


def test_a_call_beside_the_bus_is_told_and_has_the_device_for_itself(hall: Hall) -> None:
    device, pages = hall.device, hall.write_journal()
    assert isinstance(device, Probe)
    free: list[bool] = []
    with hall.doors.calling(device, "peek:LSR"):
        thread = threading.Thread(target=lambda: free.append(device.lock.acquire(blocking=False)))
        thread.start()
        thread.join()
        device.context.clock.now_ns()
    assert free == [False]
    assert pages == [("learned", "it", "now", 0), ("woken", "it", "peek:LSR")]


def test_doors_do_not_keep_a_device_that_is_gone() -> None:
    hall = Hall()
    doors = hall.doors
    assert len(doors._sides) == 1
    del hall
    gc.collect()
    assert len(doors._sides) == 0
