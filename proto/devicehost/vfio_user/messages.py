"""The table of all commands: who sends them, what they carry, and what the replies do.

Commands that are known but not served stand in `UNSUPPORTED`, with the errno that says so:

- Dirty pages and migration data: ENOTSUP.
- DEVICE_FEATURE: ENOTTY, which is how Linux says that a device lacks a feature, and what
  QEMU takes for that.

A number in neither table is answered with ENOSYS, as QEMU's client does. (libvfio-user
answers all of them with EINVAL, which can't be told from a mistake in a payload.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from errno import ENOTSUP, ENOTTY
from types import MappingProxyType
from typing import Any, Final

from devicehost.vfio_user.access import (
    RegionData,
    RegionRead,
    RegionWrite,
    RegionWriteMulti,
    RegionWritesDone,
    RegionWritten,
)
from devicehost.vfio_user.device import DeviceInfo, DeviceReset, GetDeviceInfo
from devicehost.vfio_user.dma import (
    DmaData,
    DmaMap,
    DmaRead,
    DmaUnmap,
    DmaUnmapped,
    DmaWrite,
    DmaWritten,
)
from devicehost.vfio_user.header import Command
from devicehost.vfio_user.irqs import GetIrqInfo, IrqInfo, SetIrqs
from devicehost.vfio_user.payload import Done, ReplyPayload, RequestPayload
from devicehost.vfio_user.region_io_fds import GetRegionIoFds, RegionIoFds
from devicehost.vfio_user.regions import GetRegionInfo, RegionInfo


class Role(Enum):
    """The two ends of a session."""

    CLIENT = "client"
    SERVER = "server"


@dataclass(frozen=True, slots=True)
class Exchange:
    """One command: who sends it, and what request and reply carry."""

    sender: Role
    request: type[RequestPayload]
    reply: type[ReplyPayload[Any]]


def _table(
    *rows: tuple[Role, type[RequestPayload], type[ReplyPayload[Any]]],
) -> dict[int, Exchange]:
    return {request.COMMAND: Exchange(sender, request, reply) for sender, request, reply in rows}


EXCHANGES: Final[Mapping[int, Exchange]] = MappingProxyType(
    _table(
        (Role.CLIENT, DmaMap, Done),
        (Role.CLIENT, DmaUnmap, DmaUnmapped),
        (Role.CLIENT, GetDeviceInfo, DeviceInfo),
        (Role.CLIENT, GetRegionInfo, RegionInfo),
        (Role.CLIENT, GetRegionIoFds, RegionIoFds),
        (Role.CLIENT, GetIrqInfo, IrqInfo),
        (Role.CLIENT, SetIrqs, Done),
        (Role.CLIENT, RegionRead, RegionData),
        (Role.CLIENT, RegionWrite, RegionWritten),
        (Role.CLIENT, RegionWriteMulti, RegionWritesDone),
        (Role.CLIENT, DeviceReset, Done),
        (Role.SERVER, DmaRead, DmaData),
        (Role.SERVER, DmaWrite, DmaWritten),
    )
)
"""All but VERSION, which the sessions exchange themselves."""

UNSUPPORTED: Final[Mapping[int, int]] = MappingProxyType(
    {
        Command.DIRTY_PAGES: ENOTSUP,
        Command.DEVICE_FEATURE: ENOTTY,
        Command.MIG_DATA_READ: ENOTSUP,
        Command.MIG_DATA_WRITE: ENOTSUP,
    }
)
"""Commands that are answered with this errno."""
