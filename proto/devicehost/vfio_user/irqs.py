"""Interrupts: DEVICE_GET_IRQ_INFO and DEVICE_SET_IRQS.

Interrupts are numbered by an index (the kind) and a subindex (which one of it).

    DEVICE_GET_IRQ_INFO, and its reply      DEVICE_SET_IRQS
    offset  size                            offset  size
         0     4  argsz: 16 or more              0     4  argsz: 20, and the data's size
         4     4  flags  0 in the request        4     4  flags: one DATA_, one ACTION_
         8     4  index                          8     4  index
        12     4  count  0 in the request       12     4  start: the first subindex
                                                16     4  count: of subindexes
                                                20     -  data: a byte for each, if DATA_BOOL

DATA_EVENTFD comes with a file descriptor for each subindex, or with none, which takes
those of the subindexes away. DATA_NONE with ACTION_TRIGGER and a count of 0 takes away all
of the index.

Source: vfio-user protocol specification 0.9; the combinations as Linux and libvfio-user
allow them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, IntFlag
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
    check_zero,
)

INFO: Final = Struct("<IIII")
SET: Final = Struct("<IIIII")

MAX_SUBINDEXES: Final = 1 << 32


class IrqFlags(IntFlag):
    """What an index can do. Bits without a name here are kept as they came."""

    EVENTFD = 1 << 0
    MASKABLE = 1 << 1
    AUTOMASKED = 1 << 2
    NORESIZE = 1 << 3


class IrqData(IntEnum):
    """What comes with a SET_IRQS. The values are flags on the wire."""

    NONE = 1 << 0
    BOOL = 1 << 1
    EVENTFD = 1 << 2


class IrqAction(IntEnum):
    """What a SET_IRQS is about. The values are flags on the wire."""

    MASK = 1 << 3
    UNMASK = 1 << 4
    TRIGGER = 1 << 5


_DATA = frozenset(IrqData)
_DATA_MASK = 0x7
_ACTIONS = frozenset(IrqAction)
_ACTION_MASK = 0x38


@dataclass(frozen=True, slots=True, repr=False)
class GetIrqInfo(RequestPayload):
    """Ask about the interrupts of one index."""

    COMMAND: ClassVar[Command] = Command.DEVICE_GET_IRQ_INFO

    index: int
    argsz: int = INFO.size

    @classmethod
    def decode(cls, payload: memoryview, /) -> GetIrqInfo:
        """Decode the 16 bytes."""
        name = cls.COMMAND.name
        check_size(name, payload, INFO.size)
        argsz, flags, index, count = INFO.unpack_from(payload)
        check_argsz(name, argsz, INFO.size)
        check_zero(name, flags=flags, count=count)
        return cls(index, argsz)

    def encode(self) -> bytes:
        """Encode the 16 bytes."""
        return INFO.pack(self.argsz, 0, self.index, 0)


@dataclass(frozen=True, slots=True, repr=False)
class IrqInfo(ReplyPayload[GetIrqInfo]):
    """How many interrupts an index has, and what they can do."""

    NAME: ClassVar[str] = "reply to DEVICE_GET_IRQ_INFO"

    flags: IrqFlags
    count: int

    @classmethod
    def decode(cls, payload: memoryview, request: GetIrqInfo, /) -> IrqInfo:
        """Decode the 16 bytes."""
        check_size(cls.NAME, payload, INFO.size)
        argsz, flags, index, count = INFO.unpack_from(payload)
        if argsz != INFO.size:
            raise MalformedMessage(cls.NAME, "argsz", argsz, f"{INFO.size}")
        check_echo(cls.NAME, "index", index, request.index)
        return cls(IrqFlags(flags), count)

    def encode(self, request: GetIrqInfo, /) -> bytes:
        """Encode the 16 bytes."""
        return INFO.pack(INFO.size, self.flags, request.index, self.count)


@dataclass(frozen=True, slots=True, repr=False)
class SetIrqs(RequestPayload):
    """Trigger, mask or unmask interrupts, or connect eventfds to that.

    Attributes:
        index: the kind of interrupt.
        start: the first subindex.
        count: how many subindexes. Whether the index has so many isn't known here.
        action: what is done, or what the eventfds are for.
        data: to which of the subindexes: all, those with a 1 in `bools`, or eventfds.
        bools: a byte for each subindex, 0 or 1, if `data` is BOOL; else empty.
    """

    COMMAND: ClassVar[Command] = Command.DEVICE_SET_IRQS

    index: int
    start: int
    count: int
    action: IrqAction
    data: IrqData
    bools: bytes = b""

    @classmethod
    def decode(cls, payload: memoryview, /) -> SetIrqs:
        """Decode the 20 bytes and the data."""
        name = cls.COMMAND.name
        check_room(name, payload, SET.size)
        argsz, flags, index, start, count = SET.unpack_from(payload)
        action, data = _decode_flags(flags)
        size = SET.size + (count if data is IrqData.BOOL else 0)
        check_size(name, payload, size)
        check_argsz(name, argsz, size)
        if start + count > MAX_SUBINDEXES:
            raise MalformedMessage(name, "start + count", start + count, "at most 2**32")
        if count == 0 and (start, action, data) != (0, IrqAction.TRIGGER, IrqData.NONE):
            allowed = "1 or more; 0 needs start 0, ACTION_TRIGGER and DATA_NONE"
            raise MalformedMessage(name, "count", 0, allowed)
        bools = bytes(payload[SET.size :])
        if wrong := bools.translate(None, b"\x00\x01"):
            raise MalformedMessage(name, "data", f"a byte of {wrong[0]:#x}", "bytes of 0 and 1")
        return cls(index, start, count, action, data, bools)

    def encode(self) -> bytes:
        """Encode the 20 bytes and the data."""
        if len(self.bools) != (self.count if self.data is IrqData.BOOL else 0):
            raise BadValue(f"{len(self.bools)} bools for {self.count} interrupts and {self.data!r}")
        argsz = SET.size + len(self.bools)
        flags = self.action | self.data
        return SET.pack(argsz, flags, self.index, self.start, self.count) + self.bools

    def check_fds(self, count: int) -> None:
        """Check that there is an eventfd for each subindex, or none."""
        allowed = (0, self.count) if self.data is IrqData.EVENTFD else (0,)
        if count not in allowed:
            text = " or ".join(map(str, allowed))
            raise MalformedMessage(self.COMMAND.name, "number of fds", count, text)


def _decode_flags(flags: int) -> tuple[IrqAction, IrqData]:
    action, data = flags & _ACTION_MASK, flags & _DATA_MASK
    if flags == action | data and action in _ACTIONS and data in _DATA:
        return IrqAction(action), IrqData(data)
    name = Command.DEVICE_SET_IRQS.name
    allowed = "one of DATA_NONE, DATA_BOOL, DATA_EVENTFD and one of MASK, UNMASK, TRIGGER"
    raise MalformedMessage(name, "flags", f"{flags:#x}", allowed)
