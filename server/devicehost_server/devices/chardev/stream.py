"""What all streams have in common: two buffers, and the rules for them.

A device, on any thread, puts bytes into the outbox (`write`) and takes them from the inbox
(`read`). The loop's thread moves the outbox to the sink and the source to the inbox; how,
is the part of a subclass: `_transfer`, which does what can be done without blocking.

The device learns by a call of its listener, on the loop's thread, that something is new:
that there is input, that a `write` which took too little would take more, or that a peer
came or left. The listener looks at `pending`, at `attached`, and tries to write again. It
may take the device's lock: the loop holds none when it calls.

    stream = open_stream("unix:/run/vm/console")
    stream.start(self._stream_changed)
    taken = stream.write(b"login: ")    # less than 7: come back when the listener is called
"""

from __future__ import annotations

import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import structlog

from devicehost_server.devices.chardev.loop import LOOP, READABLE, WRITABLE
from devicehost_server.model.device_io import ReadableBuffer

DEFAULT_CAPACITY = 1 << 20
"""Bytes of output that wait for a slow peer, unless the device asks for another number."""

BACKLOG_SIZE = 64 << 10
"""Bytes of output that are kept for the next peer while there is none."""

INBOX_SIZE = 4 << 10
"""Bytes of input that are taken from a source before the device wants them."""

CLOSE_TIMEOUT_S = 1.0
"""How long `close` waits for a peer to take what it was sent, in seconds."""

RETRY_MIN_S = 0.05
"""How long a write that failed waits before it is tried again, at first."""

RETRY_MAX_S = 5.0
"""How long it waits in the end; each failure doubles the time."""

WINDOW_LOOK_S = 0.5
"""How often to look at a terminal's size, in seconds: no event tells of it."""

_CHUNK_SIZE = 64 << 10
_CHUNKS_AT_ONCE = 16
_CLOSE_POLL_S = 0.02

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class StreamCounters:
    """Bytes since the stream was opened.

    Attributes:
        sent: handed to the sink.
        dropped: taken from the device, and thrown away since nobody was attached, or
            since the sink had not taken them when the stream was closed.
        received: come from the source.
    """

    sent: int
    dropped: int
    received: int


class Stream(ABC):
    """Bytes to and from somewhere.

    Args:
        capacity: bytes of output that wait for a slow peer.
        attached: whether there is a peer from the start.
    """

    def __init__(self, capacity: int, *, attached: bool) -> None:
        self.due: float | None = None
        self._capacity = capacity
        self._attached = attached
        self._lock = threading.Lock()  # for the buffers and what is counted of them
        self._outbox = bytearray()
        self._inbox = bytearray()
        self._starved = False  # a write took too little, and the device waits for room
        self._sent = self._dropped = self._received = 0
        self._window_size: os.terminal_size | None = None
        self._follows_window = False
        self._held = False
        self._log = _log
        self._on_news: Callable[[], None] = _nothing
        self._news = False  # the device is to be told
        self._failing = False  # the sink failed when it was last tried
        self._retry_s = self._retry_at = 0.0
        self._kicked = True  # there is no loop to kick before the start
        self._started = False
        self._close_by: float | None = None
        self._closed = threading.Event()

    # For devices, on any thread. None of it blocks, but for `close`.

    @property
    @abstractmethod
    def address(self) -> str:
        """Where a peer finds the other end, as its tools would call it."""

    @property
    def attached(self) -> bool:
        """Whether there is a peer."""
        return self._attached

    @property
    def pending(self) -> int:
        """How many bytes of input `read` would return now."""
        return len(self._inbox)

    @property
    def window_size(self) -> os.terminal_size | None:
        """Columns and lines of the peer's terminal; None if it has none, or doesn't say."""
        return self._window_size

    def follow_window(self) -> None:
        """Tell the listener `window_size`, and again whenever it changes.

        Once more for a device that has forgotten it.
        """
        self._window_size = None
        self._follows_window = True

    def counters(self) -> StreamCounters:
        """Return the counters as they are now."""
        with self._lock:
            return StreamCounters(self._sent, self._dropped, self._received)

    def name_events(self, **fields: str) -> None:
        """Add `fields` to each event that the stream logs."""
        self._log = _log.bind(**fields)

    def write(self, data: ReadableBuffer) -> int:
        """Take as much of `data` as there is room for.

        Returns:
            How many bytes were taken, from the first on. If not all, the listener is
            called once there is room again.
        """
        taken = len(data)
        with self._lock:
            outbox = self._outbox
            was_empty = not outbox
            room = self._capacity - len(outbox)
            if not self._attached:
                outbox += data
                excess = max(0, len(outbox) - BACKLOG_SIZE)
                del outbox[:excess]
                self._dropped += excess
            elif taken <= room:
                outbox += data
            else:
                taken = max(0, room)  # a backlog may be more than fits
                outbox += data[:taken]
                self._starved = True
        if was_empty and not self._held:  # else the loop has it in hand already
            self._kick()
        return taken

    @contextmanager
    def held(self) -> Iterator[None]:
        """Have what is written inside moved on only at the end, at once.

        So a guest that waits for its device doesn't wait for the loop's thread as well.
        """
        self._held = True
        try:
            yield
        finally:
            self._held = False
            if self._outbox:
                self._kick()

    def read(self, size: int) -> bytes:
        """Take at most `size` bytes of the input that has come; none if there is none."""
        with self._lock:
            before = len(self._inbox)
            data = bytes(self._inbox[:size])
            del self._inbox[:size]
        if before > INBOX_SIZE // 2 >= before - len(data):
            self._kick()  # the source may have been left alone for want of room
        return data

    def start(self, listener: Callable[[], None]) -> None:
        """Begin to move bytes, and call `listener` whenever something is new."""
        self._on_news = listener
        self._started = True
        self._kicked = False
        self._log.info("chardev_opened", address=self.address)
        LOOP.add(self)

    def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Send what the peer takes within `timeout_s`, then free everything.

        The device may go on to write until this returns. Not for the listener to call.
        """
        if self._closed.is_set():
            return
        if not self._started:
            self._closed.set()
            self._release()
        else:
            self._close_by = time.monotonic() + timeout_s
            self._kicked = True
            LOOP.kick(self)
            if not self._closed.wait(timeout_s + CLOSE_TIMEOUT_S):
                self._log.error("chardev_close_timed_out")  # a sink that blocks the loop

    # For the loop, on its thread.

    def pump(self) -> None:
        """Move what can be moved now, and tell the device."""
        if self._closed.is_set():
            return
        self._kicked = False
        self.due = None
        self._transfer()
        if self._news:
            self._notify()
        if self._close_by is not None:
            if self._is_drained() or time.monotonic() >= self._close_by:
                self.finish()
            else:
                self._wake_in(_CLOSE_POLL_S)

    def finish(self) -> None:
        """Free everything and leave the loop."""
        self._kicked = True
        self._release()
        LOOP.remove(self)
        with self._lock:
            lost = len(self._outbox)
            self._dropped += lost
            self._outbox.clear()
            self._attached = False
        self._log.info("chardev_closed", dropped=lost)
        self._closed.set()

    # For subclasses, on the loop's thread; `_release` also on others if there was no start.

    @abstractmethod
    def _transfer(self) -> None:
        """Move what can be moved without blocking, and watch for what can't."""

    @abstractmethod
    def _release(self) -> None:
        """Unwatch and close all descriptors, and remove what was made for peers to find."""

    def _is_drained(self) -> bool:
        """Whether there is nothing left that `close` could wait for."""
        return not (self._outbox and self._attached)

    def _watch(self, fd: int, *, readable: bool = False, writable: bool = False) -> None:
        """See `Loop.watch`."""
        LOOP.watch(fd, (READABLE if readable else 0) | (WRITABLE if writable else 0), self)

    def _wake_in(self, seconds: float) -> None:
        """Have `pump` called in `seconds`, or sooner."""
        due = time.monotonic() + seconds
        self.due = due if self.due is None else min(self.due, due)

    def _look_at_window(self, terminal: int) -> None:
        """Note the size of `terminal`, if the device wants to know, and look again soon."""
        if not self._follows_window:
            return
        try:
            size = os.get_terminal_size(terminal)
        except OSError:
            return
        if size != self._window_size and any(size):  # one that nobody has set is 0 by 0
            self._window_size = size
            self._news = True
        self._wake_in(WINDOW_LOOK_S)

    def _wants_input(self) -> bool:
        return len(self._inbox) < INBOX_SIZE

    def _receive(self, source: Callable[[int], bytes]) -> bool:
        """Read from `source` what fits into the inbox; return False at the end of input."""
        room = INBOX_SIZE - len(self._inbox)
        if room <= 0:
            return True
        try:
            data = source(room)
        except BlockingIOError:
            return True
        with self._lock:
            self._inbox += data
            self._received += len(data)
        self._news = self._news or bool(data)
        return bool(data)

    def _send(self, sink: Callable[[bytes], int], chunk_size: int = _CHUNK_SIZE) -> bool:
        """Write the outbox to `sink` until it is empty, or `sink` raises `BlockingIOError`.

        Returns:
            False in the latter case: it is to be tried again when the sink is ready.
        """
        for _ in range(_CHUNKS_AT_ONCE):
            with self._lock:
                chunk = bytes(self._outbox[:chunk_size])
            if not chunk:
                return True
            try:
                taken = sink(chunk)
            except BlockingIOError:
                return False
            with self._lock:
                del self._outbox[:taken]
                self._sent += taken
                if self._starved and len(self._outbox) <= self._capacity // 2:
                    self._starved = False
                    self._news = True
        self._kick()  # after the other streams' turn
        return True

    def _send_patiently(self, sink: Callable[[bytes], int], chunk_size: int = _CHUNK_SIZE) -> bool:
        """Do as `_send`, but put a failure off: a disk that is full won't be so for ever.

        Nothing is thrown away. The events `chardev_sink_failing` and
        `chardev_sink_recovered` stand at the two ends of such a time.

        Raises:
            OSError: the failure is one that doesn't pass (`_is_final`).
        """
        wait_s = self._retry_at - time.monotonic()
        if wait_s > 0 and self._close_by is None:
            self._wake_in(wait_s)
            return True
        try:
            done = self._send(sink, chunk_size)
        except OSError as error:
            if self._is_final(error):
                raise
            if not self._failing:
                self._failing = True
                self._log.error("chardev_sink_failing", error=error.strerror)
            self._put_off()
            return True
        if done:
            self._retry_s = self._retry_at = 0.0
            if self._failing:
                self._failing = False
                self._log.info("chardev_sink_recovered")
        return done

    def _put_off(self) -> None:
        """Let `_send_patiently` do nothing for a while, and longer the next time."""
        self._retry_s = min(max(RETRY_MIN_S, self._retry_s * 2), RETRY_MAX_S)
        self._retry_at = time.monotonic() + self._retry_s
        self._wake_in(self._retry_s)

    def _is_final(self, error: OSError) -> bool:  # noqa: ARG002 # for overriders
        """Whether to give a sink up that fails so."""
        return False

    def _set_attached(self, *, attached: bool) -> None:
        """Note that a peer came or left, and tell the device at once: it may be brief."""
        with self._lock:
            self._attached = attached
        self._notify()

    def _notify(self) -> None:
        self._news = False
        try:
            self._on_news()
        except Exception:  # noqa: BLE001 # a device's bug must not stop its stream
            self._log.exception("chardev_listener_failed")

    def _kick(self) -> None:
        if not self._kicked:
            self._kicked = True
            LOOP.kick(self)


def _nothing() -> None:
    """Listen to nothing: what a stream calls before it is started."""
