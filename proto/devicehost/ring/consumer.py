"""The server's end of a queue: takes entries in order, and makes their accesses."""

from __future__ import annotations

from collections.abc import Callable
from itertools import repeat
from typing import Protocol

from devicehost.access_status import AccessStatus
from devicehost.ring.layout import (
    ADDRESS,
    COMPLETION,
    DATA_MAX,
    DATA_OFFSET,
    ENTRY_SIZE,
    POSTED_FAILURE,
    POSTED_FAILURES,
    WAITING,
    WHAT,
    Operation,
    RingLayout,
)

BURST_MAX = 64
"""Entries that are taken before other queues, and other threads, have their turn."""

_PIO_READ, _PIO_WRITE = int(Operation.PIO_READ), int(Operation.PIO_WRITE)
_MMIO_READ, _MMIO_WRITE = int(Operation.MMIO_READ), int(Operation.MMIO_WRITE)
_PIO_POST, _MMIO_POST = int(Operation.PIO_POST), int(Operation.MMIO_POST)
_POSTS = (_PIO_POST, _MMIO_POST)

_WORDS = ENTRY_SIZE // 8
_STATUS_WORD = 7  # of an entry, as 32-bit words


class Accesses(Protocol):
    """What makes the accesses: an `IoManager`. An access that fails raises."""

    def mmio_read(self, address: int, data: memoryview, /) -> None:
        """Fill `data`."""

    def mmio_write(self, address: int, data: bytes, /) -> None:
        """Take `data`."""

    def pio_read(self, port: int, data: memoryview, /) -> None:
        """Fill `data`."""

    def pio_write(self, port: int, data: bytes, /) -> None:
        """Take `data`."""


class Consumer:
    """The server's end of one queue. Used by one thread.

    Args:
        memory: the ring.
        queue: which of its queues.
        accesses: makes the accesses.
        status_of: the status that an exception of theirs stands for.
        wake: called when the client sleeps and a completion is there.
    """

    def __init__(
        self,
        memory: memoryview,
        queue: int,
        accesses: Accesses,
        status_of: Callable[[Exception], AccessStatus],
        wake: Callable[[], None],
    ) -> None:
        layout = RingLayout.read_header(memory)
        self._mask = layout.entries - 1
        self._entries = layout.queue_entries(memory, queue)
        self._words = self._entries.cast("Q")
        self._halves = self._entries.cast("I")
        self._control = layout.control(memory, queue)
        # A window for each entry and size: entry * 33 + size.
        starts = range(DATA_OFFSET, len(self._entries), ENTRY_SIZE)
        self._windows = [
            self._entries[start : start + size] for start in starts for size in range(DATA_MAX + 1)
        ]
        self._accesses = accesses
        self._status_of = status_of
        self._wake = wake
        self._next = 1
        self._posted_failures = 0

    @property
    def is_pending(self) -> bool:
        """Whether an entry is there that wasn't taken."""
        return bool(self._words[(self._next & self._mask) * _WORDS] == self._next)

    def serve(self, looks: int) -> int:
        """Take what is there, and look again up to `looks` times; return how many it was.

        Not more than `BURST_MAX` at once.
        """
        words, control, windows = self._words, self._control, self._windows
        mask = self._mask
        mmio_read, mmio_write = self._accesses.mmio_read, self._accesses.mmio_write
        sequence = first = self._next
        last = sequence + BURST_MAX
        while sequence < last:
            slot = sequence & mask
            entry = slot * _WORDS
            for _ in repeat(None, looks):
                if words[entry] == sequence:
                    break
            else:
                break
            address = words[entry + ADDRESS]
            what = words[entry + WHAT] & 0xFFFF  # read once: the client may still write it
            operation = what & 0xFF
            size = what >> 8
            completion = sequence << 1
            try:
                # The commonest first. What a write brings is copied, for the client
                # might change it while the device looks.
                if operation == _MMIO_READ and 0 < size <= DATA_MAX:
                    mmio_read(address, windows[slot * (DATA_MAX + 1) + size])
                elif (operation in (_MMIO_WRITE, _MMIO_POST)) and 0 < size <= DATA_MAX:
                    mmio_write(address, bytes(windows[slot * (DATA_MAX + 1) + size]))
                else:
                    self._access_otherwise(operation, address, slot, size)
            except Exception as error:  # noqa: BLE001 # whatever it is, it is that access's
                self._fail(slot, operation, self._status_of(error))
                completion += 1
            words[entry + COMPLETION] = completion
            if control[WAITING]:
                self._wake()
            sequence += 1
        self._next = sequence
        return sequence - first

    def close(self) -> None:
        """Let go of the memory."""
        views = (*self._windows, self._words, self._halves, self._control, self._entries)
        self._windows.clear()
        for view in views:
            view.release()

    def _access_otherwise(self, operation: int, address: int, slot: int, size: int) -> None:
        """Make an access through ports, or refuse what isn't one."""
        if not 0 < size <= DATA_MAX:
            raise BadEntry(AccessStatus.BAD_ACCESS_SIZE)
        window = self._windows[slot * (DATA_MAX + 1) + size]
        if operation == _PIO_READ:
            self._accesses.pio_read(address, window)
        elif operation in (_PIO_WRITE, _PIO_POST):
            self._accesses.pio_write(address, bytes(window))
        else:
            raise BadEntry(AccessStatus.BAD_ACCESS)

    def _fail(self, slot: int, operation: int, status: AccessStatus) -> None:
        self._halves[slot * (ENTRY_SIZE // 4) + _STATUS_WORD] = status
        if operation in _POSTS:
            self._posted_failures += 1
            self._control[POSTED_FAILURE] = status
            self._control[POSTED_FAILURES] = self._posted_failures


class BadEntry(Exception):
    """An entry that isn't an access."""

    def __init__(self, status: AccessStatus) -> None:
        super().__init__(status.name)
        self.status = status
