"""The client's end of a queue: fills entries, and waits for their completion."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import repeat

from devicehost.access_status import AccessStatus
from devicehost.ring.layout import (
    HELD,
    INTERRUPT_GENERATION,
    LOOK_AGAIN_S,
    NEED_WAKEUP,
    POSTED_FAILURE,
    POSTED_FAILURES,
    SERVER_LINE,
    WAITING,
    Entries,
    RingLayout,
)
from devicehost.ring.spin import Spin

_NEED_WAKEUP = NEED_WAKEUP - SERVER_LINE // 8
_HELD = HELD - SERVER_LINE // 8
_INTERRUPT_GENERATION = INTERRUPT_GENERATION - SERVER_LINE // 8

SPIN_S = 100e-6
"""The longest spin for a completion before sleeping, in seconds."""

_LOOKS = 100  # at a completion, before looking at the clock: about 3 microseconds


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
        timeout_s: how long to sleep for an access before it is overdue, in seconds. The
            time begins anew while the server says that accesses are held.
        spin_s: the longest spin before sleeping, in seconds; see `devicehost.ring.spin`.
            0 for none at all.

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
        self._entries = entries = Entries(layout.queue_entries(memory, queue))
        self._sequences, self._completions = entries.sequences, entries.completions
        self._addresses, self._whats, self._data = entries.addresses, entries.whats, entries.data
        self._control = layout.control(memory, queue)
        self._server = memory[SERVER_LINE : SERVER_LINE + 64].cast("Q")
        self._doorbell = doorbell
        self._wait = wait
        self._barrier = barrier
        self._timeout_s = timeout_s
        self._spin = Spin(spin_s)
        self._looks = _LOOKS if spin_s else 1
        self._next = self._slot = 1  # the number of the next access, and its entry
        self._room = layout.entries  # accesses up to this one are known to have a free entry
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

    @property
    def interrupt_generation(self) -> int:
        """The number of the last change of an interrupt.

        Once an access has returned, it counts whatever that access has changed.
        """
        generation: int = self._server[_INTERRUPT_GENERATION]
        return generation

    def read(self, operation: int, address: int, data: bytearray | memoryview) -> None:
        """Fill `data`, 1 to 32 bytes, from `address`.

        Args:
            operation: `PIO_READ` or `MMIO_READ`; a plain number is faster than the enum.
            address: guest-physical, or a port.
            data: as long as the access. To fill a memoryview is faster than a bytearray.

        Raises:
            AccessFailed: the server or the device refused it.
            AccessOverdue: no completion came in time.
        """
        # What is done before the entry is announced, or after its completion, makes the
        # access longer. All else is done in between, while the server works.
        sequence, slot = self._next, self._slot
        if sequence > self._room:
            self._make_room(sequence)
        size = len(data)
        self._addresses[slot] = address
        self._whats[slot] = operation | size << 8
        self._sequences[slot] = sequence
        self._next = sequence + 1  # at once: a gap would stop the queue
        self._slot = (sequence + 1) & self._mask
        if self._server[_NEED_WAKEUP]:
            self._doorbell()
        of_size = self._data[slot]
        self._wait_for(sequence, slot)
        data[:] = of_size[size]

    def write(self, operation: int, address: int, data: bytes | bytearray | memoryview) -> None:
        """Write `data`, 1 to 32 bytes, to `address`, and wait until it is taken.

        Raises:
            AccessFailed, AccessOverdue: as for `read`.
        """
        sequence, slot = self._next, self._slot
        self.post(operation, address, data)
        self._wait_for(sequence, slot)

    def post(self, operation: int, address: int, data: bytes | bytearray | memoryview) -> None:
        """Write `data`, 1 to 32 bytes, to `address`, without waiting.

        It only waits where the queue is full. If `operation` says that it is posted, a
        failure is counted in `posted_failures`.

        Raises:
            AccessOverdue: the queue stayed full.
        """
        sequence, slot = self._next, self._slot
        if sequence > self._room:
            self._make_room(sequence)
        size = len(data)
        self._data[slot][size][:] = data
        self._addresses[slot] = address
        self._whats[slot] = operation | size << 8
        self._sequences[slot] = sequence
        self._next = sequence + 1  # at once: a gap would stop the queue
        self._slot = (sequence + 1) & self._mask
        if self._server[_NEED_WAKEUP]:
            self._doorbell()

    @property
    def last(self) -> int:
        """The number of the last access; 0 before the first. Safe to use from any thread."""
        return self._next - 1

    def is_complete(self, sequence: int) -> bool:
        """Whether this access is completed, and with it all before it; from any thread."""
        return bool(self._completions[sequence & self._mask] >= sequence << 1)

    def flush(self) -> None:
        """Wait until all posted writes are made.

        Raises:
            AccessOverdue: that took too long.
        """
        if not self.is_complete(self.last):
            self._complete(self.last)

    def close(self) -> None:
        """Let go of the memory."""
        self._entries.release()
        self._control.release()
        self._server.release()

    def _wait_for(self, sequence: int, slot: int) -> None:
        """Wait until this access is completed, as `_complete` does, and raise if it failed."""
        completions = self._completions
        success = sequence << 1
        for _ in repeat(None, self._looks):
            completion = completions[slot]
            if completion >= success:
                break
        else:
            completion = self._complete(sequence)
        if completion != success:
            # A failure without a reason is the device's.
            status = _status(self._entries.statuses[slot])
            raise AccessFailed(status or AccessStatus.DEVICE_FAULT)

    def _make_room(self, sequence: int) -> None:
        """Find out that there is room, or wait until half of a full queue is completed."""
        if self.is_complete(sequence - 1):
            self._room = sequence - 1 + self._count
        else:
            self._complete(sequence - self._count // 2 - 1)

    def _complete(self, sequence: int) -> int:
        """Wait until this access is completed: spin, then sleep. Return its completion."""
        helped = self._spin_for(sequence)
        if not helped:
            self._sleep_until(sequence)
        self._spin.after(helped=helped)
        self._room = sequence + self._count
        completion: int = self._completions[sequence & self._mask]
        return completion

    def _spin_for(self, sequence: int) -> bool:
        """Look for the time of a spin; return whether this access is completed."""
        completions, slot, success = self._completions, sequence & self._mask, sequence << 1
        until = time.monotonic() + self._spin.now_s
        while time.monotonic() < until:
            for _ in repeat(None, _LOOKS):
                if completions[slot] >= success:
                    return True
        return False

    def _sleep_until(self, sequence: int) -> None:
        """Sleep until this access is completed."""
        control = self._control
        deadline = time.monotonic() + self._timeout_s
        look_again_s = min(LOOK_AGAIN_S, self._timeout_s / 4)
        control[WAITING] = sequence
        try:
            self._barrier()
            while not self.is_complete(sequence):
                now = time.monotonic()
                if self._server[_HELD]:
                    deadline = now + self._timeout_s  # the device has all of it afterwards
                elif now >= deadline:
                    raise AccessOverdue(f"no completion within {self._timeout_s:g} s")
                if self._wait(min(deadline - now, look_again_s)):
                    continue
                # The signal may have come just now.
                if self.is_complete(sequence) and not self._wait(0):
                    self.late_wakeups += 1
        finally:
            control[WAITING] = 0


def _status(number: int) -> AccessStatus:
    try:
        return AccessStatus(number)
    except ValueError:  # of a newer server
        return AccessStatus.DEVICE_FAULT
