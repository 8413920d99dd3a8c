"""File descriptors that stand for parts of a region: DEVICE_GET_REGION_IO_FDS.

With them the hypervisor itself tells the server of an access, without the client.

    DEVICE_GET_REGION_IO_FDS, and its reply
    offset  size
         0     4  argsz: 16 or more in the request; what the whole reply needs in the reply
         4     4  flags: 0
         8     4  index of the region
        12     4  count of sub-regions  0 in the request
        16     -  sub-regions, in the reply

    sub-region of 40 bytes          of 48 bytes
    offset  size                    offset  size
         0     8  offset                 0     8  offset
         8     8  size                   8     8  size
        16     4  fd_index              16     4  fd_index
        20     4  type                  20     4  type
        24     4  flags                 24     4  flags
        28     4  0                     28     4  index of the shadow's fd
        32     8  datamatch or          32     8  shadow's offset, or user_data
                  user_data             40     8  datamatch

The specification has sub-regions of 40 bytes, and says not to rely on that. libvfio-user's
have 48 bytes, for a third type that the specification doesn't know: a shadow ioeventfd,
where the value written is put into shared memory besides. Here a reply with a shadow in it
has the longer form, any other the shorter; what comes in is told apart by its size.

If the sub-regions don't fit in the `argsz` of the request, the reply leaves them out, and
`argsz` says what to ask with.

Source: vfio-user protocol specification 0.9 (whose formula for the offset of a sub-region
subtracts 32 where the fixed part has 16 bytes), libvfio-user for shadows, Linux
uapi/linux/kvm.h for the flags.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag
from struct import Struct
from typing import ClassVar, Final, TypeAlias

from devicehost.vfio_user.errors import MalformedMessage
from devicehost.vfio_user.header import Command
from devicehost.vfio_user.payload import (
    ADDRESS_SPACE,
    Printed,
    ReplyPayload,
    RequestPayload,
    check_argsz,
    check_echo,
    check_room,
    check_size,
    check_zero,
)

FIXED: Final = Struct("<IIII")
SHORT: Final = Struct("<QQIIIIQ")
LONG: Final = Struct("<QQIIIIQQ")

IOEVENTFD: Final = 0
IOREGIONFD: Final = 1
IOEVENTFD_SHADOW: Final = 2


class IoEventFdFlags(IntFlag):
    """KVM's flags of an ioeventfd. Bits without a name here are kept as they came."""

    DATAMATCH = 1 << 0
    PIO = 1 << 1
    VIRTIO_CCW_NOTIFY = 1 << 3


class IoRegionFdFlags(IntFlag):
    """KVM's proposed flags of an ioregionfd. Bits without a name are kept as they came."""

    PIO = 1 << 0
    POSTED_WRITES = 1 << 1


ANY_WRITE: Final = IoEventFdFlags(0)
ANY_ACCESS: Final = IoRegionFdFlags(0)


@dataclass(frozen=True, slots=True, repr=False)
class IoEventFd(Printed):
    """A write to this part of the region signals the eventfd with index `fd_index`.

    Attributes:
        offset: distance from the region's base, in bytes.
        size: bytes; 0 if the size of the access doesn't matter.
        fd_index: which of the file descriptors that come with the reply.
        flags: with DATAMATCH, only a write of the value `datamatch` counts.
        datamatch: that value.
    """

    offset: int
    size: int
    fd_index: int
    flags: IoEventFdFlags = ANY_WRITE
    datamatch: int = 0

    @property
    def fd_indexes(self) -> tuple[int, ...]:
        """The file descriptors that this needs."""
        return (self.fd_index,)


@dataclass(frozen=True, slots=True, repr=False)
class ShadowIoEventFd(Printed):
    """Likewise, and the value is put into shared memory first: libvfio-user's extension.

    Attributes:
        shadow_fd_index: which file descriptor is the shared memory.
        shadow_offset: where in it the value goes, in bytes.
    """

    offset: int
    size: int
    fd_index: int
    shadow_fd_index: int
    shadow_offset: int
    flags: IoEventFdFlags = ANY_WRITE
    datamatch: int = 0

    @property
    def fd_indexes(self) -> tuple[int, ...]:
        """The file descriptors that this needs."""
        return (self.fd_index, self.shadow_fd_index)


@dataclass(frozen=True, slots=True, repr=False)
class IoRegionFd(Printed):
    """Accesses to this part of the region go as messages to an fd, with `user_data` in them."""

    offset: int
    size: int
    fd_index: int
    flags: IoRegionFdFlags = ANY_ACCESS
    user_data: int = 0

    @property
    def fd_indexes(self) -> tuple[int, ...]:
        """The file descriptors that this needs."""
        return (self.fd_index,)


SubRegion: TypeAlias = IoEventFd | ShadowIoEventFd | IoRegionFd


def _encode(sub: SubRegion, *, long: bool) -> bytes:
    span = (sub.offset, sub.size, sub.fd_index)
    match sub:
        case ShadowIoEventFd():
            shadow = (sub.shadow_fd_index, sub.shadow_offset, sub.datamatch)
            return LONG.pack(*span, IOEVENTFD_SHADOW, sub.flags, *shadow)
        case IoEventFd() if long:
            return LONG.pack(*span, IOEVENTFD, sub.flags, 0, 0, sub.datamatch)
        case IoEventFd():
            return SHORT.pack(*span, IOEVENTFD, sub.flags, 0, sub.datamatch)
        case IoRegionFd() if long:
            return LONG.pack(*span, IOREGIONFD, sub.flags, 0, sub.user_data, 0)
        case IoRegionFd():
            return SHORT.pack(*span, IOREGIONFD, sub.flags, 0, sub.user_data)


def _decode(sub: memoryview) -> SubRegion:
    long = len(sub) == LONG.size
    if long:
        offset, size, fd_index, kind, flags, shadow, first, second = LONG.unpack(sub)
    else:
        offset, size, fd_index, kind, flags, shadow, first = SHORT.unpack(sub)
        second = first
    if offset + size > ADDRESS_SPACE:
        value = f"{offset + size:#x}"
        raise MalformedMessage(RegionIoFds.NAME, "offset + size", value, "at most 2**64")
    if kind == IOEVENTFD:
        return IoEventFd(offset, size, fd_index, IoEventFdFlags(flags), second)
    if kind == IOREGIONFD:
        return IoRegionFd(offset, size, fd_index, IoRegionFdFlags(flags), first)
    if kind == IOEVENTFD_SHADOW and long:
        event_flags = IoEventFdFlags(flags)
        return ShadowIoEventFd(offset, size, fd_index, shadow, first, event_flags, second)
    raise MalformedMessage(RegionIoFds.NAME, "type", kind, "0, 1, or 2 in the long form")


@dataclass(frozen=True, slots=True, repr=False)
class GetRegionIoFds(RequestPayload):
    """Ask for the file descriptors of a region, with room for a reply of `argsz` bytes."""

    COMMAND: ClassVar[Command] = Command.DEVICE_GET_REGION_IO_FDS

    index: int
    argsz: int = FIXED.size

    @classmethod
    def decode(cls, payload: memoryview, /) -> GetRegionIoFds:
        """Decode the 16 bytes."""
        name = cls.COMMAND.name
        check_size(name, payload, FIXED.size)
        argsz, flags, index, count = FIXED.unpack_from(payload)
        check_argsz(name, argsz, FIXED.size)
        check_zero(name, flags=flags, count=count)
        return cls(index, argsz)

    def encode(self) -> bytes:
        """Encode the 16 bytes."""
        return FIXED.pack(self.argsz, 0, self.index, 0)


@dataclass(frozen=True, slots=True, repr=False)
class RegionIoFds(ReplyPayload[GetRegionIoFds]):
    """The parts of a region that have file descriptors.

    Attributes:
        sub_regions: the parts.
        needs_argsz: 0, or the `argsz` to ask with, as the parts did not fit. It is what the
            peer says: limit it.
    """

    NAME: ClassVar[str] = "reply to DEVICE_GET_REGION_IO_FDS"

    sub_regions: tuple[SubRegion, ...] = ()
    needs_argsz: int = 0

    @classmethod
    def decode(cls, payload: memoryview, request: GetRegionIoFds, /) -> RegionIoFds:
        """Decode the fixed part, and the sub-regions if they are there."""
        check_room(cls.NAME, payload, FIXED.size)
        argsz, flags, index, count = FIXED.unpack_from(payload)
        check_zero(cls.NAME, flags=flags)
        check_echo(cls.NAME, "index", index, request.index)
        if argsz > request.argsz and len(payload) == FIXED.size:
            return cls(needs_argsz=argsz)
        if argsz != len(payload):
            raise MalformedMessage(cls.NAME, "argsz", argsz, f"{len(payload)}, the payload size")
        body = payload[FIXED.size :]
        if len(body) not in (count * SHORT.size, count * LONG.size):
            allowed = f"{count} sub-regions of {SHORT.size} or {LONG.size} bytes"
            raise MalformedMessage(cls.NAME, "sub-regions", f"{len(body)} bytes", allowed)
        size = len(body) // count if count else SHORT.size
        starts = range(0, len(body), size)
        return cls(tuple(_decode(body[start : start + size]) for start in starts))

    def encode(self, request: GetRegionIoFds, /) -> bytes:
        """Encode all of it, or the fixed part alone if the rest doesn't fit."""
        long = any(isinstance(sub, ShadowIoEventFd) for sub in self.sub_regions)
        body = b"".join(_encode(sub, long=long) for sub in self.sub_regions)
        argsz = FIXED.size + len(body)
        fixed = FIXED.pack(argsz, 0, request.index, len(self.sub_regions))
        return fixed + body if argsz <= request.argsz else fixed

    def check_fds(self, count: int) -> None:
        """Check that each file descriptor that is named came along."""
        for sub in self.sub_regions:
            for index in sub.fd_indexes:
                if index >= count:
                    allowed = f"less than {count}, the number of fds"
                    raise MalformedMessage(self.NAME, "index of an fd", index, allowed)
