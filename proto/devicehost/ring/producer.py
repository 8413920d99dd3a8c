"""The client's end of a queue: fills entries, and waits for their completion."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from itertools import chain, repeat

from devicehost.access_status import AccessStatus
from devicehost.ring.layout import (
    ADDRESS,
    COMPLETION,
    ENTRY_SIZE,
    LOOK_AGAIN_S,
    NEED_WAKEUP,
    POSTED_FAILURE,
    POSTED_FAILURES,
    SERVER_LINE,
    STATUS_HALF,
    WAITING,
    WHAT,
    RingLayout,
    data_windows,
)
from devicehost.ring.spin import Spin

_WORDS = ENTRY_SIZE // 8
_NEED_WAKEUP = NEED_WAKEUP - SERVER_LINE // 8

SPIN_S = 100e-6
"""The longest spin for a completion before sleeping, in seconds."""

_LOOKS = 100  # at a completion, before others have their turn: about 5 microseconds


class AccessFailed(Exception):
    """The access was made, and failed."""

    def __init__(self, status: AccessStatus) -> None:
        super().__init__(status.name)
        self.status = status


class AccessOverdue(Exception):
    """No completion came in time. The server may still make the access."""


class Producer:
    """The client's end of one queue. Used by one thread.

    Args:
        memory: the ring.
        queue: which of its queues.
        doorbell: called when the server sleeps and an entry is there.
        wait: sleeps until the server signals a completion, or for so many seconds; returns
            whether it was signalled.
        barrier: a full memory barrier on all processors; see the package.
        timeout_s: how long to sleep for an access before it is overdue, in seconds.
        spin_s: the longest spin before sleeping, in seconds; see `devicehost.ring.spin`.

    Attributes:
        late_wakeups: completions that were found only by looking again.

    Raises:
        BadRing: the memory isn't a ring, or has no such queue.
    """

    def __init__(
        self,
        memory: memoryview,
        queue: int,
        *,
        doorbell: Callable[[], None],
        wait: Callable[[float], bool],
        barrier: Callable[[], None],
        timeout_s: float,
        spin_s: float = SPIN_S,
    ) -> None:
        layout = RingLayout.read_header(memory)
        self._count = layout.entries
        self._mask = layout.entries - 1
        self._entries = layout.queue_entries(memory, queue)
        self._words = self._entries.cast("Q")
        self._halves = self._entries.cast("I")
        self._control = layout.control(memory, queue)
        self._server = memory[SERVER_LINE : SERVER_LINE + 64].cast("Q")
        self._windows = data_windows(self._entries)
        self._doorbell = doorbell
        self._wait = wait
        self._barrier = barrier
        self._timeout_s = timeout_s
        self._spin = Spin(spin_s)
        self._sequence = 0
        self._room = layout.entries  # entries up to this one are known to be free
        self.late_wakeups = 0

    @property
    def posted_failures(self) -> int:
        """How many posted writes have failed so far."""
        failures: int = self._control[POSTED_FAILURES]
        return failures

    @property
    def posted_failure(self) -> AccessStatus:
        """Why the last posted write that failed did so; OK if none has."""
        return _status(self._control[POSTED_FAILURE])

    def read(self, operation: int, address: int, data: bytearray | memoryview) -> None:
        """Fill `data`, 1 to 32 bytes, from `address`.

        Args:
            operation: `PIO_READ` or `MMIO_READ`; a plain number is faster than the enum.
            address: guest-physical, or a port.
            data: as long as the access.

        Raises:
            AccessFailed: the server or the device refused it.
            AccessOverdue: no completion came in time.
        """
        sequence = self._sequence + 1
        if sequence > self._room:
            self._make_room(sequence)
        slot = sequence & self._mask
        entry = slot * _WORDS
        words = self._words
        size = len(data)
        words[entry + ADDRESS] = address
        words[entry + WHAT] = operation | size << 8
        words[entry] = self._sequence = sequence  # at once: a gap would stop the queue
        if self._server[_NEED_WAKEUP]:
            self._doorbell()
        self._wait_for(sequence)
        data[:] = self._windows[slot][size]

    def write(self, operation: int, address: int, data: bytes | bytearray | memoryview) -> None:
        """Write `data`, 1 to 32 bytes, to `address`, and wait until it is taken.

        Raises:
            AccessFailed, AccessOverdue: as for `read`.
        """
        self.post(operation, address, data)
        self._wait_for(self._sequence)

    def post(self, operation: int, address: int, data: bytes | bytearray | memoryview) -> None:
        """Write `data`, 1 to 32 bytes, to `address`, without waiting.

        It only waits where the queue is full. If `operation` says that it is posted, a
        failure is counted in `posted_failures`.

        Raises:
            AccessOverdue: the queue stayed full.
        """
        sequence = self._sequence + 1
        if sequence > self._room:
            self._make_room(sequence)
        slot = sequence & self._mask
        entry = slot * _WORDS
        words = self._words
        size = len(data)
        self._windows[slot][size][:] = data
        words[entry + ADDRESS] = address
        words[entry + WHAT] = operation | size << 8
        words[entry] = self._sequence = sequence  # at once: a gap would stop the queue
        if self._server[_NEED_WAKEUP]:
            self._doorbell()

    def _wait_for(self, sequence: int) -> None:
        """Wait until this access is completed, as `_complete` does, and raise if it failed."""
        words = self._words
        place = (sequence & self._mask) * _WORDS + COMPLETION
        completion = sequence << 1
        for _ in repeat(None, _LOOKS):
            if words[place] >= completion:
                self._room = sequence + self._count
                break
        else:
            self._complete(sequence)
        if words[place] != completion:
            raise self._failure(sequence & self._mask)

    def flush(self) -> None:
        """Wait until all posted writes are made.

        Raises:
            AccessOverdue: that took too long.
        """
        if self._sequence > self._room - self._count:
            self._complete(self._sequence)

    def close(self) -> None:
        """Let go of the memory."""
        for window in chain.from_iterable(self._windows):
            window.release()
        for view in (self._words, self._halves, self._control, self._server, self._entries):
            view.release()

    def _make_room(self, sequence: int) -> None:
        """Wait until half of a full queue is completed, so that it is rarely full."""
        self._complete(sequence - self._count // 2 - 1)

    def _complete(self, sequence: int) -> None:
        """Wait until this access is completed, and with it all before it.

        Look for the time of a spin, and give way to others in between; then sleep.
        """
        words = self._words
        place = (sequence & self._mask) * _WORDS + COMPLETION
        completion = sequence << 1
        began = now = time.monotonic()
        while words[place] < completion:
            if now - began >= self._spin.now_s:
                self._sleep_until(sequence)
            else:
                os.sched_yield()
                for _ in repeat(None, _LOOKS):
                    if words[place] >= completion:
                        break
            now = time.monotonic()
        self._room = sequence + self._count
        self._spin.after(now - began)

    def _sleep_until(self, sequence: int) -> None:
        """Sleep until this access is completed."""
        words, control = self._words, self._control
        place = (sequence & self._mask) * _WORDS + COMPLETION
        completion = sequence << 1
        deadline = time.monotonic() + self._timeout_s
        control[WAITING] = sequence
        try:
            self._barrier()
            while words[place] < completion:
                remaining_s = deadline - time.monotonic()
                if remaining_s <= 0:
                    raise AccessOverdue(f"no completion within {self._timeout_s:g} s")
                if self._wait(min(remaining_s, LOOK_AGAIN_S)):
                    continue
                # The signal may have come just now.
                if words[place] >= completion and not self._wait(0):
                    self.late_wakeups += 1
        finally:
            control[WAITING] = 0

    def _failure(self, slot: int) -> AccessFailed:
        return AccessFailed(_status(self._halves[slot * (ENTRY_SIZE // 4) + STATUS_HALF]))


def _status(number: int) -> AccessStatus:
    try:
        return AccessStatus(number)
    except ValueError:  # of a newer server
        return AccessStatus.DEVICE_FAULT
