"""The device as a whole: DEVICE_GET_INFO and DEVICE_RESET.

    DEVICE_GET_INFO, and its reply
    offset  size
         0     4  argsz: 16 or more
         4     4  flags          0 in the request
         8     4  num_regions    0 in the request
        12     4  num_irqs       0 in the request

Source: vfio-user protocol specification 0.9; the flags from Linux, uapi/linux/vfio.h.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag
from struct import Struct
from typing import ClassVar, Final

from devicehost.vfio_user.errors import MalformedMessage
from devicehost.vfio_user.header import Command
from devicehost.vfio_user.payload import (
    ReplyPayload,
    RequestPayload,
    check_argsz,
    check_size,
    check_zero,
)

INFO: Final = Struct("<IIII")


class DeviceFlags(IntFlag):
    """What the device is. Bits without a name here are kept as they came."""

    RESET = 1 << 0
    PCI = 1 << 1
    PLATFORM = 1 << 2


@dataclass(frozen=True, slots=True, repr=False)
class GetDeviceInfo(RequestPayload):
    """Ask what the device is."""

    COMMAND: ClassVar[Command] = Command.DEVICE_GET_INFO

    argsz: int = INFO.size

    @classmethod
    def decode(cls, payload: memoryview, /) -> GetDeviceInfo:
        """Decode the 16 bytes."""
        name = cls.COMMAND.name
        check_size(name, payload, INFO.size)
        argsz, flags, num_regions, num_irqs = INFO.unpack_from(payload)
        check_argsz(name, argsz, INFO.size)
        check_zero(name, flags=flags, num_regions=num_regions, num_irqs=num_irqs)
        return cls(argsz)

    def encode(self) -> bytes:
        """Encode the 16 bytes."""
        return INFO.pack(self.argsz, 0, 0, 0)


@dataclass(frozen=True, slots=True, repr=False)
class DeviceInfo(ReplyPayload[GetDeviceInfo]):
    """What the device is, and how many regions and kinds of interrupts it has."""

    NAME: ClassVar[str] = "reply to DEVICE_GET_INFO"

    flags: DeviceFlags
    num_regions: int
    num_irqs: int

    @classmethod
    def decode(cls, payload: memoryview, _request: GetDeviceInfo, /) -> DeviceInfo:
        """Decode the 16 bytes."""
        check_size(cls.NAME, payload, INFO.size)
        argsz, flags, num_regions, num_irqs = INFO.unpack_from(payload)
        if argsz != INFO.size:
            raise MalformedMessage(cls.NAME, "argsz", argsz, f"{INFO.size}")
        return cls(DeviceFlags(flags), num_regions, num_irqs)

    def encode(self, _request: GetDeviceInfo, /) -> bytes:
        """Encode the 16 bytes."""
        return INFO.pack(INFO.size, self.flags, self.num_regions, self.num_irqs)


@dataclass(frozen=True, slots=True, repr=False)
class DeviceReset(RequestPayload):
    """Reset the device."""

    COMMAND: ClassVar[Command] = Command.DEVICE_RESET

    @classmethod
    def decode(cls, payload: memoryview, /) -> DeviceReset:
        """Decode an empty payload."""
        check_size(cls.COMMAND.name, payload, 0)
        return cls()

    def encode(self) -> bytes:
        """Encode an empty payload."""
        return b""
