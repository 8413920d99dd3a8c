"""The client's memory: DMA_MAP and DMA_UNMAP, and DMA_READ and DMA_WRITE.

The client maps its memory for the server, with a file descriptor if the server may mmap
it. What came without one is read and written by messages, which go from the server to the
client.

    DMA_MAP                         DMA_UNMAP, and its reply
    offset  size                    offset  size
         0     4  argsz: 32              0     4  argsz: 24 or more
         4     4  flags                  4     4  flags
         8     8  offset in the file     8     8  address
        16     8  address               16     8  size
        24     8  size

    DMA_READ, DMA_WRITE, and their replies
    offset  size
         0     8  address
         8     8  count
        16     -  data, in a write and in the reply to a read

Addresses are guest-physical (the specification's "DMA addresses").

Peers differ in the reply to DMA_WRITE. The specification had a count of 4 bytes there for
long; newer QEMU sends one of 8, and older QEMU a header alone. All three are taken. Older
QEMU (10.1) also takes the count in a request for 4 bytes, with the data right behind it,
and answers DMA_READ so. Such a reply is refused, unless its data begins with 4 zeros: then
nothing tells it from a right one. Who talks to that QEMU had better get its memory by fd.

Source: vfio-user protocol specification 0.9, "VFIO_USER_DMA_MAP" and following. Its flags
for the way of access (mmap, file I/O) are in libvfio-user since 2024 and in QEMU's drafts.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag
from errno import ENOTSUP
from struct import Struct
from typing import ClassVar, Final

from devicehost.vfio_user.errors import BadValue, MalformedMessage
from devicehost.vfio_user.header import Command
from devicehost.vfio_user.payload import (
    ReplyPayload,
    RequestPayload,
    check_argsz,
    check_echo,
    check_room,
    check_size,
    check_span,
)

MAP: Final = Struct("<IIQQQ")
UNMAP: Final = Struct("<IIQQ")
SPAN: Final = Struct("<QQ")
SHORT_SPAN: Final = Struct("<QI")

MAX_FILE_OFFSET: Final = (1 << 63) - 1


class DmaFlags(IntFlag):
    """What the server may do with a mapping, and how it should."""

    READ = 1 << 0
    WRITE = 1 << 1
    MMAP = 1 << 2
    """Map the file descriptor: what is done anyway when there is one and no flag says how."""
    FILE_IO = 1 << 3
    """Use pread and pwrite on the file descriptor."""


_KNOWN_MAP_FLAGS = int(DmaFlags.READ | DmaFlags.WRITE | DmaFlags.MMAP | DmaFlags.FILE_IO)
_UNMAP_WITH_DIRTY_BITMAP = 1 << 0
_UNMAP_ALL = 1 << 1


@dataclass(frozen=True, slots=True, repr=False)
class DmaMap(RequestPayload):
    """The client's memory at `address`, `size` bytes. With a file, it begins at `offset` there."""

    COMMAND: ClassVar[Command] = Command.DMA_MAP

    address: int
    size: int
    flags: DmaFlags
    offset: int = 0

    @classmethod
    def decode(cls, payload: memoryview, /) -> DmaMap:
        """Decode the 32 bytes."""
        name = cls.COMMAND.name
        check_size(name, payload, MAP.size)
        argsz, flags, offset, address, size = MAP.unpack_from(payload)
        check_argsz(name, argsz, MAP.size)
        if flags & ~_KNOWN_MAP_FLAGS:
            raise MalformedMessage(name, "flags", f"{flags:#x}", f"within {_KNOWN_MAP_FLAGS:#x}")
        if not flags & (DmaFlags.READ | DmaFlags.WRITE):
            raise MalformedMessage(name, "flags", f"{flags:#x}", "readable, writeable or both")
        if flags & DmaFlags.MMAP and flags & DmaFlags.FILE_IO:
            raise MalformedMessage(name, "flags", f"{flags:#x}", "mmap or file I/O, not both")
        check_span(name, "address", address, size)
        return cls(address, size, DmaFlags(flags), offset)

    def encode(self) -> bytes:
        """Encode the 32 bytes."""
        return MAP.pack(MAP.size, self.flags, self.offset, self.address, self.size)

    def check_fds(self, count: int) -> None:
        """Check that there is one file descriptor where the flags need one, and never two."""
        name = self.COMMAND.name
        needed = bool(self.flags & (DmaFlags.MMAP | DmaFlags.FILE_IO))
        if count > 1 or (needed and not count):
            allowed = "1, for mmap or file I/O" if needed else "0 or 1"
            raise MalformedMessage(name, "number of fds", count, allowed)
        if count and self.offset + self.size > MAX_FILE_OFFSET:
            value = f"{self.offset + self.size:#x}"
            raise MalformedMessage(name, "offset + size", value, "less than 2**63, as files are")


@dataclass(frozen=True, slots=True, repr=False)
class DmaUnmap(RequestPayload):
    """Take back one mapping, named exactly, or all of them (`address` and `size` are 0)."""

    COMMAND: ClassVar[Command] = Command.DMA_UNMAP

    address: int
    size: int
    everything: bool = False

    @classmethod
    def decode(cls, payload: memoryview, /) -> DmaUnmap:
        """Decode the 24 bytes."""
        name = cls.COMMAND.name
        check_room(name, payload, UNMAP.size)
        argsz, flags, address, size = UNMAP.unpack_from(payload)
        if flags & _UNMAP_WITH_DIRTY_BITMAP:
            raise MalformedMessage(name, "flags", f"{flags:#x}", "without a dirty bitmap", ENOTSUP)
        if flags & ~_UNMAP_ALL:
            raise MalformedMessage(name, "flags", f"{flags:#x}", f"0 or {_UNMAP_ALL:#x}")
        check_size(name, payload, UNMAP.size)
        check_argsz(name, argsz, UNMAP.size)
        if not flags:
            check_span(name, "address", address, size)
        elif address or size:
            value = f"{address:#x} and {size:#x}"
            raise MalformedMessage(name, "address and size", value, "0 when all is unmapped")
        return cls(address, size, everything=bool(flags))

    def encode(self) -> bytes:
        """Encode the 24 bytes."""
        flags = _UNMAP_ALL if self.everything else 0
        return UNMAP.pack(UNMAP.size, flags, self.address, self.size)


@dataclass(frozen=True, slots=True, repr=False)
class DmaUnmapped(ReplyPayload[DmaUnmap]):
    """The mapping is gone, and with it all references to its memory."""

    NAME: ClassVar[str] = "reply to DMA_UNMAP"

    @classmethod
    def decode(cls, payload: memoryview, request: DmaUnmap, /) -> DmaUnmapped:
        """Check the echo."""
        check_size(cls.NAME, payload, UNMAP.size)
        _argsz, _flags, address, size = UNMAP.unpack_from(payload)
        check_echo(cls.NAME, "address", address, request.address)
        check_echo(cls.NAME, "size", size, request.size)
        return cls()

    def encode(self, request: DmaUnmap, /) -> bytes:
        """Encode the echo."""
        return request.encode()


def _decode_span(name: str, payload: memoryview) -> tuple[int, int]:
    check_room(name, payload, SPAN.size)
    address, count = SPAN.unpack_from(payload)
    if count == 0:
        raise MalformedMessage(name, "count", 0, "1 or more")
    check_span(name, "address", address, count)
    return address, count


def _check_echo(name: str, address: int, count: int, request: DmaRead | DmaWrite) -> None:
    check_echo(name, "address", address, request.address)
    if count > request.data_size:
        allowed = f"at most {request.data_size}, as requested"
        raise MalformedMessage(name, "count", count, allowed)


@dataclass(frozen=True, slots=True, repr=False)
class DmaRead(RequestPayload):
    """Read `count` bytes of the client's memory at `address`."""

    COMMAND: ClassVar[Command] = Command.DMA_READ

    address: int
    count: int

    @classmethod
    def decode(cls, payload: memoryview, /) -> DmaRead:
        """Decode the 16 bytes."""
        address, count = _decode_span(cls.COMMAND.name, payload)
        check_size(cls.COMMAND.name, payload, SPAN.size)
        return cls(address, count)

    def encode(self) -> bytes:
        """Encode the 16 bytes."""
        return SPAN.pack(self.address, self.count)

    @property
    def data_size(self) -> int:
        """The bytes asked for."""
        return self.count


@dataclass(frozen=True, slots=True, repr=False)
class DmaData(ReplyPayload[DmaRead]):
    """The bytes that were read; fewer than asked for if the read came to an end."""

    NAME: ClassVar[str] = "reply to DMA_READ"

    data: bytes

    @classmethod
    def decode(cls, payload: memoryview, request: DmaRead, /) -> DmaData:
        """Decode the echo and the data."""
        check_room(cls.NAME, payload, SPAN.size)
        address, count = SPAN.unpack_from(payload)
        _check_echo(cls.NAME, address, count, request)
        check_size(cls.NAME, payload, SPAN.size + count)
        return cls(bytes(payload[SPAN.size :]))

    def encode(self, request: DmaRead, /) -> bytes:
        """Encode the echo and the data."""
        count = len(self.data)
        if count > request.count:
            raise BadValue(f"{count} bytes to a read of {request.count}")
        return SPAN.pack(request.address, count) + self.data


@dataclass(frozen=True, slots=True, repr=False)
class DmaWrite(RequestPayload):
    """Write `data` to the client's memory at `address`."""

    COMMAND: ClassVar[Command] = Command.DMA_WRITE

    address: int
    data: bytes

    @classmethod
    def decode(cls, payload: memoryview, /) -> DmaWrite:
        """Decode the span and the data, which must be as long as it says."""
        address, count = _decode_span(cls.COMMAND.name, payload)
        check_size(cls.COMMAND.name, payload, SPAN.size + count)
        return cls(address, bytes(payload[SPAN.size :]))

    def encode(self) -> bytes:
        """Encode the span and the data."""
        return SPAN.pack(self.address, len(self.data)) + self.data

    @property
    def data_size(self) -> int:
        """The bytes to write."""
        return len(self.data)


@dataclass(frozen=True, slots=True, repr=False)
class DmaWritten(ReplyPayload[DmaWrite]):
    """How many bytes were written."""

    NAME: ClassVar[str] = "reply to DMA_WRITE"

    count: int

    @classmethod
    def decode(cls, payload: memoryview, request: DmaWrite, /) -> DmaWritten:
        """Decode the echo in any of the three forms that peers send."""
        if not payload:
            return cls(request.data_size)
        layout = SHORT_SPAN if len(payload) == SHORT_SPAN.size else SPAN
        check_size(cls.NAME, payload, layout.size)
        address, count = layout.unpack_from(payload)
        _check_echo(cls.NAME, address, count, request)
        return cls(count)

    def encode(self, request: DmaWrite, /) -> bytes:
        """Encode the echo, with a count of 8 bytes."""
        if self.count > request.data_size:
            raise BadValue(f"{self.count} bytes written by a write of {request.data_size}")
        return SPAN.pack(request.address, self.count)
