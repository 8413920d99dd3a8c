"""What is behind the BARs of a function, for one client of it.

    kind            behind it
    I/O, memory     the device's registers: an access at the place on the server's own bus
    memory offered  a file of the device; a client maps it, or reads and writes it by messages
    MSI-X           the table and the pending bits

A BAR is larger than what is behind it, for its size is a power of two. What lies beyond
reads as ones, and ignores writes. An access that straddles is made as far as the device
reaches: of registers in memory by one access of that size, of I/O ports byte by byte, for
there may be no operand of that size.
"""

from __future__ import annotations

import os
from errno import EINVAL, EIO
from typing import Protocol

from devicehost.vfio_user import MmapArea, RegionFlags, RegionInfo, SparseMmap
from devicehost_server.endpoints.refused import Refused
from devicehost_server.model.initiator import Initiator
from devicehost_server.model.pci import OfferedMemory
from devicehost_server.model.resources import PAGE_SIZE

READ_WRITE = RegionFlags.READ | RegionFlags.WRITE


class Behind(Protocol):
    """What is behind a BAR. Accesses lie within the BAR; their size is that of `data`."""

    def read(self, offset: int, data: memoryview) -> None:
        """Fill `data` from `offset` on."""

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Take `data` to `offset`."""


class Nothing:
    """Nothing at all."""

    def read(self, offset: int, data: memoryview) -> None:
        """Fill `data` with ones."""
        del offset
        data[:] = b"\xff" * len(data)

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Ignore `data`."""


class Registers:
    """A range of a device's registers in memory.

    Args:
        accesses: makes the client's accesses.
        base: where on the server's bus the range is.
        length: how many bytes the device has there.
    """

    def __init__(self, accesses: Initiator, base: int, length: int) -> None:
        self._accesses = accesses
        self._base = base
        self._length = length

    def read(self, offset: int, data: memoryview) -> None:
        """Fill `data`: from the device, and with ones beyond it."""
        size = len(data)
        if offset + size <= self._length:
            self._accesses.mmio_read(self._base + offset, data)
            return
        inside = max(0, self._length - offset)
        if inside:
            self._accesses.mmio_read(self._base + offset, data[:inside])
        data[inside:] = b"\xff" * (size - inside)

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Take `data` to the device, as far as it reaches."""
        inside = self._length - offset
        if inside > 0:
            self._accesses.mmio_write(self._base + offset, data[:inside])


class Ports:
    """A range of a device's I/O ports; likewise."""

    def __init__(self, accesses: Initiator, base: int, length: int) -> None:
        self._accesses = accesses
        self._base = base
        self._length = length

    def read(self, offset: int, data: memoryview) -> None:
        """Fill `data`: from the device, and with ones beyond it."""
        size, port = len(data), self._base + offset
        if offset + size <= self._length:
            self._accesses.pio_read(port, data)
            return
        inside = max(0, self._length - offset)
        for at in range(inside):
            self._accesses.pio_read(port + at, data[at : at + 1])
        data[inside:] = b"\xff" * (size - inside)

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Take `data` to the device, as far as it reaches."""
        port = self._base + offset
        if offset + len(data) <= self._length:
            self._accesses.pio_write(port, data)
            return
        for at in range(max(0, self._length - offset)):
            self._accesses.pio_write(port + at, data[at : at + 1])


class Memory:
    """A file of the device's."""

    def __init__(self, offered: OfferedMemory) -> None:
        self._offered = offered

    def read(self, offset: int, data: memoryview) -> None:
        """Fill `data`: from the file, and with ones beyond it."""
        offered = self._offered
        inside = max(0, min(len(data), offered.size - offset))
        if inside:
            found = os.pread(offered.fd, inside, offered.offset + offset)
            if len(found) < inside:
                raise Refused(EIO, f"the file behind the BAR ends before {offset + inside:#x}")
            data[:inside] = found
        data[inside:] = b"\xff" * (len(data) - inside)

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Take `data` to the file, as far as it reaches."""
        offered = self._offered
        if not offered.writable:
            raise Refused(EINVAL, "the memory behind the BAR can't be written")
        inside = max(0, min(len(data), offered.size - offset))
        if inside:
            os.pwrite(offered.fd, data[:inside], offered.offset + offset)

    def info(self, size: int) -> tuple[RegionInfo, int]:
        """Return what a client is told of the BAR of `size` bytes, and the file's descriptor."""
        offered = self._offered
        flags = READ_WRITE if offered.writable else RegionFlags.READ
        whole_pages = offered.size // PAGE_SIZE * PAGE_SIZE
        if not whole_pages:
            return RegionInfo(size, flags), -1
        sparse = () if whole_pages == size else (SparseMmap((MmapArea(0, whole_pages),)),)
        return RegionInfo(size, flags | RegionFlags.MMAP, offered.offset, sparse), offered.fd
