"""The world of a device in a replay. It tells the device what it was told in the recording.

Nothing real is behind it. A device that is woken, or accessed, is in an activation: it asks,
and gets the answers that were recorded with it, each once, in order. What it does to the
world is kept, to be compared. The rules by which a recording leaves things out are those of
`devicehost_server.devices.doors`.

    world.begin(feeds)      # what was recorded of this device since its last activation
    ...                     # the device is called
    outcome = world.end()

Outside of an activation, while the device is set up, the clock stands still, the peer is
there or not as was told last, no input comes, no output is taken, and no memory is there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from devicehost.recording.events import Dma, Event, Interrupt, Learned, Operation, Told
from devicehost_server.devices.chardev import DEFAULT_CAPACITY, Stream, StreamCounters
from devicehost_server.devices.doors import timer_source
from devicehost_server.model.clock import Callback, Clock, Timer
from devicehost_server.model.device_io import ReadableBuffer
from devicehost_server.model.errors import MemoryNotMapped, hex_address


@dataclass(slots=True)
class Effects:
    """What a device did to the world in one activation.

    Attributes:
        interrupts: changes of GSIs: number, and what happened.
        dma: writes to guest memory: address, and what was written.
        output: what its streams took.
    """

    interrupts: list[tuple[int, str]] = field(default_factory=list)
    dma: list[tuple[int, bytes]] = field(default_factory=list)
    output: bytearray = field(default_factory=bytearray)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an activation came to.

    Attributes:
        expected: what the device did when it was recorded.
        got: what it did now.
        asked: what it asked for though the recording doesn't have it, in words.
    """

    expected: Effects
    got: Effects
    asked: list[str]


class World:
    """What surrounds one device.

    Args:
        now_ns: the monotonic time at which it begins.
        wall_ns: the same on the wall.

    Attributes:
        clock: the device's clock.
        memory: the guest's memory.
        listeners: what streams call when there is news.
        entrances: the device's ways in for threads of its own, by name.
    """

    def __init__(self, now_ns: int, wall_ns: int) -> None:
        self.clock = WorldClock(self)
        self.memory = WorldMemory(self)
        self.listeners: list[Callable[[], None]] = []
        self.entrances: dict[str, Callable[[], None]] = {}
        self._last: dict[str, int] = {"now": now_ns, "wall": wall_ns, "attached": 1, "pending": 0}
        self._numbers: dict[str, deque[int]] = {name: deque() for name in self._last}
        self._unchanged: deque[int] = deque()
        self._same = 0  # how often `pending` had the last answer
        self._reads: deque[bytes] = deque()
        self._dma_reads: deque[tuple[int, bytes]] = deque()
        self._dma_failures: set[int] = set()
        self._limits: deque[int | None] = deque()
        self._is_active = self._is_fed = False
        self._expected, self._got = Effects(), Effects()
        self._asked: list[str] = []
        self._timers: list[tuple[str, Timer]] = []

    def open_stream(
        self, text: str, *, owner: str = "", capacity: int = DEFAULT_CAPACITY
    ) -> Stream:
        """Make a stream; of what it is to be only the answers are known."""
        del owner, capacity
        return WorldStream(self, text)

    def entrance(self, name: str, callback: Callable[[], None]) -> Callable[[], None]:
        """Keep a way into the device; nobody but the recording goes it."""
        self.entrances[name] = callback
        return lambda: None

    # Activations.

    def introduce(self, feeds: Iterable[Event]) -> None:
        """Take over what was known when the device was saved, before it is set up."""
        for event in feeds:
            if (
                isinstance(event, Learned)
                and event.source in self._last
                and isinstance(event.value, int)
            ):
                self._last[event.source] = event.value

    def begin(self, feeds: Sequence[Event]) -> None:
        """Begin an activation, in which the device learned, and did, what `feeds` say."""
        self._is_active = True
        self._is_fed = bool(feeds)
        limit: int | None = None
        expected = self._expected
        for event in feeds:
            match event:
                case Learned(source="write", value=int(taken)):
                    limit = taken
                    if not taken:
                        self._limits.append(0)
                        limit = None
                case Learned():
                    self._feed(event)
                case Told(data=data):
                    expected.output += data
                    self._limits.append(limit)
                    limit = None
                case Interrupt(gsi=gsi, kind=kind):
                    expected.interrupts.append((gsi, kind.value))
                case Dma(operation=Operation.READ, address=address, data=data):
                    self._dma_reads.append((address, data))
                case Dma(address=address, data=data) if data:
                    expected.dma.append((address, data))
                case Dma(address=address):
                    self._dma_failures.add(address)

    def end(self) -> Outcome | None:
        """End the activation; return None if all was as it was recorded.

        What the device didn't ask for is forgotten.
        """
        self._is_active = False
        if self._is_fed:
            self._forget()
        if self._expected == self._got and not self._asked:
            if self._is_fed:
                self._expected, self._got = Effects(), Effects()
            return None
        outcome = Outcome(self._expected, self._got, self._asked)
        self._expected, self._got, self._asked = Effects(), Effects(), []
        return outcome

    def _forget(self) -> None:
        """Forget what the device wasn't told; the last of it counts for the next time."""
        for source, answers in self._numbers.items():
            if answers:
                self._last[source] = answers[-1]
                answers.clear()
                if source == "pending":
                    self._same = 0
        for queue in (self._unchanged, self._reads, self._dma_reads, self._limits):
            queue.clear()
        self._dma_failures.clear()

    def interrupted(self, gsi: int, kind: str) -> None:
        """Note that the device changed a GSI."""
        self._got.interrupts.append((gsi, kind))

    def due(self, source: str) -> Callback | None:
        """Take the earliest timer of a source away, and return what it calls, if there is one."""
        waiting = [each for each in self._timers if each[0] == source and each[1].callback]
        if not waiting:
            return None
        first = min(waiting, key=lambda each: each[1].deadline_ns)
        self._timers.remove(first)
        return first[1].callback

    def _feed(self, event: Learned) -> None:
        if isinstance(event.value, bytes):
            self._reads.append(event.value)
        elif event.source == "unchanged":
            self._unchanged.append(event.value)
        elif event.source in self._numbers:
            if event.source == "pending" and len(self._unchanged) == len(self._numbers["pending"]):
                self._unchanged.append(0)
            self._numbers[event.source].append(event.value)

    # For the device, by way of its clock, memory and streams.

    def ask(self, source: str) -> int:
        """Answer a question that the recording answers each time."""
        answers = self._numbers[source]
        if answers:
            self._last[source] = answers.popleft()
        elif self._is_active:
            self._asked.append(source)
        return self._last[source]

    def ask_pending(self) -> int:
        """Answer how much input waits; nothing outside of an activation."""
        if not self._is_active:
            return 0
        answers = self._numbers["pending"]
        if answers and self._same >= self._unchanged[0]:
            self._unchanged.popleft()
            self._last["pending"] = answers.popleft()
            self._same = 0
        else:
            self._same += 1
        return self._last["pending"]

    def read(self, size: int) -> bytes:
        """Return input."""
        if not self._reads:
            if self._is_active:
                self._asked.append(f"{size} bytes of input")
            return b""
        return self._reads.popleft()[:size]

    def write(self, data: ReadableBuffer) -> int:
        """Take output, as much as was taken; all if nobody knows."""
        if not self._is_active or not data:
            return 0
        limit = self._limits.popleft() if self._limits else None
        taken = len(data) if limit is None else min(limit, len(data))
        self._got.output += data[:taken]
        return taken

    def dma_read(self, address: int, size: int) -> bytes:
        """Return guest memory.

        Raises:
            MemoryNotMapped: so it was in the recording, or that doesn't have it.
        """
        for found in self._dma_reads:
            if found[0] == address and len(found[1]) in {0, size}:
                self._dma_reads.remove(found)
                if not found[1]:
                    raise _not_mapped(address, size)
                return found[1]
        if self._is_active:
            self._asked.append(f"{size} bytes of guest memory at {address:#x}")
        raise _not_mapped(address, size)

    def dma_write(self, address: int, data: ReadableBuffer) -> None:
        """Keep what is written to guest memory.

        Raises:
            MemoryNotMapped: so it was in the recording.
        """
        if address in self._dma_failures or not self._is_active:
            raise _not_mapped(address, len(data))
        self._got.dma.append((address, bytes(data)))

    def set_timer(self, deadline_ns: int, callback: Callback) -> Timer:
        """Set a timer, which calls when the recording says."""
        timer = Timer(deadline_ns, callback)
        self._timers = [each for each in self._timers if each[1].callback]
        self._timers.append((timer_source(callback), timer))
        return timer


class WorldClock(Clock):
    """The clock of a replay."""

    def __init__(self, world: World) -> None:
        self._world = world

    def now_ns(self) -> int:
        """Return the monotonic time that was recorded."""
        return self._world.ask("now")

    def wall_ns(self) -> int:
        """Return the time on the wall that was recorded."""
        return self._world.ask("wall")

    def call_at(self, deadline_ns: int, callback: Callback) -> Timer:
        """Call `callback` when that was recorded, whatever the time."""
        return self._world.set_timer(deadline_ns, callback)


class WorldMemory:
    """The guest's memory in a replay: as much of it as was recorded."""

    def __init__(self, world: World) -> None:
        self._world = world

    def read(self, address: int, size: int) -> bytes:
        """Return what was read there."""
        return self._world.dma_read(address, size)

    def write(self, address: int, data: ReadableBuffer) -> None:
        """Keep `data`, to be compared."""
        self._world.dma_write(address, data)

    def view(self, address: int, size: int) -> memoryview:
        """Return a copy of what was there when the view was taken; writes to it aren't seen."""
        return memoryview(bytearray(self._world.dma_read(address, size)))


class WorldStream(Stream):
    """A stream of a replay. It needs no loop."""

    def __init__(self, world: World, text: str) -> None:
        super().__init__(0, attached=False)
        self._world = world
        self._text = text

    @property
    def address(self) -> str:
        """What it was in the configuration."""
        return self._text

    @property
    def attached(self) -> bool:
        """Whether there was a peer."""
        return bool(self._world.ask("attached"))

    @property
    def pending(self) -> int:
        """How much input waited."""
        return self._world.ask_pending()

    def counters(self) -> StreamCounters:
        """Return zeros: nobody counts."""
        return StreamCounters(0, 0, 0)

    def write(self, data: ReadableBuffer) -> int:
        """Take as much as was taken."""
        return self._world.write(data)

    def read(self, size: int) -> bytes:
        """Return what came."""
        return self._world.read(size)

    def start(self, listener: Callable[[], None]) -> None:
        """Call `listener` when that was recorded."""
        self._world.listeners.append(listener)

    def close(self, timeout_s: float = 0) -> None:
        """Do nothing: nothing is open."""

    def _transfer(self) -> None:
        """Move nothing."""

    def _release(self) -> None:
        """Free nothing."""


def _not_mapped(address: int, size: int) -> MemoryNotMapped:
    return MemoryNotMapped(
        f"guest memory {address:#x}, {size:#x} bytes: not there when it was recorded",
        address=hex_address(address),
        size=hex_address(size),
    )
