"""The vectors of MSI or MSI-X: which are pending, and which can be delivered now.

A message that can't be delivered waits as a pending bit. It waits while

    the function masks it: by the capability's or the table's own masks;
    the client masks it: by SET_IRQS of vfio;
    nobody is there to take it: the client has connected no eventfd to the vector. Clients
    connect one when the guest first unmasks the vector, and QEMU takes all of them away for
    a moment when it adds one. Nothing is lost so.

A function whose messages aren't enabled has none: what it raises then is dropped, for a
driver that hasn't enabled them doesn't wait for them, and pending ones go when they are
disabled.

All sets of vectors are integers with a bit for each.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator

from devicehost_server.pci.capability import Capability


class Messages(Capability):
    """A capability for messages. Not safe to use from several threads: `Vectors` is.

    Attributes:
        count: how many vectors there are.
        pending: the vectors that wait.
        connected: those that the client takes.
        held: those that the client masks.
        delivered: how many messages were delivered since it was made.
    """

    def __init__(self, identifier: int, body: bytes, writable: bytes, count: int) -> None:
        super().__init__(identifier, body, writable)
        self.count = count
        self.pending = 0
        self.connected = 0
        self.held = 0
        self.delivered = 0

    @property
    @abstractmethod
    def enabled(self) -> bool:
        """Whether the driver has enabled it."""

    @property
    @abstractmethod
    def masked(self) -> int:
        """The vectors that the function masks."""

    def vector(self, number: int) -> int:
        """Return the vector on which the device's interrupt `number` is delivered."""
        return number

    def reset(self) -> None:
        """Return to the state after power-on; what the client has connected stays."""
        super().reset()
        self.pending = 0

    def raise_(self, number: int) -> None:
        """Let the device's interrupt `number` be delivered."""
        if self.enabled:
            self.pending |= 1 << self.vector(number)

    def take(self) -> Iterator[int]:
        """Go through the vectors that are to be delivered now; they aren't pending then."""
        if not self.enabled:
            self.pending = 0
        ready = self.pending & self.connected & ~self.held & ~self.masked
        self.pending &= ~ready
        self.delivered += ready.bit_count()
        while ready:
            lowest = ready & -ready
            ready ^= lowest
            yield lowest.bit_length() - 1

    def view(self) -> dict[str, object]:
        """Return what somebody who debugs may want to see; sets are hexadecimal."""
        every = (1 << self.count) - 1
        return {
            "enabled": self.enabled,
            "vectors": self.count,
            "masked": f"{self.masked & every:#x}",
            "held": f"{self.held:#x}",
            "pending": f"{self.pending:#x}",
            "connected": f"{self.connected:#x}",
            "delivered": self.delivered,
        }
