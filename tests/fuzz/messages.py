"""Payloads of vfio-user made from a fuzz input: any request, and replies that fit one."""

from __future__ import annotations

from typing import Any, Final

from devicehost.vfio_user import (
    BadMessage,
    DeviceFlags,
    DeviceInfo,
    DmaData,
    DmaUnmapped,
    DmaWritten,
    Done,
    IoEventFd,
    IoRegionFd,
    IrqFlags,
    IrqInfo,
    Limits,
    MmapArea,
    RegionData,
    RegionFlags,
    RegionInfo,
    RegionIoFds,
    RegionType,
    RegionWritesDone,
    RegionWritten,
    ReplyPayload,
    RequestPayload,
    Role,
    ShadowIoEventFd,
    SparseMmap,
)
from devicehost.vfio_user.messages import EXCHANGES
from fuzz.source import Source

SMALL: Final = Limits(
    max_data_xfer_size=256, max_version_data=256, max_msg_fds=3, max_drained_size=2000
)
"""Limits that an input of a few hundred bytes reaches."""

COMMANDS: Final = {
    role: [number for number in sorted(EXCHANGES) if EXCHANGES[number].sender is role]
    for role in Role
}
"""The commands that each side sends."""


def some_request(source: Source, sender: Role) -> RequestPayload | None:
    """A request of `sender`, or None if the input has none."""
    kind = EXCHANGES[source.choose(COMMANDS[sender])].request
    try:
        return kind.decode(memoryview(source.blob()))
    except BadMessage:
        return None


def some_reply(source: Source, request: RequestPayload) -> ReplyPayload[Any]:
    """A reply of the right kind. Its numbers may be wrong."""
    kind = EXCHANGES[request.COMMAND].reply
    if kind is RegionData or kind is DmaData:
        return kind(source.blob())
    if kind is RegionWritten or kind is DmaWritten or kind is RegionWritesDone:
        return kind(source.number(2))
    if kind is DeviceInfo:
        return DeviceInfo(DeviceFlags(source.number(4)), source.number(4), source.number(4))
    if kind is IrqInfo:
        return IrqInfo(IrqFlags(source.number(4)), source.number(4))
    if kind is RegionInfo:
        return _region_info(source)
    if kind is RegionIoFds:
        return RegionIoFds(tuple(_sub_region(source) for _ in range(source.byte() % 4)))
    return DmaUnmapped() if kind is DmaUnmapped else Done()


def _region_info(source: Source) -> RegionInfo:
    size, flags, offset = source.number(8), RegionFlags(source.byte() & 7), source.number(8)
    chain: list[SparseMmap | RegionType] = []
    for _ in range(source.byte() % 4):
        if source.byte() & 1:
            chain.append(RegionType(source.number(4), source.number(4)))
        else:
            areas = range(source.byte() % 3)
            chain.append(
                SparseMmap(tuple(MmapArea(source.number(8), source.number(8)) for _ in areas))
            )
    return RegionInfo(size, flags, offset, tuple(chain))


def _sub_region(source: Source) -> IoEventFd | ShadowIoEventFd | IoRegionFd:
    span = (source.number(8), source.number(8), source.byte() % 4)
    match source.byte() % 3:
        case 0:
            return IoEventFd(*span, datamatch=source.number(8))
        case 1:
            return ShadowIoEventFd(*span, source.byte() % 4, source.number(8))
        case _:
            return IoRegionFd(*span, user_data=source.number(8))
