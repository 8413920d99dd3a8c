"""The client's end of a queue: fills entries, and waits for their completion."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import repeat

from devicehost.access_status import AccessStatus
from devicehost.ring.layout import (
    ADDRESS,
    COMPLETION,
    DATA_MAX,
    DATA_OFFSET,
    ENTRY_SIZE,
    LOOK_AGAIN_S,
    NEED_WAKEUP,
    POSTED_FAILURES,
    SERVER_LINE,
    WAITING,
    WHAT,
    Operation,
    RingLayout,
)

_WORDS = ENTRY_SIZE // 8
_STATUS_WORD = 7  # of an entry, as 32-bit words
_NEED_WAKEUP = NEED_WAKEUP - SERVER_LINE // 8

SPINS = 2000
"""Looks at a completion before sleeping: about 100 microseconds."""


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
        wait: sleeps until the server signals a completion, or for so many seconds.
        barrier: a full memory barrier on all processors; see the package.
        timeout_s: how long an access may take, in seconds.
        spins: how often to look before sleeping.
    """

    def __init__(
        self,
        memory: memoryview,
        queue: int,
        *,
        doorbell: Callable[[], None],
        wait: Callable[[float], None],
        barrier: Callable[[], None],
        timeout_s: float,
        spins: int = SPINS,
    ) -> None:
        layout = RingLayout.read_header(memory)
        self._count = layout.entries
        self._mask = layout.entries - 1
        self._entries = layout.queue_entries(memory, queue)
        self._words = self._entries.cast("Q")
        self._halves = self._entries.cast("I")
        self._control = layout.control(memory, queue)
        self._server = memory[SERVER_LINE : SERVER_LINE + 64].cast("Q")
        # A window for each entry and size: entry * 33 + size.
        starts = range(DATA_OFFSET, len(self._entries), ENTRY_SIZE)
        self._windows = [
            self._entries[start : start + size] for start in starts for size in range(DATA_MAX + 1)
        ]
        self._doorbell = doorbell
        self._wait = wait
        self._barrier = barrier
        self._timeout_s = timeout_s
        self._spins = spins
        self._sequence = 0
        self._completed = 0  # all up to this one are known to be completed

    @property
    def posted_failures(self) -> int:
        """How many posted writes have failed so far."""
        failures: int = self._control[POSTED_FAILURES]
        return failures

    def read(self, operation: Operation, address: int, data: bytearray | memoryview) -> None:
        """Fill `data`, 1 to 32 bytes, from `address`.

        Raises:
            AccessFailed: the server or the device refused it.
            AccessOverdue: no completion came in time.
        """
        sequence = self._sequence + 1
        if sequence - self._completed > self._count:
            self._make_room()
        self._sequence = sequence
        slot = sequence & self._mask
        entry = slot * _WORDS
        size = len(data)
        words = self._words
        words[entry + ADDRESS] = address
        words[entry + WHAT] = operation | size << 8
        words[entry] = sequence
        if self._server[_NEED_WAKEUP]:
            self._doorbell()
        completion = sequence << 1
        for _ in repeat(None, self._spins):
            if words[entry + COMPLETION] >= completion:
                break
        else:
            self._sleep_until(sequence)
        self._completed = sequence
        if words[entry + COMPLETION] != completion:
            raise self._failure(slot)
        data[:] = self._windows[slot * (DATA_MAX + 1) + size]

    def write(
        self, operation: Operation, address: int, data: bytes | bytearray | memoryview
    ) -> None:
        """Write `data`, 1 to 32 bytes, to `address`, and wait until it is taken.

        Raises:
            AccessFailed, AccessOverdue: as for `read`.
        """
        self.post(operation, address, data)
        sequence = self._sequence
        slot = sequence & self._mask
        entry = slot * _WORDS
        words = self._words
        completion = sequence << 1
        for _ in repeat(None, self._spins):
            if words[entry + COMPLETION] >= completion:
                break
        else:
            self._sleep_until(sequence)
        self._completed = sequence
        if words[entry + COMPLETION] != completion:
            raise self._failure(slot)

    def post(
        self, operation: Operation, address: int, data: bytes | bytearray | memoryview
    ) -> None:
        """Write `data`, 1 to 32 bytes, to `address`, without waiting.

        It only waits where the queue is full. If `operation` says that it is posted, a
        failure is counted in `posted_failures`.

        Raises:
            AccessOverdue: the queue stayed full.
        """
        sequence = self._sequence + 1
        if sequence - self._completed > self._count:
            self._make_room()
        self._sequence = sequence
        slot = sequence & self._mask
        entry = slot * _WORDS
        size = len(data)
        words = self._words
        self._windows[slot * (DATA_MAX + 1) + size][:] = data
        words[entry + ADDRESS] = address
        words[entry + WHAT] = operation | size << 8
        words[entry] = sequence
        if self._server[_NEED_WAKEUP]:
            self._doorbell()

    def flush(self) -> None:
        """Wait until all posted writes are made.

        Raises:
            AccessOverdue: that took too long.
        """
        if self._completed < self._sequence:
            self._sleep_until(self._sequence)
            self._completed = self._sequence

    def close(self) -> None:
        """Let go of the memory."""
        views = (*self._windows, self._words, self._halves, self._control, self._server)
        self._windows.clear()
        for view in (*views, self._entries):
            view.release()

    def _make_room(self) -> None:
        """Wait until a good part of a full queue is completed, so that it is rarely full."""
        target = self._sequence - self._count // 2
        entry = (target & self._mask) * _WORDS
        completion = target << 1
        for _ in repeat(None, self._spins):
            if self._words[entry + COMPLETION] >= completion:
                break
        else:
            self._sleep_until(target)
        self._completed = target

    def _sleep_until(self, sequence: int) -> None:
        """Sleep until the access with this number is completed."""
        words, control = self._words, self._control
        place = (sequence & self._mask) * _WORDS + COMPLETION
        completion = sequence << 1
        deadline = time.monotonic() + self._timeout_s
        try:
            while True:
                control[WAITING] = 1
                self._barrier()
                if words[place] >= completion:
                    return
                remaining_s = deadline - time.monotonic()
                if remaining_s <= 0:
                    raise AccessOverdue(f"no completion within {self._timeout_s:g} s")
                self._wait(min(remaining_s, LOOK_AGAIN_S))
        finally:
            control[WAITING] = 0

    def _failure(self, slot: int) -> AccessFailed:
        number = self._halves[slot * (ENTRY_SIZE // 4) + _STATUS_WORD]
        try:
            return AccessFailed(AccessStatus(number))
        except ValueError:  # of a newer server
            return AccessFailed(AccessStatus.DEVICE_FAULT)
