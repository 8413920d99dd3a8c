"""Guest memory that a client shares: DMA_MAP, by file descriptor or by message."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from errno import EBADF, EINVAL

from devicehost.vfio_user import DmaFlags, DmaMap, DmaUnmap
from devicehost_server.endpoints.refused import Refused
from devicehost_server.model.device_io import ReadableBuffer
from devicehost_server.model.guest_memory import Backing, GuestMemory, MappedBacking, MemoryBlock


class MessageBacking:
    """Memory that isn't here: each transfer is a message to the client, and its reply.

    Args:
        read: asks the client for so many bytes at a guest-physical address.
        write: gives it some.
        base: the guest-physical address of the block.
    """

    def __init__(
        self,
        read: Callable[[int, int], bytes],
        write: Callable[[int, bytes], None],
        base: int,
    ) -> None:
        self._read = read
        self._write = write
        self._base = base

    def read(self, offset: int, size: int) -> bytes:
        """Return a copy of `size` bytes."""
        return self._read(self._base + offset, size)

    def write(self, offset: int, data: ReadableBuffer) -> None:
        """Replace as many bytes as `data` has."""
        self._write(self._base + offset, bytes(data))

    def view(self, offset: int, size: int) -> None:
        """There is nothing to look at here."""


class SharedMemory:
    """The blocks of one client. They go with it, whatever it did.

    Args:
        memory: where devices find them.
        read: asks the client for bytes of memory that it shares without a descriptor.
        write: gives it some.
        maps_max: how many blocks it may share.
    """

    def __init__(
        self,
        memory: GuestMemory,
        read: Callable[[int, int], bytes],
        write: Callable[[int, bytes], None],
        maps_max: int,
    ) -> None:
        self._memory = memory
        self._read = read
        self._write = write
        self._maps_max = maps_max
        self._blocks: dict[tuple[int, int], MemoryBlock] = {}

    def map(self, request: DmaMap, fds: tuple[int, ...]) -> None:
        """Share a block.

        Args:
            request: where it is in the guest, and in the file.
            fds: the file, or nothing. It stays the caller's, to close.

        Raises:
            Refused: there are too many, or the file doesn't hold it.
            DeviceHostError: it overlaps another one, or isn't in whole pages.
        """
        if len(self._blocks) >= self._maps_max:
            raise Refused(EINVAL, f"a client may share {self._maps_max} blocks")
        backing: Backing
        if fds:
            backing = MappedBacking(_mapped(request, fds[0]))
        else:
            backing = MessageBacking(self._read, self._write, request.address)
        block = MemoryBlock(
            base=request.address,
            size=request.size,
            readable=bool(request.flags & DmaFlags.READ),
            writable=bool(request.flags & DmaFlags.WRITE),
            backing=backing,
        )
        self._memory.add(block)
        self._blocks[block.base, block.size] = block

    def unmap(self, request: DmaUnmap) -> None:
        """Take a block back, or all.

        Raises:
            DeviceHostError: there is no such block.
        """
        if request.everything:
            self.close()
            return
        self._memory.remove(request.address, request.size)
        del self._blocks[request.address, request.size]

    def close(self) -> None:
        """Take all blocks back."""
        for base, size in self._blocks:
            self._memory.remove(base, size)
        self._blocks.clear()


def _mapped(request: DmaMap, fd: int) -> memoryview:
    """Map a part of a file."""
    writable = bool(request.flags & DmaFlags.WRITE)
    if request.offset + request.size > os.fstat(fd).st_size:
        end = request.offset + request.size
        raise Refused(EINVAL, f"the file is shorter than {end:#x} bytes")
    access = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
    try:
        mapped = mmap.mmap(fd, request.size, mmap.MAP_SHARED, access, offset=request.offset)
    except (OSError, ValueError) as error:
        number = error.errno if isinstance(error, OSError) and error.errno else EBADF
        raise Refused(number, f"the file can't be mapped: {error}") from error
    return memoryview(mapped)
