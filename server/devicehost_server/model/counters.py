"""Counting accesses by device: plain integers, on the path only while armed.

    counters = AccessCounters()
    manager.observe(counters)
    ...
    counters.counts("uart0").reads

The integers are added to without a lock, so a few counts may be missing where several
vCPUs access one device at the same moment. That is the price of counting for nothing.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from devicehost_server.model.address_map import Space, Trap


class AccessCounts:
    """How often a device was read, written, and raised. A failed access counts, too."""

    __slots__ = ("faults", "reads", "writes")

    def __init__(self) -> None:
        self.reads = 0
        self.writes = 0
        self.faults = 0


class AccessCounters:
    """An `Observer` that counts, by the name of the device."""

    def __init__(self) -> None:
        self._counts: dict[str, AccessCounts] = {}

    def counts(self, device: str) -> AccessCounts:
        """The counts of a device, from here on; zeros if it isn't on the bus."""
        return self._counts.get(device) or AccessCounts()

    def forget(self, device: str) -> None:
        """Drop the counts of a device that is gone."""
        self._counts.pop(device, None)

    def wrap(self, trap: Trap, _space: Space) -> Trap:
        """Return `trap` with handlers that count."""
        counts = self._counts.setdefault(trap.device.name, AccessCounts())
        read, write = trap.read, trap.write

        def counting_read(base: int, offset: int, data: Any) -> None:
            counts.reads += 1
            try:
                read(base, offset, data)
            except BaseException:
                counts.faults += 1
                raise

        def counting_write(base: int, offset: int, data: Any) -> None:
            counts.writes += 1
            try:
                write(base, offset, data)
            except BaseException:
                counts.faults += 1
                raise

        return replace(trap, read=counting_read, write=counting_write)
