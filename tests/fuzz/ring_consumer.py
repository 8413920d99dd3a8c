"""Fuzz target: the server's end of a ring, and a client that scribbles over all of it.

An input is operations: entries that are nearly right, rubbish anywhere in the ring, what
the device does, and what is scribbled while it does that. What the server is to do about
it is worked out beforehand, on a copy, by the plainest implementation of the layout.

What holds:
    Nothing is raised.
    The memory is afterwards what it should be, to the byte: completions are only for
    entries that were there, and nothing else is written.
    The device sees each access once, with a size from 1 to 32, and no other.
    A client is woken when it said that it sleeps, for what it waits for.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from structlog.testing import capture_logs

from devicehost.access_status import AccessStatus
from devicehost.ring.consumer import BURST_MAX
from devicehost.ring.layout import (
    CONTROLS,
    DATA_MAX,
    DATA_OFFSET,
    ENTRIES,
    ENTRY_SIZE,
    SERVER_LINE,
    Operation,
)
from devicehost_server.model.errors import DeviceTimeout
from fuzz.source import Source
from ringpair import BASE, PORT, SIZE, Board, Pair, bus_with

COUNT: Final = 4
"""Entries of the queue."""

PLACES: Final = (CONTROLS, ENTRIES, ENTRIES, 0)
ADDRESSES: Final = (BASE, PORT, BASE + SIZE - 4, PORT + SIZE - 4, BASE - 2, 0)
FAILURES: Final = (None, None, ValueError, DeviceTimeout, SystemExit)
STATUSES: Final[Mapping[type[BaseException] | None, AccessStatus]] = {
    None: AccessStatus.OK,
    DeviceTimeout: AccessStatus.DEVICE_TIMEOUT,
}
"""What they come to; the others are faults."""

_READS = (Operation.PIO_READ, Operation.MMIO_READ)
_PORTS = (Operation.PIO_READ, Operation.PIO_WRITE, Operation.PIO_POST)
_POSTS = (Operation.PIO_POST, Operation.MMIO_POST)

Scribble: TypeAlias = tuple[int, bytes]


def some_scribble(source: Source) -> Scribble:
    """Bytes, and where in the ring they go."""
    return source.choose(PLACES) + source.byte(), source.take(1 + source.byte() % 16)


@dataclass
class Reference:
    """The server's end, written down from the layout without a thought of speed.

    Attributes:
        memory: the ring.
        next: the number of the entry that it takes next.
        content: what the device has in its memory.
        seen: the accesses that the device saw.
        failing: the status of the accesses that the device fails, if it does.
        scribbles: what is to be written during accesses.
        woken: how often the client was woken.
    """

    memory: bytearray
    next: int = 1
    content: bytearray = field(default_factory=lambda: bytearray(SIZE))
    seen: list[tuple[str, int, bytes | int]] = field(default_factory=list)
    failing: AccessStatus = AccessStatus.OK
    scribbles: list[Scribble] = field(default_factory=list)
    woken: int = 0
    posted_failures: int = 0

    def serve(self) -> int:
        """Take what is there; return how many entries it was."""
        for taken in range(BURST_MAX):
            at = ENTRIES + self.next % COUNT * ENTRY_SIZE
            if self._word(at) != self.next:
                return taken
            what = self._word(at + 0x18)
            operation, size = what & 0xFF, what >> 8
            status = self._access(operation, size, self._word(at + 0x10), at + DATA_OFFSET)
            if status:
                struct.pack_into("<I", self.memory, at + 0x1C, status)
                if operation in _POSTS:
                    self.posted_failures += 1
                    struct.pack_into(
                        "<QQ", self.memory, CONTROLS + 0x40, self.posted_failures, status
                    )
            struct.pack_into("<Q", self.memory, at + 8, self.next * 2 + (status != AccessStatus.OK))
            self.woken += 0 < self._word(CONTROLS) <= self.next
            self.next += 1
        return BURST_MAX

    def _access(self, operation: int, size: int, address: int, data: int) -> AccessStatus:
        """Make an access as the bus and the device would."""
        if operation not in list(Operation):
            return AccessStatus.BAD_ACCESS
        port = operation in _PORTS
        if not (size in (1, 2, 4) if port else 1 <= size <= DATA_MAX):
            return AccessStatus.BAD_ACCESS_SIZE
        offset = address - (PORT if port else BASE)
        if not 0 <= offset < SIZE:
            return AccessStatus.NO_DEVICE
        if offset + size > SIZE:
            return AccessStatus.ACCESS_OUT_OF_RANGE
        reading = operation in _READS
        written = bytes(self.memory[data : data + size])
        if reading:
            self.memory[data : data + size] = bytes(size)
        if self.scribbles:
            self._scribble(*self.scribbles.pop(0))
        if self.failing:
            return self.failing
        name = f"{'pio' if port else 'mmio'}_{'read' if reading else 'write'}"
        self.seen.append((name, offset, size if reading else written))
        if reading:
            self.memory[data : data + size] = self.content[offset : offset + size]
        else:
            self.content[offset : offset + size] = written
        return AccessStatus.OK

    def _scribble(self, place: int, rubbish: bytes) -> None:
        self.memory[place : place + len(rubbish)] = rubbish

    def _word(self, at: int) -> int:
        return int.from_bytes(self.memory[at : at + 8], "little")


class Rig:
    """A queue, its server, and the reference."""

    def __init__(self) -> None:
        self.board = Board()
        self.board.before = lambda _data: self._during()
        self.pair = Pair(bus_with(self.board), COUNT)
        self.reference = Reference(bytearray(self.pair.memory))
        self._scribbles: list[Scribble] = []

    def entry(self, source: Source) -> None:
        """Announce an entry: the next one or one nearby, right or nearly right."""
        sequence = self.reference.next + source.choose((0, 0, 0, 1, 2, COUNT, -1))
        operation, size = source.byte() % 8, source.byte() % 40
        address = source.choose(ADDRESSES) + source.byte()
        entry = struct.pack("<Q8xQQ", sequence, address, operation | size << 8)
        data = source.take(size)
        at = ENTRIES + sequence % COUNT * ENTRY_SIZE
        self._scribble(at, entry[:8])
        self._scribble(at + 16, entry[16:] + data[:DATA_MAX])

    def scribble(self, source: Source) -> None:
        """Write anything anywhere."""
        self._scribble(*some_scribble(source))

    def wait(self, source: Source) -> None:
        """Say that the client sleeps."""
        waiting = max(self.reference.next + source.byte() - 8, 0)
        self._scribble(CONTROLS, waiting.to_bytes(8, "little"))

    def during(self, source: Source) -> None:
        """Write something while the device is at work."""
        scribble = some_scribble(source)
        self._scribbles.append(scribble)
        self.reference.scribbles.append(scribble)

    def fail(self, source: Source) -> None:
        """Have the device fail from here on, or not."""
        failure = source.choose(FAILURES)
        self.board.failing = None if failure is None else failure("told to")
        self.reference.failing = STATUSES.get(failure, AccessStatus.DEVICE_FAULT)

    def serve(self, source: Source) -> None:
        """Have the server take what is there, and look at what it did."""
        reference, pair = self.reference, self.pair
        expected = reference.serve()
        assert pair.server.serve(1 + source.byte() % 3) == expected
        pair.memory[SERVER_LINE : SERVER_LINE + 64] = bytes(64)  # none of this target's business
        reference.memory[SERVER_LINE : SERVER_LINE + 64] = bytes(64)
        assert bytes(pair.memory) == reference.memory
        assert self.board.seen == reference.seen
        assert pair.woken == reference.woken
        assert not pair.server.is_pending or expected == BURST_MAX

    def _during(self) -> None:
        if self._scribbles:
            place, rubbish = self._scribbles.pop(0)
            self.pair.memory[place : place + len(rubbish)] = rubbish

    def _scribble(self, place: int, rubbish: bytes) -> None:
        for memory in (self.pair.memory, self.reference.memory):
            memory[place : place + len(rubbish)] = rubbish


def test_one_input(data: bytes) -> None:
    """Carry out the operations, and compare the server with the reference."""
    source = Source(data)
    rig = Rig()
    operations = (rig.entry, rig.serve, rig.scribble, rig.wait, rig.during, rig.fail)
    with capture_logs():  # of devices that fail, as they are told
        while source.left:
            source.choose(operations)(source)
        rig.serve(source)
