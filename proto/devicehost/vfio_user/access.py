"""Reading and writing regions: REGION_READ, REGION_WRITE and REGION_WRITE_MULTI.

Request and reply of a read and of a write begin alike:

    offset  size
         0     8  offset: distance from the region's base
         8     4  region: its index
        12     4  count: data bytes
        16     -  data, in a write and in the reply to a read

REGION_WRITE_MULTI packs many small writes into one message: their number in 8 bytes, then
24 bytes for each, of which the last 8 hold the data, padded with zeros.

These are the general forms. For the path of a trapped access see `fast_access`.

Source: vfio-user protocol specification 0.9, "Read and Write Operations".
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import ClassVar, Final

from devicehost.vfio_user.errors import BadValue, MalformedMessage
from devicehost.vfio_user.header import Command
from devicehost.vfio_user.payload import (
    RegionSpan,
    ReplyPayload,
    RequestPayload,
    check_echo,
    check_room,
    check_size,
    check_span,
)

SPAN: Final = Struct("<QII")
COUNT: Final = Struct("<Q")
SMALL_WRITE: Final = Struct("<QII8s")

MAX_SMALL_WRITE: Final = 8
"""Data bytes in one write of a REGION_WRITE_MULTI."""


def _decode_span(name: str, payload: memoryview) -> tuple[int, int, int]:
    """Take offset, region and count off a request."""
    check_room(name, payload, SPAN.size)
    offset, region, count = SPAN.unpack_from(payload)
    if count == 0:
        raise MalformedMessage(name, "count", 0, "1 or more")
    check_span(name, "offset", offset, count)
    return offset, region, count


def _decode_echoed_span(name: str, payload: memoryview, request: RegionSpan) -> int:
    """Check the echo of a request's span; return the count, which may be smaller."""
    check_room(name, payload, SPAN.size)
    offset, region, count = SPAN.unpack_from(payload)
    check_echo(name, "offset", offset, request.offset)
    check_echo(name, "region", region, request.region)
    if count > request.count:
        raise MalformedMessage(name, "count", count, f"at most {request.count}, as requested")
    return int(count)


@dataclass(frozen=True, slots=True, repr=False)
class RegionRead(RequestPayload):
    """Read `count` bytes at `offset` from the base of the region with index `region`."""

    COMMAND: ClassVar[Command] = Command.REGION_READ

    region: int
    offset: int
    count: int

    @classmethod
    def decode(cls, payload: memoryview, /) -> RegionRead:
        """Decode the 16 bytes."""
        offset, region, count = _decode_span(cls.COMMAND.name, payload)
        check_size(cls.COMMAND.name, payload, SPAN.size)
        return cls(region, offset, count)

    def encode(self) -> bytes:
        """Encode the 16 bytes."""
        return SPAN.pack(self.offset, self.region, self.count)

    @property
    def data_size(self) -> int:
        """The bytes asked for."""
        return self.count


@dataclass(frozen=True, slots=True, repr=False)
class RegionData(ReplyPayload[RegionSpan]):
    """The bytes that were read; fewer than asked for if the read came to an end."""

    NAME: ClassVar[str] = "reply to REGION_READ"

    data: bytes

    @classmethod
    def decode(cls, payload: memoryview, request: RegionSpan, /) -> RegionData:
        """Decode the echo and the data."""
        count = _decode_echoed_span(cls.NAME, payload, request)
        check_size(cls.NAME, payload, SPAN.size + count)
        return cls(bytes(payload[SPAN.size :]))

    def encode(self, request: RegionSpan, /) -> bytes:
        """Encode the echo and the data."""
        count = len(self.data)
        if count > request.count:
            raise BadValue(f"{count} bytes to a read of {request.count}")
        return SPAN.pack(request.offset, request.region, count) + self.data


@dataclass(frozen=True, slots=True, repr=False)
class RegionWrite(RequestPayload):
    """Write `data` at `offset` from the base of the region with index `region`."""

    COMMAND: ClassVar[Command] = Command.REGION_WRITE

    region: int
    offset: int
    data: bytes

    @classmethod
    def decode(cls, payload: memoryview, /) -> RegionWrite:
        """Decode the span and the data, which must be as long as it says."""
        offset, region, count = _decode_span(cls.COMMAND.name, payload)
        check_size(cls.COMMAND.name, payload, SPAN.size + count)
        return cls(region, offset, bytes(payload[SPAN.size :]))

    def encode(self) -> bytes:
        """Encode the span and the data."""
        return SPAN.pack(self.offset, self.region, len(self.data)) + self.data

    @property
    def count(self) -> int:
        """The number of bytes."""
        return len(self.data)

    @property
    def data_size(self) -> int:
        """The bytes to write."""
        return len(self.data)


@dataclass(frozen=True, slots=True, repr=False)
class RegionWritten(ReplyPayload[RegionSpan]):
    """How many bytes were written."""

    NAME: ClassVar[str] = "reply to REGION_WRITE"

    count: int

    @classmethod
    def decode(cls, payload: memoryview, request: RegionSpan, /) -> RegionWritten:
        """Decode the echo and the count."""
        count = _decode_echoed_span(cls.NAME, payload, request)
        check_size(cls.NAME, payload, SPAN.size)
        return cls(count)

    def encode(self, request: RegionSpan, /) -> bytes:
        """Encode the echo and the count."""
        if self.count > request.count:
            raise BadValue(f"{self.count} bytes written by a write of {request.count}")
        return SPAN.pack(request.offset, request.region, self.count)


@dataclass(frozen=True, slots=True, repr=False)
class RegionWriteMulti(RequestPayload):
    """Several writes of 1 to 8 bytes each, carried out in order."""

    COMMAND: ClassVar[Command] = Command.REGION_WRITE_MULTI

    writes: tuple[RegionWrite, ...]

    @classmethod
    def decode(cls, payload: memoryview, /) -> RegionWriteMulti:
        """Decode the writes. One that is malformed makes the whole message so."""
        name = cls.COMMAND.name
        check_room(name, payload, COUNT.size)
        (number,) = COUNT.unpack_from(payload)
        if number == 0:
            raise MalformedMessage(name, "wr_cnt", 0, "1 or more")
        check_size(name, payload, COUNT.size + number * SMALL_WRITE.size)
        writes = []
        for offset, region, count, data in SMALL_WRITE.iter_unpack(payload[COUNT.size :]):
            if not 1 <= count <= MAX_SMALL_WRITE:
                raise MalformedMessage(name, "count", count, f"1 to {MAX_SMALL_WRITE}")
            check_span(name, "offset", offset, count)
            writes.append(RegionWrite(region, offset, data[:count]))
        return cls(tuple(writes))

    def encode(self) -> bytes:
        """Encode the writes."""
        parts = [COUNT.pack(len(self.writes))]
        for write in self.writes:
            if not 1 <= write.count <= MAX_SMALL_WRITE:
                raise BadValue(f"{write} is not of 1 to {MAX_SMALL_WRITE} bytes")
            parts.append(SMALL_WRITE.pack(write.offset, write.region, write.count, write.data))
        return b"".join(parts)

    @property
    def data_size(self) -> int:
        """The bytes that the array of writes takes."""
        return len(self.writes) * SMALL_WRITE.size


@dataclass(frozen=True, slots=True, repr=False)
class RegionWritesDone(ReplyPayload[RegionWriteMulti]):
    """How many of the writes were carried out: the first ones."""

    NAME: ClassVar[str] = "reply to REGION_WRITE_MULTI"

    number: int

    @classmethod
    def decode(cls, payload: memoryview, request: RegionWriteMulti, /) -> RegionWritesDone:
        """Decode the 8 bytes."""
        check_size(cls.NAME, payload, COUNT.size)
        (number,) = COUNT.unpack_from(payload)
        if number > len(request.writes):
            allowed = f"at most {len(request.writes)}, as requested"
            raise MalformedMessage(cls.NAME, "wr_cnt", number, allowed)
        return cls(number)

    def encode(self, request: RegionWriteMulti, /) -> bytes:
        """Encode the 8 bytes."""
        if self.number > len(request.writes):
            raise BadValue(f"{self.number} writes done of {len(request.writes)}")
        return COUNT.pack(self.number)
