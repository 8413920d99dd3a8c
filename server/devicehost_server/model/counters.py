"""How often a device was accessed: plain integers, added to in each access.

They are added to without a lock, so a few counts may be missing where several vCPUs access
one device at the same moment. That is the price of counting for nearly nothing.
"""

from __future__ import annotations


class AccessCounts:
    """How often a device was read, written, and raised. A failed access counts, too.

    Attributes:
        reads: by operand, where a string access has several.
        writes: likewise.
        faults: accesses that raised, or that waited for the device for too long.
    """

    __slots__ = ("faults", "reads", "writes")

    def __init__(self) -> None:
        self.reads = 0
        self.writes = 0
        self.faults = 0
