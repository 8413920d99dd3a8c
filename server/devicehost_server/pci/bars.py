"""The BARs of a function: which of a device's constraints is behind which, and how large it is.

    >>> bars = lay_out([PioAddressConstraint(size=6), MmioAddressConstraint(size=0x1800)])
    >>> [(bar.index, bar.kind.value, bar.size, bar.length) for bar in bars]
    [(0, 'io', 8, 6), (1, 'mmio', 8192, 6144)]

Invariants:
    There is a BAR for each address constraint, in their order, and one more for MSI-X.
    A size is a power of two: of I/O 4 to 256 bytes, of memory a page or more. What lies
    behind the `length` that the device has itself, reads as ones and ignores writes.
    Memory of 1 GiB or more takes a pair of registers, so that it can be above 4 GiB.

Source: PCI Local Bus Specification 3.0, section 6.2.5.1.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from devicehost_server.model.errors import BadConstraint, hex_address
from devicehost_server.model.resources import (
    PAGE_SIZE,
    AddressConstraint,
    MemAddressConstraint,
    PioAddressConstraint,
    ResourceConstraint,
)

SLOTS = 6
"""How many registers there are for BARs."""

IO_SIZE_MIN, IO_SIZE_MAX = 4, 256
MEMORY_SIZE_MIN, MEMORY_SIZE_MAX = PAGE_SIZE, 1 << 63

WIDE_FROM = 1 << 30
"""The size from which memory is a 64-bit BAR, in bytes."""

_IO_SPACE = 0x1
_MEMORY_64BIT = 0x4
_PREFETCHABLE = 0x8


class BarKind(enum.Enum):
    """What is behind a BAR."""

    IO = "io"
    MMIO = "mmio"
    MEMORY = "memory"
    MSIX = "msix"
    """The function's own: the MSI-X table and the pending bits."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One base address register, or a pair of them.

    Attributes:
        index: its number, 0 to 5, of the first of a pair; vfio's number of its region.
        kind: what is behind it.
        size: in bytes, a power of two.
        length: how many of them are the device's; the first ones.
        is_64bit: whether it is a pair.
        prefetchable: whether reads have no effect, and writes may be merged.
    """

    index: int
    kind: BarKind
    size: int
    length: int
    is_64bit: bool = False
    prefetchable: bool = False

    @property
    def is_io(self) -> bool:
        """Whether it is in the I/O space; else it is in memory space."""
        return self.kind is BarKind.IO

    @property
    def slots(self) -> int:
        """How many registers it takes."""
        return 2 if self.is_64bit else 1

    @property
    def flags(self) -> int:
        """What the lowest bits of the register always read as."""
        if self.is_io:
            return _IO_SPACE
        return _MEMORY_64BIT * self.is_64bit | _PREFETCHABLE * self.prefetchable

    @property
    def address_mask(self) -> int:
        """The bits that hold an address: those that a driver can write."""
        bits = 64 if self.is_64bit else 32
        return (1 << bits) - self.size


def lay_out(constraints: Iterable[ResourceConstraint], *, msix_length: int = 0) -> tuple[Bar, ...]:
    """Give each address constraint its BAR.

    Args:
        constraints: a device's; those that aren't about addresses are passed over.
        msix_length: the bytes that MSI-X needs in a BAR of its own; 0 for no MSI-X.

    Raises:
        BadConstraint: one is too large for a BAR, or there are too many.
    """
    bars: list[Bar] = []
    slot = 0
    for kind, length in _wanted(constraints, msix_length):
        bar = _bar(slot, kind, length)
        slot += bar.slots
        if slot > SLOTS:
            raise BadConstraint(
                f"PCI function: {kind.value} range of {length:#x} bytes needs BAR "
                f"{' and '.join(map(str, range(bar.index, slot)))}; allowed: 0 to {SLOTS - 1}",
                field="constraints",
                size=hex_address(length),
            )
        bars.append(bar)
    return tuple(bars)


def _wanted(
    constraints: Iterable[ResourceConstraint], msix_length: int
) -> Iterator[tuple[BarKind, int]]:
    for constraint in constraints:
        match constraint:
            case PioAddressConstraint(size=size):
                yield BarKind.IO, size
            case MemAddressConstraint(size=size):
                yield BarKind.MEMORY, size
            case AddressConstraint(size=size):
                yield BarKind.MMIO, size
    if msix_length:
        yield BarKind.MSIX, msix_length


def _bar(index: int, kind: BarKind, length: int) -> Bar:
    if kind is BarKind.IO:
        least, most = IO_SIZE_MIN, IO_SIZE_MAX
    else:
        least, most = MEMORY_SIZE_MIN, MEMORY_SIZE_MAX
    if length > most:
        raise BadConstraint(
            f"PCI function: BAR {index}: {kind.value} range of {length:#x} bytes; "
            f"allowed: at most {most:#x}",
            field="size",
            value=hex_address(length),
        )
    size = max(least, 1 << (length - 1).bit_length())
    is_64bit = kind is not BarKind.IO and size >= WIDE_FROM
    return Bar(index, kind, size, length, is_64bit, prefetchable=kind is BarKind.MEMORY)
