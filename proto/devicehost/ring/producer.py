"""The client's end of a queue: fills entries, and waits for their completion."""

from __future__ import annotations

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
    POSTED_FAILURES,
    SERVER_LINE,
    STATUS_HALF,
    WAITING,
    WHAT,
    RingLayout,
    data_windows,
)

_WORDS = ENTRY_SIZE // 8
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
        self._windows = data_windows(self._entries)
        self._doorbell = doorbell
        self._wait = wait
        self._barrier = barrier
        self._timeout_s = timeout_s
        self._spins = spins
        self._sequence = 0
        self._room = layout.entries  # entries up to this one are known to be free

    @property
    def posted_failures(self) -> int:
        """How many posted writes have failed so far."""
        failures: int = self._control[POSTED_FAILURES]
        return failures

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
        self._sequence = sequence = self._sequence + 1
        if sequence > self._room:
            self._make_room()
        slot = sequence & self._mask
        entry = slot * _WORDS
        words = self._words
        size = len(data)
        words[entry + ADDRESS] = address
        words[entry + WHAT] = operation | size << 8
        words[entry] = sequence
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
        self._sequence = sequence = self._sequence + 1
        if sequence > self._room:
            self._make_room()
        slot = sequence & self._mask
        entry = slot * _WORDS
        words = self._words
        size = len(data)
        self._windows[slot][size][:] = data
        words[entry + ADDRESS] = address
        words[entry + WHAT] = operation | size << 8
        words[entry] = sequence
        if self._server[_NEED_WAKEUP]:
            self._doorbell()

    def _wait_for(self, sequence: int) -> None:
        """Wait for a completion, and with it for all before it."""
        words = self._words
        place = (sequence & self._mask) * _WORDS + COMPLETION
        completion = sequence << 1
        for _ in repeat(None, self._spins):
            if words[place] >= completion:
                break
        else:
            self._sleep_until(sequence)
        self._room = sequence + self._count
        if words[place] != completion:
            raise self._failure(sequence & self._mask)

    def flush(self) -> None:
        """Wait until all posted writes are made.

        Raises:
            AccessOverdue: that took too long.
        """
        if self._sequence > self._room - self._count:
            self._sleep_until(self._sequence)
            self._room = self._sequence + self._count

    def close(self) -> None:
        """Let go of the memory."""
        for window in chain.from_iterable(self._windows):
            window.release()
        for view in (self._words, self._halves, self._control, self._server, self._entries):
            view.release()

    def _make_room(self) -> None:
        """Wait until a good part of a full queue is completed, so that it is rarely full."""
        target = self._sequence - self._count // 2 - 1
        entry = (target & self._mask) * _WORDS
        completion = target << 1
        for _ in repeat(None, self._spins):
            if self._words[entry + COMPLETION] >= completion:
                break
        else:
            self._sleep_until(target)
        self._room = target + self._count

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
        number = self._halves[slot * (ENTRY_SIZE // 4) + STATUS_HALF]
        try:
            return AccessFailed(AccessStatus(number))
        except ValueError:  # of a newer server
            return AccessFailed(AccessStatus.DEVICE_FAULT)
