"""The memory of a function's guest: the function's only while it is a bus master.

A driver lets a function transfer memory by a bit of the command register (PCI Local Bus
Specification 3.0, section 6.2.2). A firmware or a kernel that takes over from another one
clears it first, and so does QEMU when it resets the function: what the driver before had
asked for must not be written into memory that is somebody else's by now. So what a client
shares is kept here, and is in the function's memory as long as the bit is set.
"""

from __future__ import annotations

import threading

from devicehost_server.model.guest_memory import GuestMemory, MemoryBlock


class BusMaster:
    """Lets a function at the memory that a client shares, or not. Safe to use from any thread.

    Args:
        memory: the function's.

    Attributes:
        shared: what the client shares.
    """

    def __init__(self, memory: GuestMemory) -> None:
        self.shared = GuestMemory()
        self._memory = memory
        self._lock = threading.Lock()
        self._enabled = False
        self._there: frozenset[MemoryBlock] = frozenset()  # what of it is in the function's memory
        self.shared.subscribe(self._follow)

    def enable(self, *, enabled: bool) -> None:
        """Take note of the bit."""
        if enabled != self._enabled:
            self._enabled = enabled
            self._follow()

    def _follow(self) -> None:
        """Let there be in the function's memory what is to be there."""
        with self._lock:
            wanted = self.shared.blocks() if self._enabled else ()
            for block in self._there.difference(wanted):
                self._memory.remove(block.base, block.size)
            for block in wanted:
                if block not in self._there:
                    self._memory.add(block)
            self._there = frozenset(wanted)
