"""The map of one address space: which range belongs to which device.

The one invariant: ranges are sorted by base, and no two share a byte. A map never
changes; `with_trap` and `without` return a new one. So whoever holds a map may use it
without a lock, for as long as an access lasts, while others publish the next.
"""

from __future__ import annotations

import enum
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from devicehost_server.model.counters import AccessCounts
from devicehost_server.model.device_io import DeviceIo
from devicehost_server.model.errors import DeviceOverlap, NoDevice, hex_range

Handler: TypeAlias = Callable[[int, int, Any], None]
"""Takes (base, offset, data), as the four access methods of `DeviceIo` do."""


class Space(enum.Enum):
    """An address space that traps."""

    PIO = "pio"
    MMIO = "mmio"


@dataclass(frozen=True, slots=True, eq=False)
class Trap:
    """One range of one device, with what to call when it is hit.

    Attributes:
        base: the first address.
        last: the last address.
        device: whom the range belongs to.
        read: fills the data of a read.
        write: takes the data of a write.
        counts: of its accesses; the same for all ranges of a device.
    """

    base: int
    last: int
    device: DeviceIo
    read: Handler
    write: Handler
    counts: AccessCounts = field(default_factory=AccessCounts)

    @property
    def size(self) -> int:
        """The length of the range in bytes."""
        return self.last - self.base + 1


class AddressMap:
    """The traps of one space, sorted. Immutable.

    Attributes:
        bases: the first address of each trap, ascending; what a lookup bisects.
        traps: the traps, in the order of `bases`.
    """

    __slots__ = ("bases", "space", "traps")

    def __init__(self, space: Space, traps: tuple[Trap, ...] = ()) -> None:
        self.space = space
        self.traps = traps
        self.bases = [trap.base for trap in traps]

    def __iter__(self) -> Iterator[Trap]:
        return iter(self.traps)

    def find(self, address: int) -> Trap | None:
        """Return the trap whose range holds `address`."""
        index = bisect_right(self.bases, address) - 1
        if index >= 0 and address <= self.traps[index].last:
            return self.traps[index]
        return None

    def with_trap(self, new: Trap) -> AddressMap:
        """Return this map and `new`.

        Raises:
            DeviceOverlap: `new` shares a byte with a trap of this map.
        """
        index = bisect_right(self.bases, new.last)
        if index and (there := self.traps[index - 1]).last >= new.base:
            space = self.space.value
            wanted, taken = hex_range(new.base, new.size), hex_range(there.base, there.size)
            raise DeviceOverlap(
                f"{space} range {wanted} of device {new.device.name!r} overlaps"
                f" {taken} of device {there.device.name!r}",
                space=space,
                range=wanted,
                other_range=taken,
                other_device=there.device.name,
            )
        return AddressMap(self.space, (*self.traps[:index], new, *self.traps[index:]))

    def without(self, base: int, size: int) -> tuple[AddressMap, Trap]:
        """Return this map without the trap of exactly that range, and that trap.

        Raises:
            NoDevice: no trap has this base and size.
        """
        index = bisect_right(self.bases, base) - 1
        if index < 0 or (trap := self.traps[index]).base != base or trap.size != size:
            space = self.space.value
            raise NoDevice(
                f"no device is registered at exactly {space} {hex_range(base, size)}",
                space=space,
                range=hex_range(base, size),
            )
        return AddressMap(self.space, self.traps[:index] + self.traps[index + 1 :]), trap
