"""The bus as one client reaches it, by the socket and by the ring: until it is shut.

A shut one refuses every access as DRAINING. That is so while the server stops, and for
what is left of a client that is gone: a device that comes back after a long time must not
find accesses of it mixed with those of the next client.

While it is open it costs nothing: its methods are those of the bus.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

from devicehost_server.model.errors import Draining
from devicehost_server.model.io_manager import IoManager


class Shutter:
    """Makes the accesses of one client.

    Args:
        io: the bus.

    Attributes:
        mmio_read, mmio_write, pio_read, pio_write: as those of `IoManager`.
    """

    __slots__ = ("mmio_read", "mmio_write", "pio_read", "pio_write")

    def __init__(self, io: IoManager) -> None:
        self.mmio_read: Callable[[int, memoryview], None] = io.mmio_read
        self.mmio_write: Callable[[int, bytes | memoryview], None] = io.mmio_write
        self.pio_read: Callable[[int, memoryview], None] = io.pio_read
        self.pio_write: Callable[[int, bytes | memoryview], None] = io.pio_write

    def shut(self) -> None:
        """Refuse what comes from here on. What is being made goes on."""
        self.mmio_read = self.mmio_write = self.pio_read = self.pio_write = _refuse


def _refuse(address: int, data: bytes | memoryview) -> NoReturn:
    del address, data
    raise Draining("the server is stopping and takes no new accesses")
