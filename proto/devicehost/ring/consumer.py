"""The server's end of a queue: takes entries in order, and makes their accesses."""

from __future__ import annotations

from collections.abc import Callable
from itertools import repeat
from typing import NoReturn, Protocol

from devicehost.access_status import AccessStatus
from devicehost.ring.layout import (
    DATA_MAX,
    POSTED_FAILURE,
    POSTED_FAILURES,
    WAITING,
    Entries,
    Operation,
    RingLayout,
)

BURST_MAX = 32
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
        self._entries = Entries(layout.queue_entries(memory, queue))
        self._control = layout.control(memory, queue)
        self._accesses = accesses
        self._status_of = status_of
        self._wake = wake
        self._next = 1
        self._posted_failures = 0

    @property
    def position(self) -> int:
        """The number of the entry that is taken next; behind it while `serve` goes on."""
        return self._next

    @property
    def is_pending(self) -> bool:
        """Whether an entry is there that wasn't taken."""
        return bool(self._entries.sequences[self._next & self._mask] == self._next)

    def serve(self, looks: int) -> int:
        """Take what is there, and look again up to `looks` times; return how many it was.

        Not more than `BURST_MAX` at once.
        """
        # What lies between the client's store and ours is what an access costs: all that
        # can be is done before the look, or after the completion.
        entries, control, mask = self._entries, self._control, self._mask
        sequences, completions = entries.sequences, entries.completions
        addresses, whats, data = entries.addresses, entries.whats, entries.data
        accesses = self._accesses
        mmio_read, mmio_write = accesses.mmio_read, accesses.mmio_write
        pio_read, pio_write = accesses.pio_read, accesses.pio_write
        mmio_read_size, mmio_write_size = _MMIO_READS.get, _MMIO_WRITES.get
        pio_read_size, pio_write_size = _PIO_READS.get, _PIO_WRITES.get
        first = self._next
        for sequence in range(first, first + BURST_MAX):
            slot = sequence & mask
            completion = sequence << 1
            of_size = data[slot]
            tries = repeat(None, looks)  # a variable: to drop it takes time, too
            for _ in tries:
                if sequences[slot] == sequence:
                    break
            else:
                self._next = sequence
                return sequence - first
            what = whats[slot]  # read once: the client may still write it
            try:
                # The commonest first. What a write brings is copied, for the client
                # might change it while the device looks.
                if size := mmio_read_size(what):
                    mmio_read(addresses[slot], of_size[size])
                elif size := mmio_write_size(what):
                    mmio_write(addresses[slot], of_size[size].tobytes())
                elif size := pio_write_size(what):
                    pio_write(addresses[slot], of_size[size].tobytes())
                elif size := pio_read_size(what):
                    pio_read(addresses[slot], of_size[size])
                else:
                    self._refuse(what)
            except BaseException as error:  # noqa: BLE001 # whatever it is, it is that access's
                self._fail(slot, what, self._status_of(error))
                completion += 1
            completions[slot] = completion
            if control[WAITING]:
                self._wake_for(sequence)
        self._next = first + BURST_MAX
        return BURST_MAX

    def close(self) -> None:
        """Let go of the memory, but for what a device still holds of it."""
        self._entries.release()
        self._control.release()

    def _wake_for(self, sequence: int) -> None:
        """Wake the client if it doesn't wait for a later access than this."""
        if 0 < self._control[WAITING] <= sequence:
            self._wake()

    def _refuse(self, what: int) -> NoReturn:
        """Say what is wrong with an entry that isn't an access."""
        if what & 0xFF in Operation.__members__.values():
            raise BadEntry(AccessStatus.BAD_ACCESS_SIZE)
        raise BadEntry(AccessStatus.BAD_ACCESS)

    def _fail(self, slot: int, what: int, status: AccessStatus) -> None:
        self._entries.statuses[slot] = status
        if what & 0xFF in _POSTS:
            self._posted_failures += 1
            self._control[POSTED_FAILURE] = status
            self._control[POSTED_FAILURES] = self._posted_failures


class BadEntry(Exception):
    """An entry that isn't an access."""

    def __init__(self, status: AccessStatus) -> None:
        super().__init__(status.name)
        self.status = status
