"""Who makes accesses: a vCPU, a tool, or a client whose vCPUs aren't told apart.

Whoever brings accesses to the bus makes them through an initiator, which the bus gives
out (`IoManager.initiator`). While nobody looks, its four methods are those of the bus: it
costs nothing. An observer puts others in their place, in all initiators at once, and so
sees whose each access is, those included that find no device.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol


class Calls(NamedTuple):
    """What makes accesses: the four methods, as those of `IoManager`."""

    mmio_read: Callable[..., None]
    mmio_write: Callable[..., None]
    pio_read: Callable[..., None]
    pio_write: Callable[..., None]

    @classmethod
    def of(cls, other: Any) -> Calls:
        """Those of something that has methods of these names."""
        return cls(other.mmio_read, other.mmio_write, other.pio_read, other.pio_write)


class Observer(Protocol):
    """Sees accesses pass."""

    def around(self, calls: Calls, vcpu: int | None) -> Calls:
        """Return what an initiator calls in place of `calls`.

        Args:
            calls: makes the accesses. What it raises goes on to the initiator.
            vcpu: whose they are, if that is known.
        """


class Initiator:
    """Makes the accesses of one source.

    Args:
        calls: makes them.
        vcpu: whose they are; None if that isn't known.

    Attributes:
        mmio_read, mmio_write, pio_read, pio_write: as those of `IoManager`. Look them up
            for each access, or at least often: they are replaced.
    """

    __slots__ = (
        "__weakref__",
        "_lock",
        "_shut",
        "mmio_read",
        "mmio_write",
        "pio_read",
        "pio_write",
        "vcpu",
    )

    def __init__(self, calls: Calls, vcpu: int | None) -> None:
        self.vcpu = vcpu
        self._lock = threading.Lock()
        self._shut = False
        self.mmio_read, self.mmio_write, self.pio_read, self.pio_write = calls

    def bind(self, calls: Calls) -> None:
        """Make accesses by `calls` from here on, unless it is shut."""
        with self._lock:
            if not self._shut:
                self.mmio_read, self.mmio_write, self.pio_read, self.pio_write = calls

    def shut(self, refuse: Callable[..., None]) -> None:
        """Have `refuse` called for every access from here on. What is being made goes on."""
        with self._lock:
            self._shut = True
            self.mmio_read = self.mmio_write = self.pio_read = self.pio_write = refuse
