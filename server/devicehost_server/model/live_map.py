"""What accesses look things up in: the address maps, in the shape that is fastest to read.

The maps say what is registered. A table by page in front of each finds most traps in one
step. All of it is made when a transaction commits, never changes after that, and is
replaced as a whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from devicehost_server.model.address_map import AddressMap, Space, Trap

PAGE_SHIFTS = {Space.PIO: 3, Space.MMIO: 12}
"""The size of a page, as a power of two: a UART's ports, and a page of memory."""

PAGES_MAX = 16
"""The longest range that stands in the page table, in pages."""


class PageTable:
    """What a lookup begins with: the traps of small ranges, by page. Immutable.

    Most ranges are a few pages long and have them to themselves. One step finds those,
    however many there are. Where a range is long, or shares a page, the map is bisected.

    Attributes:
        pages: the only trap in a page, by `address >> PAGE_SHIFTS[space]`. The trap may
            begin behind the address, or end before it.
        find: finds the trap of any address, as `AddressMap.find` does.
    """

    __slots__ = ("find", "pages")

    def __init__(self, bus: AddressMap) -> None:
        self.find = bus.find
        self.pages: dict[int, Trap] = {}
        shift = PAGE_SHIFTS[bus.space]
        shared: set[int] = set()
        for trap in bus:
            first, last = trap.base >> shift, trap.last >> shift
            if last - first < PAGES_MAX:
                shared |= self.pages.keys() & {first, last}
                self.pages.update(dict.fromkeys(range(first, last + 1), trap))
            else:
                shared |= {first, last}
        for page in shared:
            self.pages.pop(page, None)


class Maps(NamedTuple):
    """Both address spaces at one moment."""

    pio: AddressMap
    mmio: AddressMap


@dataclass(frozen=True, slots=True)
class Live:
    """What accesses look things up in: both address spaces at one moment."""

    pio: PageTable
    mmio: PageTable

    @classmethod
    def of(cls, maps: Maps) -> Live:
        """Make tables of maps."""
        return cls(PageTable(maps.pio), PageTable(maps.mmio))
