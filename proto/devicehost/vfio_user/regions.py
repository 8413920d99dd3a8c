"""What the regions are: DEVICE_GET_REGION_INFO, with its chain of capabilities.

    DEVICE_GET_REGION_INFO, and its reply
    offset  size
         0     4  argsz: 32 or more in the request; what the whole reply needs in the reply
         4     4  flags       0 in the request
         8     4  index
        12     4  cap_offset  0 in the request; where the first capability is, or 0
        16     8  size        0 in the request
        24     8  offset      0 in the request; where the region begins in its file

    capability                      sparse mmap (1)         type (2)
    offset  size
         0     2  id
         2     2  version: 1
         4     4  next, or 0
         8     4                    number of areas         type
        12     4                    reserved                subtype
        16     -                    offset, size: 8 + 8     -

Offsets of capabilities count from the beginning of the payload. A capability that isn't
known here is passed over.

If the capabilities don't fit in the `argsz` of the request, the reply leaves them out, and
`argsz` says what to ask with. The flag that says that there are capabilities is left out
as well, as libvfio-user does: QEMU refuses a flag without a capability.

Source: vfio-user protocol specification 0.9; type from Linux, uapi/linux/vfio.h.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag
from struct import Struct
from typing import ClassVar, Final, TypeAlias

from devicehost.vfio_user.errors import MalformedMessage
from devicehost.vfio_user.header import Command
from devicehost.vfio_user.payload import (
    Printed,
    ReplyPayload,
    RequestPayload,
    check_argsz,
    check_echo,
    check_room,
    check_size,
    check_zero,
)

INFO: Final = Struct("<IIIIQQ")
CAPABILITY: Final = Struct("<HHI")
PAIR: Final = Struct("<II")
AREA: Final = Struct("<QQ")

MAX_CAPABILITIES: Final = 64
"""A chain with more is a loop, or a waste of time. Linux has less than ten kinds."""

_HAS_CAPABILITIES = 1 << 3


class RegionFlags(IntFlag):
    """What can be done with a region. Bits without a name here are kept as they came."""

    READ = 1 << 0
    WRITE = 1 << 1
    MMAP = 1 << 2


@dataclass(frozen=True, slots=True, repr=False)
class MmapArea(Printed):
    """A part of a region that can be mapped: `size` bytes, `offset` from the region's base."""

    offset: int
    size: int


@dataclass(frozen=True, slots=True, repr=False)
class SparseMmap(Printed):
    """Only these parts of the region can be mapped."""

    ID: ClassVar[int] = 1

    areas: tuple[MmapArea, ...]

    @classmethod
    def decode(cls, payload: memoryview, body: int) -> SparseMmap:
        """Decode what stands behind the capability's header, from offset `body` on."""
        name = RegionInfo.NAME
        number = _pair(payload, body)[0]
        start = body + PAIR.size
        room = (len(payload) - start) // AREA.size
        if number > room:
            raise MalformedMessage(name, "nr_areas", number, f"at most {room}, which there are")
        areas = AREA.iter_unpack(payload[start : start + number * AREA.size])
        return cls(tuple(MmapArea(offset, size) for offset, size in areas))

    def encode(self) -> bytes:
        """Encode what stands behind the capability's header."""
        areas = (AREA.pack(area.offset, area.size) for area in self.areas)
        return PAIR.pack(len(self.areas), 0) + b"".join(areas)


@dataclass(frozen=True, slots=True, repr=False)
class RegionType(Printed):
    """What a region beyond the ones of its bus is for."""

    ID: ClassVar[int] = 2

    type: int
    subtype: int

    @classmethod
    def decode(cls, payload: memoryview, body: int) -> RegionType:
        """Decode what stands behind the capability's header, from offset `body` on."""
        return cls(*_pair(payload, body))

    def encode(self) -> bytes:
        """Encode what stands behind the capability's header."""
        return PAIR.pack(self.type, self.subtype)


RegionCapability: TypeAlias = SparseMmap | RegionType

_KINDS: dict[tuple[int, int], type[RegionCapability]] = {
    (SparseMmap.ID, 1): SparseMmap,
    (RegionType.ID, 1): RegionType,
}


def _pair(payload: memoryview, start: int) -> tuple[int, int]:
    check_room(RegionInfo.NAME, payload, start + PAIR.size)
    first, second = PAIR.unpack_from(payload, start)
    return first, second


def _decode_chain(payload: memoryview, first: int) -> tuple[RegionCapability, ...]:
    """Follow the chain of capabilities that begins at offset `first`, unless that is 0."""
    name = RegionInfo.NAME
    found: list[RegionCapability] = []
    start, visited = first, 0
    while start:
        visited += 1
        if visited > MAX_CAPABILITIES:
            allowed = f"at most {MAX_CAPABILITIES}, without a loop"
            raise MalformedMessage(name, "number of capabilities", visited, allowed)
        if not INFO.size <= start <= len(payload) - CAPABILITY.size:
            allowed = f"{INFO.size} to {len(payload) - CAPABILITY.size}, or 0"
            raise MalformedMessage(name, "offset of a capability", start, allowed)
        kind_id, version, following = CAPABILITY.unpack_from(payload, start)
        if kind := _KINDS.get((kind_id, version)):
            found.append(kind.decode(payload, start + CAPABILITY.size))
        start = following
    return tuple(found)


def _encode_chain(capabilities: tuple[RegionCapability, ...]) -> bytes:
    """Encode the chain, each capability right behind the one before; all are 8-byte aligned."""
    chain = b""
    for position, capability in enumerate(capabilities, start=1):
        body = capability.encode()
        end = INFO.size + len(chain) + CAPABILITY.size + len(body)
        following = 0 if position == len(capabilities) else end
        chain += CAPABILITY.pack(capability.ID, 1, following) + body
    return chain


@dataclass(frozen=True, slots=True, repr=False)
class GetRegionInfo(RequestPayload):
    """Ask about the region with one index, with room for a reply of `argsz` bytes."""

    COMMAND: ClassVar[Command] = Command.DEVICE_GET_REGION_INFO

    index: int
    argsz: int = INFO.size

    @classmethod
    def decode(cls, payload: memoryview, /) -> GetRegionInfo:
        """Decode the 32 bytes."""
        name = cls.COMMAND.name
        check_size(name, payload, INFO.size)
        argsz, flags, index, cap_offset, size, offset = INFO.unpack_from(payload)
        check_argsz(name, argsz, INFO.size)
        check_zero(name, flags=flags, cap_offset=cap_offset, size=size, offset=offset)
        return cls(index, argsz)

    def encode(self) -> bytes:
        """Encode the 32 bytes."""
        return INFO.pack(self.argsz, 0, self.index, 0, 0, 0)


@dataclass(frozen=True, slots=True, repr=False)
class RegionInfo(ReplyPayload[GetRegionInfo]):
    """What a region is.

    Attributes:
        size: bytes; 0 if there is no such region after all.
        flags: what can be done with it. With MMAP, a file descriptor comes along.
        offset: where the region begins in that file, in bytes.
        capabilities: more about it, in the order of the chain.
        needs_argsz: 0, or the `argsz` to ask with, as the capabilities did not fit. It is
            what the peer says: limit it.
    """

    NAME: ClassVar[str] = "reply to DEVICE_GET_REGION_INFO"

    size: int
    flags: RegionFlags
    offset: int = 0
    capabilities: tuple[RegionCapability, ...] = ()
    needs_argsz: int = 0

    @classmethod
    def decode(cls, payload: memoryview, request: GetRegionInfo, /) -> RegionInfo:
        """Decode the fixed part, and the capabilities if they are there."""
        check_room(cls.NAME, payload, INFO.size)
        if len(payload) > request.argsz:
            allowed = f"at most {request.argsz}, the argsz of the request"
            raise MalformedMessage(cls.NAME, "payload size", len(payload), allowed)
        argsz, flags, index, cap_offset, size, offset = INFO.unpack_from(payload)
        check_argsz(cls.NAME, argsz, len(payload))
        check_echo(cls.NAME, "index", index, request.index)
        known = RegionFlags(flags & ~_HAS_CAPABILITIES)
        if argsz > len(payload):
            return cls(size, known, offset, needs_argsz=argsz)
        capabilities = _decode_chain(payload, cap_offset if flags & _HAS_CAPABILITIES else 0)
        info = cls(size, known, offset, capabilities)
        info.check_areas()
        return info

    def encode(self, request: GetRegionInfo, /) -> bytes:
        """Encode all of it, or the fixed part alone if the rest doesn't fit."""
        chain = _encode_chain(self.capabilities)
        argsz = INFO.size + len(chain)
        if argsz > request.argsz:
            chain = b""
        flags = self.flags | (_HAS_CAPABILITIES if chain else 0)
        cap_offset = INFO.size if chain else 0
        return INFO.pack(argsz, flags, request.index, cap_offset, self.size, self.offset) + chain

    def check_areas(self) -> None:
        """Check that what can be mapped lies within the region.

        Raises:
            MalformedMessage: it doesn't, or is empty.
        """
        for capability in self.capabilities:
            for area in capability.areas if isinstance(capability, SparseMmap) else ():
                if area.size == 0 or area.offset + area.size > self.size:
                    allowed = f"not empty, and within the region's {self.size:#x} bytes"
                    raise MalformedMessage(self.NAME, "area", area, allowed)

    def check_fds(self, count: int) -> None:
        """Check that a file descriptor comes only with a region that can be mapped."""
        most = 1 if self.flags & RegionFlags.MMAP else 0
        if count > most:
            raise MalformedMessage(self.NAME, "number of fds", count, f"at most {most}")
