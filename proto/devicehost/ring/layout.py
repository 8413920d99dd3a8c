"""Where everything is in the shared memory, version 1. Offsets and sizes in bytes.

    0x0000  header, 64 bytes
            +0x00  u64  magic: "DHRING" and two zeros
            +0x08  u32  version: 1
            +0x0C  u32  queues
            +0x10  u32  entries of each queue, a power of two
    0x0040  server's line
            +0x00  u64  need_wakeup: 1 while the server sleeps, or is about to
            +0x08  u64  late_wakeups: entries found only when the server looked again
            +0x10  u64  interrupt_generation: the number of the last change of an interrupt;
                        stored before the completion of the access that caused it
            +0x18  u64  held: how many accesses of the VM are held by somebody who debugs;
                        while it isn't 0, an access that takes long is no sign of a loss
    0x0100  control of queue 0, 128 bytes; those of the other queues follow
            +0x00  u64  waiting: while the client sleeps, or is about to, the number of
                        the access that it waits for; else 0 (client's line)
            +0x40  u64  posted_failures: posted writes that failed (server's line)
            +0x48  u64  posted_failure: status of the last of them
    0x1000  entries of queue 0, 64 bytes each; those of the other queues follow

An entry:

    +0x00  u64  sequence: n for the n-th access of the queue, from 1 (client)
    +0x08  u64  completion: 2n if it was made, 2n + 1 if it failed (server)
    +0x10  u64  address: a guest-physical address, or a port (client)
    +0x18  u32  what: operation in bits 0 to 7, size in bytes in bits 8 to 15 (client)
    +0x1C  u32  status: 0 (client); an AccessStatus, if it failed (server)
    +0x20       data, 1 to 32 bytes (client for writes, server for reads)

The n-th access is in entry n modulo the number of entries. Its sequence is stored last,
and so is its completion. An entry may be used again once its completion is there.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass
from itertools import chain

MAGIC = b"DHRING\0\0"
VERSION = 1

HEADER = struct.Struct("<8sIII")  # magic, version, queues, entries
SERVER_LINE = 0x40
CONTROLS = 0x100
CONTROL_SIZE = 0x80
ENTRIES = 0x1000
ENTRY_SIZE = 64
DATA_OFFSET = 0x20
DATA_MAX = 32

QUEUES_MAX = (ENTRIES - CONTROLS) // CONTROL_SIZE

# Indexes into the memory as 64-bit words: of the server's line, of a queue's control, and
# of an entry, each relative to its start.
NEED_WAKEUP = SERVER_LINE // 8
LATE_WAKEUPS = SERVER_LINE // 8 + 1
INTERRUPT_GENERATION = SERVER_LINE // 8 + 2
HELD = SERVER_LINE // 8 + 3
WAITING = 0
POSTED_FAILURES = 8
POSTED_FAILURE = 9
SEQUENCE = 0
COMPLETION = 1
ADDRESS = 2
WHAT = 3
STATUS_HALF = 7  # of an entry, as 32-bit words

LOOK_AGAIN_S = 0.1
"""How long anybody sleeps before looking again, in seconds."""


class Operation(enum.IntEnum):
    """What an entry asks for."""

    PIO_READ = 1
    PIO_WRITE = 2
    MMIO_READ = 3
    MMIO_WRITE = 4
    PIO_POST = 5
    MMIO_POST = 6


class BadRing(ValueError):
    """Memory that isn't a ring of this version, or a ring that can't be."""


@dataclass(frozen=True, slots=True)
class RingLayout:
    """The shape of a ring.

    Attributes:
        queues: how many, 1 to `QUEUES_MAX`.
        entries: of each queue: a power of two, 2 to 4096.

    Raises:
        BadRing: a number that isn't allowed.
    """

    queues: int
    entries: int = 256

    def __post_init__(self) -> None:
        if not 1 <= self.queues <= QUEUES_MAX:
            raise BadRing(f"a ring of {self.queues} queues; allowed: 1 to {QUEUES_MAX}")
        if not 2 <= self.entries <= 4096 or self.entries & (self.entries - 1):  # noqa: PLR2004 # stands below
            raise BadRing(f"queues of {self.entries} entries; allowed: powers of two, 2 to 4096")

    @property
    def size(self) -> int:
        """The size of the memory, in bytes, whole pages."""
        return ENTRIES + -(-self.queues * self.entries * ENTRY_SIZE // 0x1000) * 0x1000

    def write_header(self, memory: memoryview) -> None:
        """Make zeroed memory a ring."""
        HEADER.pack_into(memory, 0, MAGIC, VERSION, self.queues, self.entries)

    @classmethod
    def read_header(cls, memory: memoryview) -> RingLayout:
        """Find out the shape of somebody else's ring.

        Raises:
            BadRing: it isn't one, is of another version, or too large for its memory.
        """
        if len(memory) < ENTRIES:
            raise BadRing(f"{len(memory)} bytes of memory are too few for a ring")
        magic, version, queues, entries = HEADER.unpack_from(memory)
        if magic != MAGIC or version != VERSION:
            raise BadRing(f"not a ring of version {VERSION}: {magic!r}, version {version}")
        layout = cls(queues, entries)
        if layout.size > len(memory):
            raise BadRing(f"a ring of {layout.size} bytes in {len(memory)} bytes of memory")
        return layout

    def control(self, memory: memoryview, queue: int) -> memoryview:
        """The control of a queue, as 64-bit words.

        Raises:
            BadRing: there is no such queue.
        """
        self._check(queue)
        start = CONTROLS + queue * CONTROL_SIZE
        return memory[start : start + CONTROL_SIZE].cast("Q")

    def queue_entries(self, memory: memoryview, queue: int) -> memoryview:
        """The entries of a queue, as bytes.

        Raises:
            BadRing: there is no such queue.
        """
        self._check(queue)
        size = self.entries * ENTRY_SIZE
        start = ENTRIES + queue * size
        return memory[start : start + size]

    def _check(self, queue: int) -> None:
        if not 0 <= queue < self.queues:
            raise BadRing(f"queue {queue} of a ring of {self.queues}; the first is 0")


class Entries:
    """The entries of a queue, field by field: `whats[n]` is what entry n asks for.

    Args:
        entries: the memory of them all.

    Attributes:
        sequences: of 64 bits each, as are the next three.
        completions: likewise.
        addresses: likewise.
        whats: likewise; the upper half is the status.
        statuses: of 32 bits each.
        data: a window on the data of each entry, for each size of it: `data[n][size]`. To
            make one takes longer than to use it.
    """

    __slots__ = ("_entries", "addresses", "completions", "data", "sequences", "statuses", "whats")

    def __init__(self, entries: memoryview) -> None:
        self._entries = entries
        words = entries.cast("Q")
        self.sequences, self.completions, self.addresses, self.whats = (
            words[field :: ENTRY_SIZE // 8] for field in (SEQUENCE, COMPLETION, ADDRESS, WHAT)
        )
        self.statuses = entries.cast("I")[STATUS_HALF :: ENTRY_SIZE // 4]
        starts = range(DATA_OFFSET, len(entries), ENTRY_SIZE)
        sizes = range(DATA_MAX + 1)
        self.data = [[entries[start : start + size] for size in sizes] for start in starts]

    def release(self) -> None:
        """Let go of the memory, but for what somebody else still holds of it."""
        fields = (self.sequences, self.completions, self.addresses, self.whats, self.statuses)
        for view in chain(chain.from_iterable(self.data), fields, (self._entries,)):
            try:
                view.release()
            except BufferError:
                continue
