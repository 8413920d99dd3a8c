"""The guest's memory, shared with the devices: `DeviceHost.memory`.

    host.memory.add(0, ram.size, ram.fd)

A device then reads and writes it without the VMM (DMA). Memory that is in a file, such as
a memfd, is mapped by the server; memory that is only here is sent there and back in
messages, which is slow. Each server is given all of it: the next one as well, if the
server is lost and comes back.

Seal a memfd against shrinking (F_SEAL_SHRINK): a server doesn't map what could be cut off
under it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import grpc

from devicehost.vfio_user import (
    DmaData,
    DmaFlags,
    DmaMap,
    DmaRead,
    DmaUnmap,
    DmaWrite,
    DmaWritten,
    ReplyPayload,
)
from devicehost_client.errors import AccessTimeout, ConnectionLost, NotLocal, RemoteError
from devicehost_client.transports.link import Link, Refusal
from devicehost_client.transports.local import LocalTransport

PAGE_SIZE = 0x1000
ADDRESSES = 1 << 64
FILE_MAX = (1 << 63) - 1


@dataclass(frozen=True, slots=True, eq=False)
class MemoryBlock:
    """A block of guest memory.

    Attributes:
        base: its first guest-physical address.
        size: in bytes.
        writable: whether devices may write it.
        fd: the file that it is in, ours; -1 if it is in `buffer`.
        offset: where in the file it begins, in bytes.
        buffer: its bytes, if it is only here.
    """

    base: int
    size: int
    writable: bool
    fd: int = -1
    offset: int = 0
    buffer: memoryview | None = None

    def request(self) -> DmaMap:
        """The message that hands it over."""
        flags = DmaFlags.READ | DmaFlags.WRITE if self.writable else DmaFlags.READ
        return DmaMap(self.base, self.size, flags, self.offset)

    def hand_over(self, link: Link) -> None:
        """Share it with a server."""
        link.call(self.request(), [self.fd] if self.fd >= 0 else [])


class Memory:
    """What is shared. Safe to use from any thread."""

    def __init__(self) -> None:
        self._way: LocalTransport | None = None
        self._blocks: tuple[MemoryBlock, ...] = ()  # replaced as a whole

    def use(self, way: LocalTransport) -> None:
        """Share by this way; without one, nothing can be shared."""
        self._way = way

    def blocks(self) -> tuple[MemoryBlock, ...]:
        """All blocks, in the order in which they were added."""
        return self._blocks

    def add(self, base: int, size: int, fd: int, *, offset: int = 0, writable: bool = True) -> None:
        """Share memory that is in a file.

        Args:
            base: its first guest-physical address, whole pages.
            size: in bytes, whole pages.
            fd: the file, which the server maps. It is duplicated; yours stays yours.
            offset: where in the file the memory begins, in bytes, whole pages.
            writable: whether devices may write it.

        Raises:
            NotLocal: accesses don't go by the local socket.
            RemoteError: the server doesn't take it: BAD_RANGE if it isn't in whole pages,
                or the file is too short or can be cut short, MEMORY_MAPPED if some of it
                is shared already.
            ConnectionLost, AccessTimeout: the server went away meanwhile. It is shared
                with the next one.
        """
        self._add(MemoryBlock(base, size, writable, os.dup(fd), offset))

    def add_buffer(self, base: int, buffer: memoryview) -> None:
        """Share memory that is only in this process; each transfer is a message.

        Args:
            base: its first guest-physical address, whole pages.
            buffer: the memory, whole pages. Devices may write it unless it is read-only.

        Raises:
            Like `add`.
        """
        bytes_of = buffer.cast("B")
        self._add(MemoryBlock(base, len(bytes_of), not buffer.readonly, buffer=bytes_of))

    def remove(self, base: int, size: int) -> None:
        """Take back a block that was added, exactly that.

        Raises:
            NotLocal, ConnectionLost, AccessTimeout: as for `add`.
            RemoteError: there is no such block (MEMORY_NOT_MAPPED).
        """
        with self._local().handing_over() as link:
            found = [each for each in self._blocks if (each.base, each.size) == (base, size)]
            if not found:
                raise _error("MEMORY_NOT_MAPPED", base, size, "no such block is shared")
            try:
                if link is not None:
                    link.call(DmaUnmap(base, size))
            except Refusal as error:
                raise _error("MEMORY_NOT_MAPPED", base, size, str(error)) from error
            finally:
                self._forget(found[0])

    def close(self) -> None:
        """Close the files. The server has let go of the memory when the connection ends."""
        for block in self._blocks:
            self._forget(block)

    # For the transport.

    def hand_over(self, link: Link) -> None:
        """Share everything with a new server."""
        for block in self._blocks:
            block.hand_over(link)

    @property
    def is_needed(self) -> bool:
        """Whether the server asks for memory that it has no file of."""
        return any(block.buffer is not None for block in self._blocks)

    def serve(self, request: DmaRead | DmaWrite) -> ReplyPayload[Any] | None:
        """Serve an access of the server's to memory that is only here."""
        size = request.data_size
        for block in self._blocks:
            offset = request.address - block.base
            if block.buffer is None or not 0 <= offset <= block.size - size:
                continue
            try:
                window = block.buffer[offset : offset + size]
            except ValueError:  # somebody released it without taking it back
                return None
            if isinstance(request, DmaRead):
                return DmaData(bytes(window))
            if block.writable:
                window[:] = request.data
                return DmaWritten(size)
        return None

    def _local(self) -> LocalTransport:
        if self._way is None:
            raise NotLocal("memory is shared over the local socket, and accesses go over gRPC")
        return self._way

    def _add(self, block: MemoryBlock) -> None:
        try:
            way = self._local()
        except NotLocal:
            _close(block)
            raise
        with way.handing_over() as link:
            try:
                self._check(block)
                if link is not None:
                    block.hand_over(link)
            except Refusal as error:
                _close(block)
                raise _error("BAD_RANGE", block.base, block.size, str(error)) from error
            except RemoteError:
                _close(block)
                raise
            except (ConnectionLost, AccessTimeout):
                self._blocks = (*self._blocks, block)  # the next server gets it
                raise
            self._blocks = (*self._blocks, block)

    def _check(self, new: MemoryBlock) -> None:
        """Check what the server would refuse without saying why."""
        in_pages = new.size > 0 and not (new.base % PAGE_SIZE or new.size % PAGE_SIZE)
        if not (in_pages and 0 <= new.base <= ADDRESSES - new.size):
            raise _error("BAD_RANGE", new.base, new.size, f"allowed: whole pages of {PAGE_SIZE:#x}")
        if new.offset % PAGE_SIZE or not 0 <= new.offset <= FILE_MAX - new.size:
            why = f"offset {new.offset:#x} in the file is not allowed; allowed: whole pages"
            raise _error("BAD_RANGE", new.base, new.size, why)
        for block in self._blocks:
            if new.base < block.base + block.size and block.base < new.base + new.size:
                other = f"{block.base:#x}-{block.base + block.size - 1:#x}"
                raise _error(
                    "MEMORY_MAPPED", new.base, new.size, f"it overlaps {other}", other_range=other
                )

    def _forget(self, block: MemoryBlock) -> None:
        self._blocks = tuple(each for each in self._blocks if each is not block)
        _close(block)


def _close(block: MemoryBlock) -> None:
    if block.fd >= 0:
        os.close(block.fd)


def _error(reason: str, base: int, size: int, why: str, **facts: str) -> RemoteError:
    return RemoteError(
        f"guest memory at {base:#x}, {size:#x} bytes: {why}",
        _CODES[reason],
        reason,
        {"base": f"{base:#x}", "size": f"{size:#x}", **facts},
    )


_CODES = {
    "BAD_RANGE": grpc.StatusCode.INVALID_ARGUMENT,
    "MEMORY_MAPPED": grpc.StatusCode.ALREADY_EXISTS,
    "MEMORY_NOT_MAPPED": grpc.StatusCode.NOT_FOUND,
}
