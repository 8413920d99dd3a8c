"""Events into blocks: what runs for every access while somebody watches.

    packer = Packer()
    if not packer.access(started_ns, took_ns, vcpu, False, False, address, 4, data, 0):
        send(packer.take())
        packer.access(started_ns, took_ns, vcpu, False, False, address, 4, data, 0)

Invariants:
    `access` and `event` pack all of an event and return True, or pack nothing and return
    False: then the block is full, and is to be taken. Into an empty block goes anything.
    What is refused with a ValueError is not packed, and nothing is changed.
    A block is at most `capacity` bytes long, unless it has one event only.

Not for several threads: its owner holds a lock. The common access is packed by one struct,
and no test is made that the struct makes as well: what it refuses goes the slow way, which
finds out why.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final, TypeAlias

from devicehost.access_status import AccessStatus
from devicehost.recording import encoding
from devicehost.recording.events import Access, Event, Lost, Operation, Space
from devicehost.recording.layout import (
    ACCESS_MAX,
    BASE_LAST,
    BLOCK,
    BLOCK_MAX,
    CAPACITY,
    LOST,
    PIO,
    SHORT,
    SHORT_MMIO,
    SHORT_PIO,
    SIZES,
    TIME,
    TIME_RECORD,
    U32_LAST,
    U64_LAST,
    WRITE,
    varint,
)

ReadableBuffer: TypeAlias = bytes | bytearray | memoryview

CAPACITY_MIN: Final = BLOCK.size + ACCESS_MAX

SLACK_NS: Final = 1 << 30
"""How much earlier than the first event of a block others may be at no cost: a second."""

_NO_TIME: Final = 1 << 64
"""Later than any time: no event of the block has had one."""

_Short: TypeAlias = tuple[Callable[..., None], int, int]
"""How to pack an access of one size, what its record begins with, and how long that is."""


def _shorts(structs: dict[int, struct.Struct], bits: int) -> dict[int, _Short]:
    return {size: (each.pack_into, bits | SIZES[size], each.size) for size, each in structs.items()}


_MMIO_READ: Final = _shorts(SHORT_MMIO, SHORT)
_MMIO_WRITE: Final = _shorts(SHORT_MMIO, SHORT | WRITE)
_PIO_READ: Final = _shorts(SHORT_PIO, SHORT | PIO)
_PIO_WRITE: Final = _shorts(SHORT_PIO, SHORT | PIO | WRITE)


class Packer:
    """Packs events into a block, and that into bytes.

    Args:
        capacity: how long a block may be, in bytes; at least 36.

    Raises:
        ValueError: it is too small, or larger than a block may be.
    """

    __slots__ = (
        "_at",
        "_base",
        "_buffer",
        "_capacity",
        "_count",
        "_first_base",
        "_limit",
        "_names",
        "_window",
    )

    def __init__(self, capacity: int = CAPACITY) -> None:
        if not CAPACITY_MIN <= capacity <= BLOCK_MAX:
            raise ValueError(f"capacity is {capacity}: must be from {CAPACITY_MIN} to {BLOCK_MAX}")
        self._capacity = capacity
        self._limit = capacity - ACCESS_MAX
        self._buffer = bytearray(capacity)
        self._at: int
        self._count: int
        self._base: int
        self._first_base: int
        self._window: int
        self._names: dict[str, int]
        self._start()

    @property
    def count(self) -> int:
        """How many events are in the block."""
        return self._count

    @property
    def is_full(self) -> bool:
        """Whether the next access might not fit any more."""
        return self._at > self._limit

    def access(  # noqa: PLR0917 # by position, as names cost time
        self,
        started_ns: int,
        took_ns: int,
        vcpu: int,
        write: bool,  # noqa: FBT001 # likewise
        pio: bool,  # noqa: FBT001 # likewise
        address: int,
        size: int,
        data: ReadableBuffer,
        status: int,
    ) -> bool:
        """Pack an access that has ended.

        Args:
            started_ns: when it began, on the monotonic clock; need not increase.
            took_ns: how long it took.
            vcpu: whose it was; -1 if that isn't known.
            write: whether it wrote.
            pio: whether it was to a port.
            address: of its first byte.
            size: of one operand, in bytes.
            data: what was read or written, any length. It is copied.
            status: how it ended, an `AccessStatus`.

        Returns:
            Whether it was packed. If not, take the block first.

        Raises:
            ValueError: a number can't be.
        """
        if data.__class__ is not bytes:
            data = bytes(data)
        at = self._at
        if at <= self._limit and len(data) == size and not status:
            try:
                if pio:
                    pack_into, kind, length = (_PIO_WRITE if write else _PIO_READ)[size]
                    pack_into(
                        self._buffer,
                        at,
                        kind,
                        vcpu,
                        took_ns,
                        started_ns - self._base,
                        address,
                        data,
                    )
                else:
                    pack_into, kind, length = (_MMIO_WRITE if write else _MMIO_READ)[size]
                    pack_into(
                        self._buffer,
                        at,
                        kind,
                        vcpu,
                        took_ns,
                        started_ns - self._base,
                        address - self._window,
                        data,
                    )
            except (KeyError, struct.error):
                pass  # an odd size, or a number that doesn't fit: the slow way
            else:
                self._at = at + length
                self._count += 1
                return True
        return self._odd_access(
            Access(
                started_ns,
                took_ns,
                None if vcpu == -1 else vcpu,
                Space.PIO if pio else Space.MMIO,
                Operation.WRITE if write else Operation.READ,
                address,
                size,
                data,
                AccessStatus(status),
            )
        )

    def event(self, event: Event) -> bool:
        """Pack any event.

        Returns:
            Whether it was packed. If not, take the block first.

        Raises:
            ValueError: a value can't be: a number of more than 64 bits, a name that isn't
                text, a device that isn't JSON, or so much data that no block holds it.
        """
        if isinstance(event, Access):
            return self._odd_access(event)
        if isinstance(event, Lost):
            return self._add(bytes((LOST,)) + varint("count", event.count), self._base)
        base = self._base_for(event.time_ns)
        new: dict[str, int] = {}

        def number_of(name: str) -> bytes:
            number = self._names.get(name)
            if number is None:
                number = new.setdefault(name, len(self._names) + len(new))
            return varint("number of a name", number)

        record = encoding.event(event, event.time_ns - base, number_of)
        if not self._add(b"".join(map(encoding.name, new)) + record, base):
            return False
        self._names |= new
        return True

    def _odd_access(self, access: Access) -> bool:
        """Pack an access that isn't as most are: the first of a block, a slow or failed one."""
        base = self._base_for(access.time_ns)
        record, window = encoding.access(access, access.time_ns - base, self._window)
        if not self._add(record, base):
            return False
        self._window = window
        return True

    def take(self) -> bytes:
        """Return the block, and begin a new one. One without events is no bytes at all."""
        if not self._count:
            return b""
        base = 0 if self._first_base == _NO_TIME else self._first_base
        BLOCK.pack_into(self._buffer, 0, base, self._count)
        with memoryview(self._buffer) as whole:
            block = bytes(whole[: self._at])
        self._start()
        return block

    def _start(self) -> None:
        """Begin a block."""
        if len(self._buffer) > self._capacity:
            del self._buffer[self._capacity :]
        self._at = BLOCK.size
        self._count = 0
        self._base = self._first_base = _NO_TIME
        self._window = 0
        self._names = {}

    def _base_for(self, time_ns: int) -> int:
        """Return what the time of the next event is counted from: as before, if it can be."""
        if 0 <= time_ns - self._base <= U32_LAST:
            return self._base
        if not 0 <= time_ns <= U64_LAST:
            raise ValueError(f"time_ns is {time_ns}: it must be from 0 to {U64_LAST:#x}")
        return min(max(0, time_ns - SLACK_NS), BASE_LAST)

    def _add(self, record: bytes, base: int) -> bool:
        """Add an event's record, in which times are counted from `base`, if it fits."""
        moved = base != self._base
        if moved and self._first_base != _NO_TIME:
            record = TIME_RECORD.pack(TIME, base) + record
        end = self._at + len(record)
        if end > self._capacity:
            if self._count:
                return False
            if end > BLOCK_MAX:
                raise ValueError(f"an event of {len(record)} bytes: at most {BLOCK_MAX} can be")
            self._buffer.extend(bytes(end - self._capacity))
        self._buffer[self._at : end] = record
        self._at = end
        self._count += 1
        if moved:
            self._base = base
            if self._first_base == _NO_TIME:
                self._first_base = base
        return True
