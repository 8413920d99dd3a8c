"""The doors of a device: all that it learns from outside of the bus, and tells it.

A device sees the world through its context: a clock, the guest's memory, streams. Doors are
thin things in front of these. While somebody keeps a journal they tell it what passes, and
otherwise cost an `if`. What a device does is a function of its accesses and of what passes
its doors, so that both together can be replayed:

    doors = Doors()
    device.assign(doors.context(device, context))
    doors.journal = journal         # from now on; None for no longer
    state = doors.save(device)      # the beginning of a recording of this device

The rules of a journal, by which `devicehost_server.replay` reads it:
    What is told of a device is told under its lock, so in the order in which it happened.
    A `ConcurrentDevice` has none: what two threads do in it may be told in any order.
    What belongs to a waking stands before it, as what belongs to an access does.
    `pending` is told when it isn't what was told of the device last. Before that stands
    `unchanged`, unless it is 0: how often it was asked for meanwhile, with the old answer.
    `write` is told only if not all was taken, and then before what was, if that is anything.
    DMA of no bytes is one that failed: the memory wasn't there.
    A recording of a device begins with what `save` tells.

What isn't seen: memory behind a `view` that changes while the device holds it, or that the
device changes there; methods that others call on a device beside the bus, unless they do so
by `calling`; several streams of one device are told as if they were one.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any, Protocol

from devicehost.recording.events import Operation
from devicehost_server.devices.base import DeviceContext, Hosted, Memory, State
from devicehost_server.devices.chardev import DEFAULT_CAPACITY, Stream, StreamCounters
from devicehost_server.devices.chardev.stream import CLOSE_TIMEOUT_S
from devicehost_server.model.clock import Callback, Clock, Timer
from devicehost_server.model.device_io import DeviceIoMut, ReadableBuffer

SAVE = "save"
"""The source of a waking in which a device was asked for its state."""

STREAM = "stream"
"""The source of a waking by news of a stream."""

ENTRANCE = "entrance:"
"""What the source of a waking by a thread of the device's own begins with; what the device
calls the entrance follows."""

TIMER = "timer:"
"""What the source of a waking by a timer begins with; the function's name follows."""


class Journal(Protocol):
    """Is told what passes the doors of all devices, on the threads that it happens on.

    Its methods must return soon, not raise, and not call a device. What `source` and
    `value` may be, say the events of the same names in `devicehost.recording.events`.
    """

    def learned(self, device: str, source: str, value: int | bytes) -> None:
        """A device asked, and was told `value`."""

    def woken(self, device: str, source: str) -> None:
        """A device was called by other than an access, and has returned."""

    def told(self, device: str, data: bytes) -> None:
        """A device gave `data` to its stream, which took it."""

    def dma(self, device: str, operation: Operation, address: int, data: bytes) -> None:
        """A device accessed guest memory; no `data` if that failed."""


class Doors:
    """The doors of all devices of one server. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._journal: Journal | None = None
        self._sides: weakref.WeakValueDictionary[str, Side] = weakref.WeakValueDictionary()

    @property
    def journal(self) -> Journal | None:
        """Who is told what passes; None if nobody is."""
        return self._journal

    @journal.setter
    def journal(self, journal: Journal | None) -> None:
        with self._lock:
            self._journal = journal
            for side in list(self._sides.values()):
                side.journal = journal
                side.forget()

    def context(self, device: Hosted[Any], context: DeviceContext) -> DeviceContext:
        """Return `context` with doors for `device` in front of all that it leads to."""
        name = context.device_id
        side = self._side(name, device)

        def open_stream(
            text: str, *, owner: str = "", capacity: int = DEFAULT_CAPACITY
        ) -> StreamDoor:
            return StreamDoor(side, context.opener(text, owner=owner, capacity=capacity))

        def entrance(name: str, callback: Callable[[], None]) -> Callable[[], None]:
            source = ENTRANCE + name

            def enter() -> None:
                with side.waking(source):
                    callback()

            return enter

        return replace(
            context,
            clock=self.clock(name, device, context.clock),
            memory=self.memory(name, device, context.memory),
            opener=open_stream,
            entrance=entrance,
        )

    def clock(self, device_id: str, device: object, clock: Clock) -> Clock:
        """Return a door to `clock`."""
        return ClockDoor(self._side(device_id, device), clock)

    def memory(self, device_id: str, device: object, memory: Memory) -> Memory:
        """Return a door to the guest's `memory`."""
        return MemoryDoor(self._side(device_id, device), memory)

    def stream(self, device_id: str, device: object, stream: Stream) -> Stream:
        """Return a door to `stream`, which then is the door's."""
        return StreamDoor(self._side(device_id, device), stream)

    def save(self, device: Hosted[Any]) -> State:
        """Return the state of `device`, and tell all that it takes to begin with it elsewhere.

        These are `attached` and `pending`, then what it learns while it saves, then the
        waking `save`. Every recording of a device begins so, also one that is made while
        others are: what was told before isn't in it. Who has to know where in the journal
        that is holds the device's lock.
        """
        with self.calling(device, SAVE):
            side = self._side(device.name, device)
            side.introduce()
            state = device.save()
            side.forget()  # a journal may keep this for who asked; others have to be told, too
            return state

    @contextmanager
    def calling(self, device: Hosted[Any], call: str) -> Iterator[None]:
        """Call a method of `device` beside the bus so that a replay can do it, too.

        Inside, the device's lock is held. `call` says what is called, for the journal:
        `save`, `reset`, `peek:REGISTER` or `poke:REGISTER=VALUE`.

            with doors.calling(device, "peek:LSR"):
                value = device.peek("LSR")
        """
        with self._side(device.name, device).waking(call):
            yield

    def _side(self, device_id: str, device: object) -> Side:
        with self._lock:
            side = self._sides.get(device_id)
            if side is None or side.device is not device:
                side = self._sides[device_id] = Side(device_id, device, self._journal)
            return side


class Side:
    """What the doors of one device share.

    Attributes:
        device: whose doors.
        device_id: what the device is called.
        journal: as that of the `Doors`.
        lock: the device's, or one that everybody may hold if it has none.
        pending: what was last told of input that waits; None for nothing.
        unchanged: how often the device asked for that since then.
        streams: the device's streams.
    """

    __slots__ = (
        "__weakref__",
        "device",
        "device_id",
        "journal",
        "lock",
        "pending",
        "streams",
        "unchanged",
    )

    def __init__(self, device_id: str, device: object, journal: Journal | None) -> None:
        self.device = device
        self.device_id = device_id
        self.journal = journal
        self.lock: AbstractContextManager[Any] = (
            device.lock if isinstance(device, DeviceIoMut) else nullcontext()
        )
        self.streams: list[Stream] = []
        self.forget()

    def forget(self) -> None:
        """Tell everything again when it is next asked for."""
        self.pending: int | None = None
        self.unchanged = 0

    def introduce(self) -> None:
        """Tell what is known of the streams."""
        self.forget()
        for stream in self.streams:
            self.learn("attached", int(stream.attached))
            self.learn_pending(stream.pending)

    def learn(self, source: str, value: int | bytes) -> None:
        """Tell that the device asked, and was told `value`."""
        if (journal := self.journal) is not None:
            journal.learned(self.device_id, source, value)

    def learn_pending(self, pending: int) -> None:
        """Tell that the device asked how much input waits, unless it knew."""
        if pending == self.pending:
            self.unchanged += 1
            return
        if self.unchanged:
            self.learn("unchanged", self.unchanged)
        self.pending, self.unchanged = pending, 0
        self.learn("pending", pending)

    @contextmanager
    def waking(self, source: str) -> Iterator[None]:
        """Hold the device's lock while it is called, and tell the journal at the end."""
        with self.lock:
            try:
                yield
            finally:
                if (journal := self.journal) is not None:
                    journal.woken(self.device_id, source)


class ClockDoor(Clock):
    """A clock, as a device sees it.

    A callback runs under the device's lock. So a timer that was cancelled under it doesn't
    call any more, even if its time had come.
    """

    def __init__(self, side: Side, clock: Clock) -> None:
        self._side = side
        self._clock = clock

    def now_ns(self) -> int:
        """Monotonic time in nanoseconds."""
        now_ns = self._clock.now_ns()
        self._side.learn("now", now_ns)
        return now_ns

    def wall_ns(self) -> int:
        """Nanoseconds since 1970-01-01 00:00:00 UTC."""
        wall_ns = self._clock.wall_ns()
        self._side.learn("wall", wall_ns)
        return wall_ns

    def call_at(self, deadline_ns: int, callback: Callback) -> Timer:
        """Call `callback` once, under the device's lock, when `deadline_ns` is reached."""
        side = self._side
        source = timer_source(callback)
        timer: Timer | None = None

        def wake() -> None:
            with side.lock:
                if timer is None or timer.callback is not None:
                    with side.waking(source):
                        callback()

        timer = self._clock.call_at(deadline_ns, wake)
        return timer


def timer_source(callback: Callback) -> str:
    """Return the source of a waking by a timer that was set for `callback`."""
    return TIMER + getattr(callback, "__name__", type(callback).__name__)


class MemoryDoor:
    """The guest's memory, as a device sees it."""

    def __init__(self, side: Side, memory: Memory) -> None:
        self._side = side
        self._memory = memory

    def read(self, address: int, size: int) -> bytes:
        """Return a copy; see `GuestMemory.read`."""
        data = b""
        try:
            data = self._memory.read(address, size)
        finally:
            self._tell(Operation.READ, address, data)
        return data

    def write(self, address: int, data: ReadableBuffer) -> None:
        """Write; see `GuestMemory.write`."""
        written = b""
        try:
            self._memory.write(address, data)
            if self._side.journal is not None:
                written = bytes(data)
        finally:
            self._tell(Operation.WRITE, address, written)

    def view(self, address: int, size: int) -> memoryview:
        """Return a window; see `GuestMemory.view`.

        The journal is told of a read of all that is in it now. What others change in it
        later, or the device, isn't seen.
        """
        window: memoryview | None = None
        try:
            window = self._memory.view(address, size)
        finally:
            if self._side.journal is not None:
                self._tell(Operation.READ, address, b"" if window is None else bytes(window))
        return window

    def _tell(self, operation: Operation, address: int, data: bytes) -> None:
        if (journal := self._side.journal) is not None:
            journal.dma(self._side.device_id, operation, address, data)


class StreamDoor(Stream):
    """A stream, as a device sees it. Another one does the work, so it needs no loop."""

    def __init__(self, side: Side, stream: Stream) -> None:
        super().__init__(0, attached=False)
        self._side = side
        self._stream = stream
        side.streams.append(stream)

    @property
    def address(self) -> str:
        """Where a peer finds the other end."""
        return self._stream.address

    @property
    def attached(self) -> bool:
        """Whether there is a peer."""
        attached = self._stream.attached
        self._side.learn("attached", int(attached))
        return attached

    @property
    def pending(self) -> int:
        """How many bytes of input `read` would return now."""
        pending = self._stream.pending
        side = self._side
        if side.journal is not None:
            side.learn_pending(pending)
        return pending

    def counters(self) -> StreamCounters:
        """Return the counters as they are now. The journal isn't told: no guest sees them."""
        return self._stream.counters()

    def name_events(self, **fields: str) -> None:
        """Add `fields` to each event that the stream logs."""
        self._stream.name_events(**fields)

    def write(self, data: ReadableBuffer) -> int:
        """Take as much of `data` as there is room for; return how many bytes that is."""
        taken = self._stream.write(data)
        side = self._side
        if (journal := side.journal) is not None:
            if taken < len(data):
                journal.learned(side.device_id, "write", taken)
            if taken:
                journal.told(side.device_id, bytes(data[:taken]))
        return taken

    def read(self, size: int) -> bytes:
        """Take at most `size` bytes of the input that has come; none if there is none."""
        data = self._stream.read(size)
        self._side.learn("read", data)
        return data

    def start(self, listener: Callable[[], None]) -> None:
        """Begin to move bytes; `listener` is called under the device's lock."""
        side = self._side

        def wake() -> None:
            with side.waking(STREAM):
                listener()

        self._stream.start(wake)

    def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Send what the peer takes within `timeout_s`, then free everything."""
        self._stream.close(timeout_s)

    def _transfer(self) -> None:
        """Move nothing: the other one does."""

    def _release(self) -> None:
        """Free nothing: the other one does."""
