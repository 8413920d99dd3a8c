"""MSI-X: up to 2048 messages, with a table and pending bits in a BAR of their own.

    offset                  what
    0                       the table: 16 bytes for each vector
    behind the table        the pending bits: whole groups of 8 bytes
    behind these            nothing: ones, and writes are ignored

Who masks a vector? A client has the last word on where messages go, so QEMU and others
keep a table of their own, for the guest, and don't forward what is written to it. They
connect and disconnect eventfds instead, and let through to the function what the guest
does to the capability: its enable bit and its function mask. If the table here counted,
all vectors would stay masked for them, as they are after power-on. So it counts as soon
as anybody has written to it, until the next reset, and not before. A client that forwards
writes forwards all, and a driver writes a vector's entry before it unmasks it.

Source: PCI Local Bus Specification 3.0, section 6.8.2.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from operator import and_

from devicehost_server.model.device_io import ReadableBuffer, WritableBuffer
from devicehost_server.model.errors import AccessOutOfRange, hex_address, hex_range
from devicehost_server.pci.bars import Bar
from devicehost_server.pci.messages import Messages

ID_MSIX = 0x11
COUNT_MAX = 2048

# Message control; its low bits are the last vector's number.
ENABLE = 0x8000
FUNCTION_MASK = 0x4000

# Control, then table and pending bits: their offset, and the BAR in its lowest bits.
_BODY = struct.Struct("<HII")
_CONTROL_SIZE = 2

# An entry: address, upper address, data, vector control.
_ENTRY = struct.Struct("<IIII")
_VECTOR_CONTROL = 12
_MASK_BIT = 0x1
_ENTRY_WRITABLE = _ENTRY.pack(0xFFFF_FFFC, 0xFFFF_FFFF, 0xFFFF_FFFF, _MASK_BIT)
_ENTRY_POWER_ON = _ENTRY.pack(0, 0, 0, _MASK_BIT)

_PENDING_BITS = 64  # in each group


def length(count: int) -> int:
    """Return how many bytes table and pending bits of `count` vectors have."""
    return count * _ENTRY.size + -(-count // _PENDING_BITS) * _PENDING_BITS // 8


class Msix(Messages):
    """The capability of a function with `count` vectors, 1 to 2048, and what is in its BAR.

    Args:
        count: how many vectors.
        bar: the BAR that table and pending bits are in, of at least `length(count)` bytes.
        changed: called after the table was written.

    Attributes:
        table: the entries as they are now; `load` replaces them.
        table_used: whether its masks count.
    """

    def __init__(self, count: int, bar: Bar, changed: Callable[[], None]) -> None:
        pending_offset = count * _ENTRY.size
        super().__init__(
            ID_MSIX,
            _BODY.pack(count - 1, bar.index, pending_offset | bar.index),
            _BODY.pack(ENABLE | FUNCTION_MASK, 0, 0),
            count,
        )
        self._bar = bar
        self._changed = changed
        self._pending_size = length(count) - pending_offset
        self._writable = _ENTRY_WRITABLE * count
        self.load(_ENTRY_POWER_ON * count, used=False)

    @property
    def enabled(self) -> bool:
        """Whether the driver has enabled MSI-X."""
        return bool(self.number(0, _CONTROL_SIZE) & ENABLE)

    @property
    def masked(self) -> int:
        """The vectors that the function mask masks, or the table if that is used."""
        if self.number(0, _CONTROL_SIZE) & FUNCTION_MASK:
            return -1
        return self._masked if self.table_used else 0

    def load(self, table: ReadableBuffer, *, used: bool) -> None:
        """Set the table; only bits that a driver can write are taken.

        Args:
            table: as many bytes as the entries have.
            used: whether its masks are to count.
        """
        self.table = bytearray(map(and_, table, self._writable))
        self.table_used = used
        self._masked = 0
        self._learn_masks(0, len(self.table))

    def reset(self) -> None:
        """Return to the state after power-on: all masked, but the table doesn't count."""
        super().reset()
        self.load(_ENTRY_POWER_ON * self.count, used=False)

    def read(self, offset: int, data: WritableBuffer) -> None:
        """Fill `data` from `offset` of the BAR: any size, at any alignment.

        Raises:
            AccessOutOfRange: it runs past the BAR.
        """
        self._check(offset, len(data))
        pending = self.pending.to_bytes(self._pending_size, "little")
        content = memoryview(self.table + pending)[offset : offset + len(data)]
        data[: len(content)] = content
        data[len(content) :] = b"\xff" * (len(data) - len(content))

    def write(self, offset: int, data: ReadableBuffer) -> None:
        """Take `data` to `offset` of the BAR: any size, at any alignment.

        Raises:
            AccessOutOfRange: it runs past the BAR.
        """
        self._check(offset, len(data))
        last = min(offset + len(data), len(self.table))
        if offset < last:
            self.table[offset:last] = bytes(map(and_, data, self._writable[offset:last]))
            self.table_used = True
            self._learn_masks(offset, last)
            self._changed()

    def _check(self, offset: int, size: int) -> None:
        if not 0 <= offset <= self._bar.size - size:
            raise AccessOutOfRange(
                f"MSI-X BAR {self._bar.index}: {size} bytes at {offset:#x}; "
                f"allowed: within {hex_range(0, self._bar.size)}",
                offset=hex_address(offset),
                size=size,
            )

    def _learn_masks(self, first: int, end: int) -> None:
        """Bring `_masked` up to date for the entries that bytes `first` to `end` are in."""
        masked = self._masked
        for vector in range(first // _ENTRY.size, -(-end // _ENTRY.size)):
            bit = 1 << vector
            is_masked = self.table[vector * _ENTRY.size + _VECTOR_CONTROL] & _MASK_BIT
            masked = masked | bit if is_masked else masked & ~bit
        self._masked = masked
