"""Guest memory that a client shares: DMA_MAP, by file descriptor or by message.

A file that is mapped can be cut short by whoever else has it open. Our next look at what
is gone would be a SIGBUS, and the end of the server; nothing in Python can catch that, nor
does it help to touch all pages beforehand. So only a file that is sealed against it
(F_SEAL_SHRINK, fcntl(2)) is mapped. QEMU's memory-backend-memfd is, by default, and so is
the memory of our own client. Such a seal can't be broken, and without it no page of a
memfd goes away for good: one that is punched out comes back as zeros.

Any other regular file, such as that of QEMU's memory-backend-file, is used by pread and
pwrite: a device can `read` and `write` there, at the cost of a system call, but has no
`view` of it. What was cut off is an error of that one transfer.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import stat
import threading
import weakref
from collections.abc import Callable
from errno import EACCES, EBADF, EINVAL
from typing import Any

from devicehost.vfio_user import (
    DmaData,
    DmaFlags,
    DmaMap,
    DmaRead,
    DmaUnmap,
    DmaWrite,
    DmaWritten,
    RequestPayload,
    Session,
)
from devicehost_server.endpoints.refused import Refused
from devicehost_server.model.device_io import ReadableBuffer
from devicehost_server.model.errors import MemoryNotMapped
from devicehost_server.model.guest_memory import Backing, GuestMemory, MappedBacking, MemoryBlock
from devicehost_server.model.resources import PAGE_SIZE


class ClientMemory:
    """Memory of the client that isn't here: it is asked for it, piece by piece.

    Args:
        session: knows how much goes into one message.
        call: makes a request of the client; returns the reply, or None if none came.
    """

    def __init__(self, session: Session, call: Callable[[RequestPayload], Any]) -> None:
        self._session = session
        self._call = call

    def read(self, address: int, size: int) -> bytes:
        """Return `size` bytes at a guest-physical address.

        Raises:
            MemoryNotMapped: the client refused, or didn't answer in time.
        """
        most = self._session.agreement.max_data_xfer_size
        pieces = []
        for at in range(address, address + size, most):
            count = min(most, address + size - at)
            reply = self._call(DmaRead(at, count))
            if not isinstance(reply, DmaData) or len(reply.data) != count:
                raise _not_transferred(at)
            pieces.append(reply.data)
        return b"".join(pieces)

    def write(self, address: int, data: bytes) -> None:
        """Write `data` to a guest-physical address. Raises as `read` does."""
        most = self._session.agreement.max_data_xfer_size
        for at in range(0, len(data), most):
            piece = data[at : at + most]
            reply = self._call(DmaWrite(address + at, piece))
            if not isinstance(reply, DmaWritten) or reply.count != len(piece):
                raise _not_transferred(address + at)


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


class FileBacking:
    """Memory in a file that may be cut short at any time.

    Args:
        fd: the file; it stays the caller's.
        start: where in it the block begins.
    """

    def __init__(self, fd: int, start: int) -> None:
        # Closed when nobody transfers anything any more, not before: the number might
        # belong to another file by then.
        self._fd = os.dup(fd)
        self._start = start
        weakref.finalize(self, os.close, self._fd)

    def read(self, offset: int, size: int) -> bytes:
        """Return a copy of `size` bytes."""
        try:
            data = os.pread(self._fd, size, self._start + offset)
        except OSError as error:
            raise _gone(offset, error.strerror) from error
        if len(data) < size:
            raise _gone(offset + len(data), "it was cut short")
        return data

    def write(self, offset: int, data: ReadableBuffer) -> None:
        """Replace as many bytes as `data` has."""
        try:
            done = os.pwrite(self._fd, data, self._start + offset)
        except OSError as error:
            raise _gone(offset, error.strerror) from error
        if done < len(data):
            raise _gone(offset + done, "it is full")

    def view(self, offset: int, size: int) -> None:
        """Nobody may look at what may go away."""


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
        self._lock = threading.Lock()
        self._closed = False

    def map(self, request: DmaMap, fds: tuple[int, ...]) -> None:
        """Share a block.

        Args:
            request: where it is in the guest, and in the file.
            fds: the file, or nothing. It stays the caller's, to close.

        Raises:
            Refused: there are too many, or the file doesn't hold it.
            DeviceHostError: it overlaps another one, or isn't in whole pages.
        """
        backing: Backing
        if fds:
            backing = _backing(request, fds[0])
        else:
            backing = MessageBacking(self._read, self._write, request.address)
        block = MemoryBlock(
            base=request.address,
            size=request.size,
            readable=bool(request.flags & DmaFlags.READ),
            writable=bool(request.flags & DmaFlags.WRITE),
            backing=backing,
        )
        with self._lock:
            if self._closed or len(self._blocks) >= self._maps_max:
                raise Refused(EINVAL, f"a client may share {self._maps_max} blocks")
            self._memory.add(block)
            self._blocks[block.base, block.size] = block

    def unmap(self, request: DmaUnmap) -> None:
        """Take a block back, or all.

        Raises:
            DeviceHostError: there is no such block.
        """
        with self._lock:
            if request.everything:
                self._remove_all()
            else:
                self._memory.remove(request.address, request.size)
                del self._blocks[request.address, request.size]

    def close(self) -> None:
        """Take all blocks back, and share none any more."""
        with self._lock:
            self._closed = True
            self._remove_all()

    def _remove_all(self) -> None:
        for base, size in self._blocks:
            self._memory.remove(base, size)
        self._blocks.clear()


def _backing(request: DmaMap, fd: int) -> Backing:
    """Make a part of a file available, by the way that is safe."""
    writable = bool(request.flags & DmaFlags.WRITE)
    if request.offset % PAGE_SIZE or request.size % PAGE_SIZE:
        raise Refused(
            EINVAL,
            f"{request.size:#x} bytes at offset {request.offset:#x} of the file;"
            f" allowed: whole pages of {PAGE_SIZE:#x}",
        )
    mode = fcntl.fcntl(fd, fcntl.F_GETFL)
    if mode & os.O_PATH or mode & os.O_ACCMODE == os.O_WRONLY:
        raise Refused(EACCES, "the file isn't open for reading")
    if writable and mode & os.O_ACCMODE != os.O_RDWR:
        raise Refused(EACCES, "the file isn't open for writing")
    sealed = _is_sealed(fd)  # first: from then on it doesn't get shorter than we find it
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        raise Refused(EBADF, "the descriptor is not that of a regular file")
    if request.offset + request.size > status.st_size:
        end = request.offset + request.size
        raise Refused(EINVAL, f"the file has {status.st_size:#x} bytes, not {end:#x}")
    if not sealed:
        return FileBacking(fd, request.offset)
    access = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
    try:
        mapped = mmap.mmap(fd, request.size, mmap.MAP_SHARED, access, offset=request.offset)
    except (OSError, ValueError, OverflowError) as error:
        number = error.errno if isinstance(error, OSError) and error.errno else EINVAL
        raise Refused(number, f"the file can't be mapped: {error}") from error
    return MappedBacking(memoryview(mapped))


def _is_sealed(fd: int) -> bool:
    """Whether nobody can make the file shorter any more."""
    try:
        return bool(fcntl.fcntl(fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK)
    except OSError:  # a kind of file that has no seals
        return False


def _gone(offset: int, why: str | None) -> MemoryNotMapped:
    return MemoryNotMapped(f"a client's memory at offset {offset:#x} of its file: {why}")


def _not_transferred(address: int) -> MemoryNotMapped:
    return MemoryNotMapped(f"the client didn't transfer its memory at {address:#x}")
