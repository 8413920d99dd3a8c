"""A device learns in a replay what it learned when it was recorded, in whatever order it asks."""

from __future__ import annotations

import io
import random
import zlib
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devicehost.recording import DeviceRecord, Header, Recording, RecordingWriter
from devicehost.recording.events import (
    Access,
    Dma,
    Event,
    Learned,
    Operation,
    Space,
    Told,
    Woken,
)
from devicehost_server.devices.base import Device, DeviceContext, NoConfig, State
from devicehost_server.devices.chardev import Stream, StreamCounters
from devicehost_server.devices.doors import Doors
from devicehost_server.devices.registry import DeviceTypes
from devicehost_server.model.clock import Callback, Clock, Timer
from devicehost_server.model.device_io import ReadableBuffer, WritableBuffer
from devicehost_server.model.errors import MemoryNotMapped
from devicehost_server.model.interrupts import InterruptController
from devicehost_server.model.resources import (
    DeviceResources,
    MmioAddressConstraint,
    MmioAddressRange,
    ResourceConstraint,
)
from devicehost_server.replay import Replayer, What
from devicehost_server.replay.world import World
from devicehost_server.resource_json import resources_to_json

BASE, SIZE = 0x1000, 0x1000
QUESTIONS = "nwparotdmv"
SAVED = "saved"
SAVED_FOR_ANOTHER = "saved for another recording, which alone is told"


class Asker(Device[NoConfig]):
    """Asks the world what is written to it, one question a byte; a read sums the answers up."""

    type_name = "asker"

    def __init__(self, config: NoConfig) -> None:
        super().__init__(config)
        self._digest = 0

    def get_resource_constraints(self) -> list[ResourceConstraint]:
        return [MmioAddressConstraint.exact(BASE, SIZE)]

    def assign(self, context: DeviceContext) -> None:
        super().assign(context)
        self._stream = context.open_stream("somewhere")

    def read(self, base: int, offset: int, data: WritableBuffer) -> None:
        data[:] = self._digest.to_bytes(4, "little")

    def write(self, base: int, offset: int, data: ReadableBuffer) -> None:
        for question in bytes(data).decode():
            answer = repr(self._ask(question)).encode()
            self._digest = zlib.crc32(answer, self._digest)

    def _ask(self, question: str) -> object:
        context, stream = self.context, self._stream
        at = self._digest & 0xFFF
        asks: dict[str, Callable[[], object]] = {
            "n": context.clock.now_ns,
            "w": context.clock.wall_ns,
            "p": lambda: stream.pending,
            "a": lambda: stream.attached,
            "r": lambda: stream.read(5),
            "o": lambda: stream.write(b"output"[: at % 7]),
            "t": lambda: stream.write(bytes([at & 0xFF])),
            "d": lambda: context.memory.read(at, 3),
            "m": lambda: context.memory.write(at, b"memory"),
            "v": lambda: bytes(context.memory.view(at, 2)),
        }
        try:
            return asks[question]()
        except MemoryNotMapped:
            return "not mapped"

    def save(self) -> State:
        return {"digest": self._digest}

    def restore(self, state: State) -> None:
        self._digest = state["digest"]


class Whims(Clock, Stream):
    """A world that answers as it likes: clock, memory and stream in one."""

    def __init__(self, seed: int) -> None:
        super().__init__(0, attached=False)
        self._chance = random.Random(seed)

    def open(self, text: str, *, owner: str = "", capacity: int = 0) -> Stream:
        return self

    def now_ns(self) -> int:
        return self._chance.randrange(1 << 40)

    def wall_ns(self) -> int:
        return self._chance.randrange(1 << 60)

    def call_at(self, deadline_ns: int, callback: Callback) -> Timer:
        raise NotImplementedError

    @property
    def address(self) -> str:
        raise NotImplementedError

    @property
    def attached(self) -> bool:
        return self._chance.random() < 0.5

    @property
    def pending(self) -> int:
        return self._chance.choice((0, 0, 0, 1, 2))

    def counters(self) -> StreamCounters:
        raise NotImplementedError

    def write(self, data: ReadableBuffer) -> int:
        return self._chance.choice((len(data), self._chance.randint(0, len(data))))

    def read(self, size: int) -> bytes:
        return self._chance.randbytes(self._chance.randint(0, size))

    def _transfer(self) -> None:
        raise NotImplementedError

    def _release(self) -> None:
        raise NotImplementedError


class WhimsicalMemory:
    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)

    def read(self, address: int, size: int) -> bytes:
        if self._chance.random() < 0.3:
            raise MemoryNotMapped("not today")
        return self._chance.randbytes(size)

    def write(self, address: int, data: ReadableBuffer) -> None:
        if self._chance.random() < 0.3:
            raise MemoryNotMapped("not today")

    def view(self, address: int, size: int) -> memoryview:
        return memoryview(self.read(address, size))


class Secretary:
    """A journal, as events."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def learned(self, device: str, source: str, value: int | bytes) -> None:
        self.events.append(Learned(0, device, source, value))

    def woken(self, device: str, source: str) -> None:
        self.events.append(Woken(0, device, source))

    def told(self, device: str, data: bytes) -> None:
        self.events.append(Told(0, device, data))

    def dma(self, device: str, operation: Operation, address: int, data: bytes) -> None:
        self.events.append(Dma(0, device, operation, address, data))


def recorded(accesses: Sequence[str], seed: int) -> tuple[Header, list[Event]]:
    """Have an asker ask these questions, a string in each access; or save it."""
    device = Asker(NoConfig())
    doors = Doors()
    whims = Whims(seed)
    resources = DeviceResources([MmioAddressRange(BASE, SIZE)])
    context = DeviceContext(
        "it",
        resources,
        whims,
        InterruptController(),
        WhimsicalMemory(seed),
        whims.open,
    )
    device.assign(doors.context(device, context))
    doors.journal = secretary = Secretary()
    record = DeviceRecord(
        "it",
        "asker",
        {},
        tuple(resources_to_json(resources)),
        ((Space.MMIO, BASE, SIZE),),
        None,
        doors.save(device),
    )
    for questions in accesses:
        if questions in {SAVED, SAVED_FOR_ANOTHER}:
            count = len(secretary.events)
            doors.save(device)
            if questions == SAVED_FOR_ANOTHER:
                del secretary.events[count:]
            continue
        data = questions.encode()
        device.write(BASE, 0, data)
        access = Access(0, 0, 0, Space.MMIO, Operation.WRITE, BASE, len(data), data)
        secretary.events.append(access)
        answers = bytearray(4)
        device.read(BASE, 0, answers)
        access = Access(0, 0, 0, Space.MMIO, Operation.READ, BASE, 4, bytes(answers))
        secretary.events.append(access)
    return Header((record,)), secretary.events


def recording(header: Header, events: Sequence[Event]) -> Recording:
    file = io.BytesIO()
    writer = RecordingWriter(file, header)
    for event in events:
        writer.write(event)
    writer.close()
    file.seek(0)
    return Recording.read(file)


TYPES = DeviceTypes([Asker], discover=False)


@given(
    st.lists(
        st.one_of(
            st.text(QUESTIONS, min_size=1, max_size=12),
            st.text("pr", min_size=1, max_size=12),
            st.sampled_from((SAVED, SAVED_FOR_ANOTHER)),
        ),
        max_size=12,
    ),
    st.integers(0, 1 << 32),
)
def test_whatever_a_device_asks_it_gets_the_same_answers(accesses: list[str], seed: int) -> None:
    header, events = recorded(accesses, seed)
    assert list(Replayer(recording(header, events), TYPES).run()) == []


@pytest.mark.parametrize("question", QUESTIONS)
def test_another_answer_is_noticed(question: str) -> None:
    header, events = recorded(["nwpar", question * 4, question * 4], seed=3)
    changed = 0
    for number, event in enumerate(events):
        other: Event | None = None
        match event:
            case Learned(value=bytes(value)):
                other = Learned(0, "it", event.source, value + b"!" if len(value) < 5 else b"")
            case Learned(value=int(value)):
                other = Learned(0, "it", event.source, value ^ 1)
            case Dma(data=data):
                other = Dma(0, "it", event.operation, event.address, data[:-1] + b"!")
            case Told(data=data):
                other = Told(0, "it", data[:-1] + b"!")
        if other is not None and number > 10:
            changed += 1
            altered = [*events[:number], other, *events[number + 1 :]]
            assert list(Replayer(recording(header, altered), TYPES).run()), event
    assert changed


def test_what_was_not_recorded_is_asked_for_in_words() -> None:
    header, events = recorded(["n", "d", "r"], seed=1)
    bare = [event for event in events if isinstance(event, Access)]
    found = list(Replayer(recording(header, bare), TYPES).run())
    asked = [difference.got for difference in found if difference.what is What.ASKED]
    assert asked[0] == "now"
    assert asked[1].startswith("3 bytes of guest memory at 0x")
    assert asked[2] == "5 bytes of input"


def test_a_device_that_does_less_than_it_did_gets_no_more_than_it_can_take() -> None:
    world = World(0, 0)
    stream = world.open_stream("pty")
    told = (Learned(0, "it", "write", 3), Told(0, "it", b"abc"))
    world.begin((*told, Learned(0, "it", "read", b"defgh")))
    assert stream.write(b"a") == 1
    assert stream.read(2) == b"de"
    outcome = world.end()
    assert outcome is not None
    assert bytes(outcome.expected.output) == b"abc"
    assert bytes(outcome.got.output) == b"a"


def test_guest_memory_is_given_only_as_it_was_read() -> None:
    world = World(0, 0)
    world.begin((Dma(0, "it", Operation.READ, 0x10, b"abc"),))
    with pytest.raises(MemoryNotMapped):
        world.memory.read(0x10, 2)
    with pytest.raises(MemoryNotMapped):
        world.memory.read(0x11, 3)
    assert world.memory.read(0x10, 3) == b"abc"
    outcome = world.end()
    assert outcome is not None
    assert outcome.asked == [
        "2 bytes of guest memory at 0x10",
        "3 bytes of guest memory at 0x11",
    ]


def test_what_a_device_does_not_ask_for_counts_the_next_time() -> None:
    world = World(0, 0)
    stream = world.open_stream("pty")
    world.begin((Learned(0, "it", "pending", 3), Learned(0, "it", "now", 5)))
    assert world.end() is None
    world.begin(())
    assert stream.pending == 3
    assert world.end() is None
    assert world.clock.now_ns() == 5


def test_a_timer_is_found_by_its_name_the_earliest_first() -> None:
    world = World(0, 0)
    called: list[int] = []

    def alarm() -> None:
        called.append(0)

    def other() -> None:
        called.append(1)

    late = world.clock.call_at(9, alarm)
    world.clock.call_at(5, alarm)
    world.clock.call_at(1, other)
    first, second = world.due("timer:alarm"), world.due("timer:other")
    assert first is alarm
    assert second is other
    late.cancel()
    assert world.due("timer:alarm") is None


def test_outside_of_an_activation_nothing_comes_and_nothing_goes() -> None:
    world = World(7, 8)
    stream = world.open_stream("pty")
    assert (world.clock.now_ns(), world.clock.wall_ns()) == (7, 8)
    assert (stream.pending, stream.read(1), stream.write(b"x"), stream.attached) == (
        0,
        b"",
        0,
        True,
    )
    assert stream.address == "pty"
    with pytest.raises(MemoryNotMapped):
        world.memory.read(0, 1)
    with pytest.raises(MemoryNotMapped):
        world.memory.write(0, b"x")
    world.begin(())
    assert world.end() is None
