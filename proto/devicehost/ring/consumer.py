"""The server's end of a queue: takes entries in order, and makes their accesses."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain, repeat
from typing import Protocol

from devicehost.access_status import AccessStatus
from devicehost.ring.layout import (
    ADDRESS,
    COMPLETION,
    DATA_MAX,
    ENTRY_SIZE,
    POSTED_FAILURE,
    POSTED_FAILURES,
    STATUS_HALF,
    WAITING,
    WHAT,
    Operation,
    RingLayout,
    data_windows,
)

BURST_MAX = 64
"""Entries that are taken before other queues, and other threads, have their turn."""


def _sizes(*operations: Operation) -> dict[int, int]:
    """The size of the access for each `what` that says one of these operations."""
    sizes = range(1, DATA_MAX + 1)
    return {operation | size << 8: size for operation in operations for size in sizes}


_PIO_READS = _sizes(Operation.PIO_READ)
_PIO_WRITES = _sizes(Operation.PIO_WRITE, Operation.PIO_POST)
_MMIO_READS = _sizes(Operation.MMIO_READ)
_MMIO_WRITES = _sizes(Operation.MMIO_WRITE, Operation.MMIO_POST)
_POSTS = (Operation.PIO_POST, Operation.MMIO_POST)

_WORDS = ENTRY_SIZE // 8


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
        layout: its shape; what the header says isn't looked at, the client may change it.
        queue: which of its queues.
        accesses: makes the accesses.
        status_of: the status that an exception of theirs stands for.
        wake: called when the completion is there that the client sleeps for.

    Raises:
        BadRing: there is no such queue.
    """

    def __init__(
        self,
        memory: memoryview,
        layout: RingLayout,
        queue: int,
        accesses: Accesses,
        *,
        status_of: Callable[[BaseException], AccessStatus],
        wake: Callable[[], None],
    ) -> None:
        self._mask = layout.entries - 1
        self._entries = layout.queue_entries(memory, queue)
        self._words = self._entries.cast("Q")
        self._halves = self._entries.cast("I")
        self._control = layout.control(memory, queue)
        self._windows = data_windows(self._entries)
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
        # What lies between the client's store and ours is what an access costs: all that
        # can be is done before the look, or after the completion.
        words, windows, control = self._words, self._windows, self._control
        mmio_read, mmio_write = self._accesses.mmio_read, self._accesses.mmio_write
        first = self._next
        for sequence in range(first, first + BURST_MAX):
            slot = sequence & self._mask
            entry = slot * _WORDS
            completion = sequence << 1
            of_size = windows[slot]
            for _ in repeat(None, looks):
                if words[entry] == sequence:
                    break
            else:
                self._next = sequence
                return sequence - first
            what = words[entry + WHAT]  # read once: the client may still write it
            try:
                # The commonest first. What a write brings is copied, for the client
                # might change it while the device looks.
                if size := _MMIO_READS.get(what):
                    mmio_read(words[entry + ADDRESS], of_size[size])
                elif size := _MMIO_WRITES.get(what):
                    mmio_write(words[entry + ADDRESS], bytes(of_size[size]))
                else:
                    self._access_ports(what, words[entry + ADDRESS], of_size)
            except BaseException as error:  # noqa: BLE001 # whatever it is, it is that access's
                self._fail(slot, what, self._status_of(error))
                completion += 1
            words[entry + COMPLETION] = completion
            if control[WAITING]:
                self._wake_for(sequence)
        self._next = first + BURST_MAX
        return BURST_MAX

    def close(self) -> None:
        """Let go of the memory, but for what a device still holds of it."""
        views = (self._words, self._halves, self._control, self._entries)
        for view in chain(chain.from_iterable(self._windows), views):
            try:
                view.release()
            except BufferError:
                continue

    def _wake_for(self, sequence: int) -> None:
        """Wake the client if it doesn't wait for a later access than this."""
        if 0 < self._control[WAITING] <= sequence:
            self._wake()

    def _access_ports(self, what: int, address: int, of_size: list[memoryview]) -> None:
        """Make an access to a port, or refuse what isn't one."""
        if size := _PIO_READS.get(what):
            self._accesses.pio_read(address, of_size[size])
        elif size := _PIO_WRITES.get(what):
            self._accesses.pio_write(address, bytes(of_size[size]))
        elif what & 0xFF in Operation.__members__.values():
            raise BadEntry(AccessStatus.BAD_ACCESS_SIZE)
        else:
            raise BadEntry(AccessStatus.BAD_ACCESS)

    def _fail(self, slot: int, what: int, status: AccessStatus) -> None:
        self._halves[slot * (ENTRY_SIZE // 4) + STATUS_HALF] = status
        if what & 0xFF in _POSTS:
            self._posted_failures += 1
            self._control[POSTED_FAILURE] = status
            self._control[POSTED_FAILURES] = self._posted_failures


class BadEntry(Exception):
    """An entry that isn't an access."""

    def __init__(self, status: AccessStatus) -> None:
        super().__init__(status.name)
        self.status = status
