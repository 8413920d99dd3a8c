"""Fuzz target: the client's end of a ring, and a server that writes what it likes.

An input is accesses, and what the server does whenever the client rings or sleeps: serve
properly, complete what it likes, or scribble.

What holds:
    Nothing is raised but `AccessFailed`, with a status that is a failure, and
    `AccessOverdue`.
    A read fills exactly the buffer it was given, with what is in its entry.
    The client writes nothing but its own parts of its own entry, and `waiting`.
"""

from __future__ import annotations

import struct
from contextlib import suppress
from typing import Final

from devicehost.access_status import AccessStatus
from devicehost.ring.layout import (
    COMPLETION,
    CONTROLS,
    DATA_MAX,
    DATA_OFFSET,
    ENTRIES,
    ENTRY_SIZE,
    NEED_WAKEUP,
    Operation,
)
from devicehost.ring.producer import AccessFailed, AccessOverdue
from fuzz.ring_consumer import COUNT, some_scribble
from fuzz.source import Source
from ringpair import BASE, PORT, Board, Pair, bus_with

TIMEOUTS_S: Final = (10.0, 0.0)
"""Longer than any input takes, and none."""

READS: Final = (Operation.MMIO_READ, Operation.PIO_READ)
WRITES: Final = (Operation.MMIO_WRITE, Operation.PIO_WRITE)
POSTS: Final = (Operation.MMIO_POST, Operation.PIO_POST)


class UsedUp(Exception):
    """The input has no more for the server to do, and the client still waits."""


class Rig:
    """A queue, its client, and a server that does what the input says."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._pair = Pair(bus_with(Board()), COUNT, timeout_s=source.choose(TIMEOUTS_S))
        self._pair.at_doorbell = self._pair.at_barrier = self._pair.asleep = self.act
        self._memory = self._pair.memory
        self._before = bytearray(self._memory)
        self._sequence = 0
        self._disturbed = False

    def act(self) -> None:
        """Let the server do the next thing."""
        if not self._source.left:
            raise UsedUp
        self._source.choose((self._serve, self._complete, self._scribble, self._nap))()

    def access(self) -> None:
        """Make an access, and look at what came of it."""
        source, client = self._source, self._pair.client
        kind = source.choose((READS, WRITES, POSTS))
        operation = source.choose(kind)
        address = (BASE if kind[0] is operation else PORT) + source.number(2)
        size = 1 + source.byte() % DATA_MAX
        data = bytearray(source.take(size).ljust(size, b"\0"))
        written = bytes(data)
        sequence = self._sequence + 1
        self._disturbed = False
        before = self._last()
        status: AccessStatus | None = None
        try:
            if kind is READS:
                client.read(operation, address, data)
                at = self._entry(sequence) + DATA_OFFSET
                assert bytes(data) == bytes(self._memory[at : at + size])
            elif kind is WRITES:
                client.write(operation, address, data)
            else:
                client.post(operation, address, data)
        except AccessFailed as failed:
            status = failed.status
        except AccessOverdue:
            pass
        except UsedUp:
            return
        assert status is not AccessStatus.OK, "it failed"
        assert len(data) == size
        if self._last() == before:
            return  # the queue was full, and stayed so
        self._sequence = sequence
        self._check(sequence, operation | size << 8, address, None if kind is READS else written)

    def flush(self) -> None:
        """Wait for all posted writes."""
        with suppress(AccessOverdue, UsedUp):
            self._pair.client.flush()
        assert isinstance(self._pair.client.posted_failures, int)
        assert isinstance(self._pair.client.posted_failure, AccessStatus)
        self._settle()

    def _last(self) -> int:
        return self._pair.client._next - 1

    def _check(self, sequence: int, what: int, address: int, data: bytes | None) -> None:
        """Check what the client wrote for an access."""
        at = self._entry(sequence)
        if not self._disturbed:
            found = struct.unpack_from("<Q8xQI", self._memory, at)
            assert found == (sequence, address, what)
            if data is not None:
                start = at + DATA_OFFSET
                assert bytes(self._memory[start : start + len(data)]) == data
        for own in (range(at, at + 8), range(at + 16, at + ENTRY_SIZE)):
            self._before[own.start : own.stop] = self._memory[own.start : own.stop]
        self._settle()

    def _settle(self) -> None:
        """Check that nothing was written but what is the client's."""
        self._before[CONTROLS : CONTROLS + 8] = self._memory[CONTROLS : CONTROLS + 8]
        assert bytes(self._memory) == self._before

    def _entry(self, sequence: int) -> int:
        return ENTRIES + sequence % COUNT * ENTRY_SIZE

    # What the server does. It is entered into the copy as well.

    def _serve(self) -> None:
        self._pair.server.serve(1)
        self._disturbed = True
        self._before[:] = self._memory

    def _complete(self) -> None:
        sequence = max(self._last() + self._source.choose((0, 0, 1, -1, 2, -COUNT)), 0)
        at = self._entry(sequence) + COMPLETION * 8
        self._write(at, (sequence * 2 + self._source.byte() % 2).to_bytes(8, "little"))

    def _scribble(self) -> None:
        self._write(*some_scribble(self._source))

    def _nap(self) -> None:
        self._write(NEED_WAKEUP * 8, (self._source.byte() % 2).to_bytes(8, "little"))
        self._pair.signalled = bool(self._source.byte() % 2)

    def _write(self, at: int, data: bytes) -> None:
        self._disturbed = True
        for memory in (self._memory, self._before):
            memory[at : at + len(data)] = data


def test_one_input(data: bytes) -> None:
    """Make the accesses, and see what the server's doings do to the client."""
    source = Source(data)
    rig = Rig(source)
    operations = (rig.access, rig.act, rig.flush)
    with suppress(UsedUp):
        while source.left:
            source.choose(operations)()
