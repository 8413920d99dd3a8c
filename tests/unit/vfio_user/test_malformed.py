"""What each decoder refuses, field by field, and with which errno."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from errno import EINVAL, ENOTSUP
from typing import Any

import pytest

from devicehost.vfio_user import (
    DeviceFlags,
    DeviceInfo,
    DeviceReset,
    DmaData,
    DmaFlags,
    DmaMap,
    DmaRead,
    DmaUnmap,
    DmaUnmapped,
    DmaWrite,
    DmaWritten,
    Done,
    GetDeviceInfo,
    GetIrqInfo,
    GetRegionInfo,
    GetRegionIoFds,
    IoEventFd,
    IoEventFdFlags,
    IoRegionFd,
    IoRegionFdFlags,
    IrqAction,
    IrqData,
    IrqFlags,
    IrqInfo,
    MalformedMessage,
    MmapArea,
    RegionData,
    RegionFlags,
    RegionInfo,
    RegionIoFds,
    RegionRead,
    RegionType,
    RegionWrite,
    RegionWriteMulti,
    RegionWritesDone,
    RegionWritten,
    ReplyPayload,
    RequestPayload,
    SetIrqs,
    ShadowIoEventFd,
    SparseMmap,
)

TOP = (1 << 64) - 1


@dataclass
class Bad:
    """A payload, packed by `layout`, and the field that is wrong in it."""

    kind: type[Any]
    field: str
    layout: str
    values: tuple[int | bytes, ...]
    errno: int = EINVAL
    request: Any = None

    @property
    def payload(self) -> memoryview:
        return memoryview(struct.pack(f"<{self.layout}", *self.values))

    def __str__(self) -> str:
        return f"{self.kind.__name__}-{self.field}-{self.values}"


MAP, UNMAP, INFO, REGION, SET = "IIQQQ", "IIQQ", "IIII", "IIIIQQ", "IIIII"

REQUESTS = [
    # DMA_MAP: argsz, flags, offset, address, size
    Bad(DmaMap, "payload size", MAP + "B", (32, 3, 0, 0, 0x1000, 0)),
    Bad(DmaMap, "payload size", "IIQQ", (32, 3, 0, 0)),
    Bad(DmaMap, "payload size", "", ()),
    Bad(DmaMap, "argsz", MAP, (31, 3, 0, 0, 0x1000)),
    Bad(DmaMap, "flags", MAP, (32, 0, 0, 0, 0x1000)),
    Bad(DmaMap, "flags", MAP, (32, 0x11, 0, 0, 0x1000)),
    Bad(DmaMap, "flags", MAP, (32, 0x8000_0001, 0, 0, 0x1000)),
    Bad(DmaMap, "flags", MAP, (32, 0xD, 0, 0, 0x1000)),
    Bad(DmaMap, "size", MAP, (32, 3, 0, 0, 0)),
    Bad(DmaMap, "address + size", MAP, (32, 3, 0, TOP, 2)),
    Bad(DmaMap, "address + size", MAP, (32, 3, 0, 0x1000, TOP)),
    # DMA_UNMAP: argsz, flags, address, size
    Bad(DmaUnmap, "payload size", "IIQ", (24, 0, 0)),
    Bad(DmaUnmap, "payload size", UNMAP + "Q", (24, 0, 0, 0x1000, 0)),
    Bad(DmaUnmap, "argsz", UNMAP, (23, 0, 0, 0x1000)),
    Bad(DmaUnmap, "flags", UNMAP, (24, 1, 0, 0x1000), ENOTSUP),
    Bad(DmaUnmap, "flags", UNMAP + "QQ", (0x1000, 1, 0, 0x1000, 0x1000, 8), ENOTSUP),
    Bad(DmaUnmap, "flags", UNMAP, (24, 4, 0, 0x1000)),
    Bad(DmaUnmap, "size", UNMAP, (24, 0, 0, 0)),
    Bad(DmaUnmap, "address + size", UNMAP, (24, 0, TOP, 2)),
    Bad(DmaUnmap, "address and size", UNMAP, (24, 2, 0, 0x1000)),
    Bad(DmaUnmap, "address and size", UNMAP, (24, 2, 0x1000, 0)),
    # DEVICE_GET_INFO: argsz, flags, num_regions, num_irqs
    Bad(GetDeviceInfo, "payload size", "III", (16, 0, 0)),
    Bad(GetDeviceInfo, "payload size", "IIIII", (16, 0, 0, 0, 0)),
    Bad(GetDeviceInfo, "argsz", INFO, (15, 0, 0, 0)),
    Bad(GetDeviceInfo, "flags", INFO, (16, 1, 0, 0)),
    Bad(GetDeviceInfo, "num_regions", INFO, (16, 0, 1, 0)),
    Bad(GetDeviceInfo, "num_irqs", INFO, (16, 0, 0, 1)),
    # DEVICE_GET_REGION_INFO: argsz, flags, index, cap_offset, size, offset
    Bad(GetRegionInfo, "payload size", "IIII", (32, 0, 0, 0)),
    Bad(GetRegionInfo, "payload size", REGION + "B", (32, 0, 0, 0, 0, 0, 0)),
    Bad(GetRegionInfo, "argsz", REGION, (31, 0, 0, 0, 0, 0)),
    Bad(GetRegionInfo, "flags", REGION, (32, 1, 0, 0, 0, 0)),
    Bad(GetRegionInfo, "cap_offset", REGION, (32, 0, 0, 32, 0, 0)),
    Bad(GetRegionInfo, "size", REGION, (32, 0, 0, 0, 1, 0)),
    Bad(GetRegionInfo, "offset", REGION, (32, 0, 0, 0, 0, 1)),
    # DEVICE_GET_REGION_IO_FDS: argsz, flags, index, count
    Bad(GetRegionIoFds, "payload size", "III", (16, 0, 0)),
    Bad(GetRegionIoFds, "argsz", INFO, (15, 0, 0, 0)),
    Bad(GetRegionIoFds, "flags", INFO, (16, 1, 0, 0)),
    Bad(GetRegionIoFds, "count", INFO, (16, 0, 0, 1)),
    # DEVICE_GET_IRQ_INFO: argsz, flags, index, count
    Bad(GetIrqInfo, "payload size", "III", (16, 0, 0)),
    Bad(GetIrqInfo, "argsz", INFO, (15, 0, 0, 0)),
    Bad(GetIrqInfo, "flags", INFO, (16, 1, 0, 0)),
    Bad(GetIrqInfo, "count", INFO, (16, 0, 0, 1)),
    # DEVICE_SET_IRQS: argsz, flags, index, start, count
    Bad(SetIrqs, "payload size", "IIII", (20, 0x21, 0, 0)),
    Bad(SetIrqs, "payload size", SET + "B", (21, 0x21, 0, 0, 1, 0)),
    Bad(SetIrqs, "payload size", SET, (22, 0x22, 0, 0, 2)),
    Bad(SetIrqs, "payload size", SET + "3s", (23, 0x22, 0, 0, 2, b"\0\0\0")),
    Bad(SetIrqs, "payload size", SET + "I", (24, 0x24, 0, 0, 1, 5)),
    Bad(SetIrqs, "payload size", SET, (20, 0x22, 0, 0, 0xFFFF_FFFF)),
    Bad(SetIrqs, "argsz", SET, (19, 0x21, 0, 0, 1)),
    Bad(SetIrqs, "argsz", SET + "2s", (20, 0x22, 0, 0, 2, b"\0\0")),
    Bad(SetIrqs, "flags", SET, (20, 0, 0, 0, 1)),
    Bad(SetIrqs, "flags", SET, (20, 0x1, 0, 0, 1)),
    Bad(SetIrqs, "flags", SET, (20, 0x20, 0, 0, 1)),
    Bad(SetIrqs, "flags", SET, (20, 0x23, 0, 0, 1)),
    Bad(SetIrqs, "flags", SET, (20, 0x31, 0, 0, 1)),
    Bad(SetIrqs, "flags", SET, (20, 0x61, 0, 0, 1)),
    Bad(SetIrqs, "start + count", SET, (20, 0x21, 0, 0xFFFF_FFFF, 2)),
    Bad(SetIrqs, "count", SET, (20, 0x21, 0, 1, 0)),
    Bad(SetIrqs, "count", SET, (20, 0x11, 0, 0, 0)),
    Bad(SetIrqs, "count", SET, (20, 0x24, 0, 0, 0)),
    Bad(SetIrqs, "data", SET + "2s", (22, 0x22, 0, 0, 2, b"\1\2")),
    # REGION_READ: offset, region, count
    Bad(RegionRead, "payload size", "QI", (0, 0)),
    Bad(RegionRead, "payload size", "QIIB", (0, 0, 1, 0)),
    Bad(RegionRead, "count", "QII", (0, 0, 0)),
    Bad(RegionRead, "offset + size", "QII", (TOP, 0, 2)),
    # REGION_WRITE: offset, region, count, data
    Bad(RegionWrite, "payload size", "QI", (0, 0)),
    Bad(RegionWrite, "payload size", "QII1s", (0, 0, 2, b"a")),
    Bad(RegionWrite, "payload size", "QII3s", (0, 0, 2, b"abc")),
    Bad(RegionWrite, "payload size", "QII", (0, 0, 0xFFFF_FFFF)),
    Bad(RegionWrite, "count", "QII", (0, 0, 0)),
    Bad(RegionWrite, "offset + size", "QII2s", (TOP, 0, 2, b"ab")),
    # REGION_WRITE_MULTI: wr_cnt, then offset, region, count, data of each
    Bad(RegionWriteMulti, "payload size", "I", (0,)),
    Bad(RegionWriteMulti, "wr_cnt", "Q", (0,)),
    Bad(RegionWriteMulti, "payload size", "Q", (1,)),
    Bad(RegionWriteMulti, "payload size", "Q", (TOP,)),
    Bad(RegionWriteMulti, "payload size", "QQII8sB", (1, 0, 0, 1, b"a", 0)),
    Bad(RegionWriteMulti, "count", "QQII8s", (1, 0, 0, 0, b"")),
    Bad(RegionWriteMulti, "count", "QQII8s", (1, 0, 0, 9, b"")),
    Bad(RegionWriteMulti, "count", "QQII8sQII8s", (2, 0, 0, 1, b"a", 0, 0, 9, b"")),
    Bad(RegionWriteMulti, "offset + size", "QQII8s", (1, TOP, 0, 2, b"ab")),
    # DMA_READ: address, count
    Bad(DmaRead, "payload size", "Q", (0,)),
    Bad(DmaRead, "payload size", "QQB", (0, 1, 0)),
    Bad(DmaRead, "count", "QQ", (0, 0)),
    Bad(DmaRead, "address + size", "QQ", (0x1000, TOP)),
    # DMA_WRITE: address, count, data
    Bad(DmaWrite, "payload size", "Q", (0,)),
    Bad(DmaWrite, "payload size", "QQ1s", (0, 2, b"a")),
    Bad(DmaWrite, "payload size", "QQ3s", (0, 2, b"abc")),
    Bad(DmaWrite, "count", "QQ", (0, 0)),
    Bad(DmaWrite, "address + size", "QQ2s", (TOP, 2, b"ab")),
    # DEVICE_RESET
    Bad(DeviceReset, "payload size", "B", (0,)),
]

READ = RegionRead(1, 0x100, 4)
WRITE = RegionWrite(1, 0x100, b"abcd")
MULTI = RegionWriteMulti((WRITE, WRITE))
REGION_2 = GetRegionInfo(2, argsz=0x1000)
FDS_2 = GetRegionIoFds(2, argsz=0x1000)
SUB, LONG_SUB = "QQIIIIQ", "QQIIIIQQ"


def reply(kind: type[Any], request: Any, field: str, layout: str, *values: int | bytes) -> Bad:
    return Bad(kind, field, layout, values, request=request)


REPLIES = [
    reply(Done, DeviceReset(), "payload size", "B", 0),
    reply(DmaUnmapped, DmaUnmap(0x1000, 0x1000), "payload size", "IIQ", 24, 0, 0x1000),
    reply(DmaUnmapped, DmaUnmap(0x1000, 0x1000), "address", UNMAP, 24, 0, 0, 0x1000),
    reply(DmaUnmapped, DmaUnmap(0x1000, 0x1000), "size", UNMAP, 24, 0, 0x1000, 0),
    reply(DeviceInfo, GetDeviceInfo(), "payload size", "III", 16, 3, 9),
    reply(DeviceInfo, GetDeviceInfo(), "argsz", INFO, 20, 3, 9, 5),
    reply(IrqInfo, GetIrqInfo(1), "payload size", "III", 16, 1, 1),
    reply(IrqInfo, GetIrqInfo(1), "argsz", INFO, 0, 1, 1, 1),
    reply(IrqInfo, GetIrqInfo(1), "index", INFO, 16, 1, 2, 1),
    # REGION_READ: offset, region, count, data
    reply(RegionData, READ, "payload size", "QI", 0x100, 1),
    reply(RegionData, READ, "offset", "QII4s", 0x104, 1, 4, b"abcd"),
    reply(RegionData, READ, "region", "QII4s", 0x100, 0, 4, b"abcd"),
    reply(RegionData, READ, "count", "QII5s", 0x100, 1, 5, b"abcde"),
    reply(RegionData, READ, "payload size", "QII3s", 0x100, 1, 4, b"abc"),
    reply(RegionData, READ, "payload size", "QII4s", 0x100, 1, 3, b"abcd"),
    # REGION_WRITE: offset, region, count
    reply(
        RegionWritten,
        WRITE,
        "payload size",
        "",
    ),
    reply(RegionWritten, WRITE, "payload size", "QIIB", 0x100, 1, 4, 0),
    reply(RegionWritten, WRITE, "offset", "QII", 0, 1, 4),
    reply(RegionWritten, WRITE, "region", "QII", 0x100, 2, 4),
    reply(RegionWritten, WRITE, "count", "QII", 0x100, 1, 5),
    # REGION_WRITE_MULTI answers with the number of writes
    reply(RegionWritesDone, MULTI, "payload size", "I", 1),
    reply(RegionWritesDone, MULTI, "wr_cnt", "Q", 3),
    # DMA_READ: address, count, data; older QEMU's count has 4 bytes
    reply(DmaData, DmaRead(0x1000, 4), "payload size", "Q", 0x1000),
    reply(DmaData, DmaRead(0x1000, 4), "address", "QQ4s", 0x2000, 4, b"abcd"),
    reply(DmaData, DmaRead(0x1000, 4), "count", "QQ5s", 0x1000, 5, b"abcde"),
    reply(DmaData, DmaRead(0x1000, 4), "payload size", "QQ3s", 0x1000, 4, b"abc"),
    reply(DmaData, DmaRead(0x1000, 4), "count", "QI8s", 0x1000, 4, b"abcd"),
    # DMA_WRITE: address, count
    reply(DmaWritten, DmaWrite(0x1000, b"ab"), "payload size", "Q", 0x1000),
    reply(DmaWritten, DmaWrite(0x1000, b"ab"), "payload size", "QQB", 0x1000, 2, 0),
    reply(DmaWritten, DmaWrite(0x1000, b"ab"), "address", "QQ", 0x2000, 2),
    reply(DmaWritten, DmaWrite(0x1000, b"ab"), "count", "QQ", 0x1000, 3),
    reply(DmaWritten, DmaWrite(0x1000, b"ab"), "count", "QI", 0x1000, 3),
    # DEVICE_GET_REGION_INFO: argsz, flags, index, cap_offset, size, offset
    reply(RegionInfo, REGION_2, "payload size", "IIII", 32, 3, 2, 0),
    reply(RegionInfo, GetRegionInfo(2), "payload size", REGION + "Q", 40, 3, 2, 0, 0, 0, 0),
    reply(RegionInfo, REGION_2, "argsz", REGION, 31, 3, 2, 0, 0, 0),
    reply(RegionInfo, REGION_2, "argsz", REGION + "Q", 32, 3, 2, 0, 0, 0, 0),
    reply(RegionInfo, REGION_2, "index", REGION, 32, 3, 1, 0, 0, 0),
    # and capabilities: id, version, next, …
    reply(RegionInfo, REGION_2, "offset of a capability", REGION, 32, 0xB, 2, 32, 0, 0),
    reply(
        RegionInfo,
        REGION_2,
        "offset of a capability",
        REGION + "HHI",
        40,
        0xB,
        2,
        31,
        0,
        0,
        2,
        1,
        0,
    ),
    reply(
        RegionInfo,
        REGION_2,
        "offset of a capability",
        REGION + "HHI",
        40,
        0xB,
        2,
        33,
        0,
        0,
        2,
        1,
        0,
    ),
    reply(
        RegionInfo, REGION_2, "offset of a capability", REGION + "HHI", 40, 8, 2, 32, 0, 0, 9, 1, 99
    ),
    reply(
        RegionInfo, REGION_2, "number of capabilities", REGION + "HHI", 40, 8, 2, 32, 0, 0, 9, 1, 32
    ),
    reply(RegionInfo, REGION_2, "payload size", REGION + "HHI", 40, 8, 2, 32, 0, 0, 2, 1, 0),
    reply(RegionInfo, REGION_2, "nr_areas", REGION + "HHIII", 48, 8, 2, 32, 0, 0, 1, 1, 0, 1, 0),
    reply(
        RegionInfo,
        REGION_2,
        "nr_areas",
        REGION + "HHIIIQQ",
        64,
        *(8, 2, 32, 0x1000, 0, 1, 1, 0, 0xFFFF_FFFF, 0, 0, 0),
    ),
    reply(
        RegionInfo,
        REGION_2,
        "area",
        REGION + "HHIIIQQ",
        64,
        *(8, 2, 32, 0x1000, 0, 1, 1, 0, 1, 0, 0x800, 0x801),
    ),
    reply(
        RegionInfo,
        REGION_2,
        "area",
        REGION + "HHIIIQQ",
        64,
        *(8, 2, 32, 0x1000, 0, 1, 1, 0, 1, 0, 0x800, 0),
    ),
    # DEVICE_GET_REGION_IO_FDS: argsz, flags, index, count, sub-regions
    reply(RegionIoFds, FDS_2, "payload size", "III", 16, 0, 2),
    reply(RegionIoFds, FDS_2, "flags", INFO, 16, 1, 2, 0),
    reply(RegionIoFds, FDS_2, "index", INFO, 16, 0, 1, 0),
    reply(RegionIoFds, FDS_2, "argsz", INFO, 56, 0, 2, 1),
    reply(RegionIoFds, FDS_2, "argsz", INFO, 12, 0, 2, 0),
    reply(RegionIoFds, GetRegionIoFds(2, argsz=56), "argsz", INFO, 56, 0, 2, 1),
    reply(RegionIoFds, FDS_2, "sub-regions", INFO, 16, 0, 2, 1),
    reply(RegionIoFds, FDS_2, "sub-regions", INFO, 16, 0, 2, 0xFFFF_FFFF),
    reply(RegionIoFds, FDS_2, "sub-regions", INFO + "Q", 24, 0, 2, 0, 0),
    reply(RegionIoFds, FDS_2, "sub-regions", INFO + "QQI", 36, 0, 2, 1, 0, 0, 0),
    reply(RegionIoFds, FDS_2, "type", INFO + SUB, 56, 0, 2, 1, 0, 4, 0, 2, 0, 0, 0),
    reply(RegionIoFds, FDS_2, "type", INFO + SUB, 56, 0, 2, 1, 0, 4, 0, 3, 0, 0, 0),
    reply(RegionIoFds, FDS_2, "type", INFO + LONG_SUB, 64, 0, 2, 1, 0, 4, 0, 3, 0, 0, 0, 0),
    reply(RegionIoFds, FDS_2, "offset + size", INFO + SUB, 56, 0, 2, 1, TOP, 4, 0, 0, 0, 0, 0),
]


@pytest.mark.parametrize("bad", REQUESTS, ids=str)
def test_a_malformed_request_is_refused_with_the_name_of_its_field(bad: Bad) -> None:
    with pytest.raises(MalformedMessage) as refused:
        bad.kind.decode(bad.payload)
    assert refused.value.metadata["field"] == bad.field
    assert refused.value.metadata["message"] == bad.kind.COMMAND.name
    assert refused.value.errno == bad.errno


@pytest.mark.parametrize("bad", REPLIES, ids=str)
def test_a_malformed_reply_is_refused_with_the_name_of_its_field(bad: Bad) -> None:
    with pytest.raises(MalformedMessage) as refused:
        bad.kind.decode(bad.payload, bad.request)
    assert refused.value.metadata["field"] == bad.field
    assert refused.value.metadata["message"] == bad.kind.NAME


def test_there_is_a_malformed_form_of_each_payload() -> None:
    kinds = {bad.kind.__name__ for bad in REQUESTS + REPLIES}
    payloads = RequestPayload.__subclasses__() + ReplyPayload.__subclasses__()
    assert {kind.__name__ for kind in payloads} - kinds == {"Version"}, "it has its own tests"


# File descriptors are counted against what the message says.

MAPPED_BY_FD = DmaFlags.READ | DmaFlags.MMAP
EVENTFDS = SetIrqs(2, 0, 3, IrqAction.TRIGGER, IrqData.EVENTFD)
MMAP = RegionInfo(0x1000, RegionFlags.READ | RegionFlags.MMAP)
FILE_TOO_LONG = DmaMap(0, 0x1000, DmaFlags.READ, offset=(1 << 63) - 0x1000)
SHADOW = RegionIoFds((ShadowIoEventFd(0, 4, 0, shadow_fd_index=2, shadow_offset=0),))


@pytest.mark.parametrize(
    ("payload", "count"),
    [
        (GetDeviceInfo(), 0),
        (DmaMap(0, 0x1000, DmaFlags.READ), 0),
        (DmaMap(0, 0x1000, DmaFlags.READ), 1),
        (DmaMap(0, 0x1000, MAPPED_BY_FD), 1),
        (FILE_TOO_LONG, 0),
        (EVENTFDS, 0),
        (EVENTFDS, 3),
        (MMAP, 0),
        (MMAP, 1),
        (RegionIoFds((IoEventFd(0, 4, 0), IoEventFd(4, 4, 0))), 1),
        (RegionIoFds((IoRegionFd(0, 4, 1),)), 2),
        (SHADOW, 3),
    ],
    ids=repr,
)
def test_the_right_number_of_fds_is_taken(
    payload: RequestPayload | ReplyPayload[Any], count: int
) -> None:
    payload.check_fds(count)


@pytest.mark.parametrize(
    ("payload", "count", "field"),
    [
        (GetDeviceInfo(), 1, "number of fds"),
        (RegionRead(0, 0, 4), 1, "number of fds"),
        (DmaUnmap(0, 0x1000), 1, "number of fds"),
        (DmaMap(0, 0x1000, DmaFlags.READ), 2, "number of fds"),
        (DmaMap(0, 0x1000, MAPPED_BY_FD), 0, "number of fds"),
        (DmaMap(0, 0x1000, DmaFlags.READ | DmaFlags.FILE_IO), 0, "number of fds"),
        (FILE_TOO_LONG, 1, "offset + size"),
        (EVENTFDS, 1, "number of fds"),
        (EVENTFDS, 4, "number of fds"),
        (SetIrqs(2, 0, 1, IrqAction.TRIGGER, IrqData.NONE), 1, "number of fds"),
        (SetIrqs(2, 0, 1, IrqAction.TRIGGER, IrqData.BOOL, b"\1"), 1, "number of fds"),
        (Done(), 1, "number of fds"),
        (MMAP, 2, "number of fds"),
        (RegionInfo(0x1000, RegionFlags.READ), 1, "number of fds"),
        (RegionIoFds((IoEventFd(0, 4, 0),)), 0, "index of an fd"),
        (RegionIoFds((IoEventFd(0, 4, 1),)), 1, "index of an fd"),
        (RegionIoFds((IoRegionFd(0, 4, 1),)), 1, "index of an fd"),
        (SHADOW, 2, "index of an fd"),
    ],
    ids=repr,
)
def test_a_wrong_number_of_fds_is_refused(
    payload: RequestPayload | ReplyPayload[Any], count: int, field: str
) -> None:
    with pytest.raises(MalformedMessage) as refused:
        payload.check_fds(count)
    assert refused.value.metadata["field"] == field


# What is allowed, though it looks strange.


def test_a_request_may_have_room_for_a_longer_reply_than_there_is() -> None:
    payload = memoryview(struct.pack("<IIII", 0x1000, 0, 0, 0))
    assert GetDeviceInfo.decode(payload) == GetDeviceInfo(argsz=0x1000)
    assert DmaUnmap.decode(memoryview(struct.pack("<IIQQ", 0x1000, 0, 0, 1))) == DmaUnmap(0, 1)


def test_a_span_may_end_at_the_very_end_of_64_bits() -> None:
    payload = memoryview(struct.pack("<QII", TOP, 0, 1))
    assert RegionRead.decode(payload) == RegionRead(0, TOP, 1)
    whole = DmaMap.decode(memoryview(struct.pack("<IIQQQ", 32, 1, 0, 1, TOP)))
    assert whole == DmaMap(1, TOP, DmaFlags.READ)
    fds = RegionIoFds((IoEventFd(TOP, 1, 0),))
    assert RegionIoFds.decode(memoryview(fds.encode(FDS_2)), FDS_2) == fds


def test_the_last_subindex_is_the_last_of_32_bits() -> None:
    payload = struct.pack("<IIIII", 20, 0x21, 0, 0xFFFF_FFFF, 1)
    assert SetIrqs.decode(memoryview(payload)).start == 0xFFFF_FFFF


@pytest.mark.parametrize(
    "payload", [b"", struct.pack("<QI", 0x1000, 2), struct.pack("<QQ", 0x1000, 2)], ids=len
)
def test_the_reply_to_a_dma_write_is_understood_in_each_form_that_peers_send(
    payload: bytes,
) -> None:
    request = DmaWrite(0x1000, b"ab")
    assert DmaWritten.decode(memoryview(payload), request) == DmaWritten(2)


def test_a_read_may_come_back_short() -> None:
    payload = struct.pack("<QII3s", 0x100, 1, 3, b"abc")
    assert RegionData.decode(memoryview(payload), READ) == RegionData(b"abc")
    payload = struct.pack("<QQ1s", 0x1000, 1, b"a")
    assert DmaData.decode(memoryview(payload), DmaRead(0x1000, 4)) == DmaData(b"a")


def test_capabilities_that_do_not_fit_are_left_out_and_asked_for_again() -> None:
    info = RegionInfo(0x4000, RegionFlags.MMAP, capabilities=(SparseMmap(()),))
    first = GetRegionInfo(2, argsz=32)
    answered = RegionInfo.decode(memoryview(info.encode(first)), first)
    assert answered == RegionInfo(0x4000, RegionFlags.MMAP, needs_argsz=48)
    again = GetRegionInfo(2, argsz=answered.needs_argsz)
    assert RegionInfo.decode(memoryview(info.encode(again)), again) == info


def test_sub_regions_that_do_not_fit_are_left_out_and_asked_for_again() -> None:
    fds = RegionIoFds((IoEventFd(0, 4, 0),))
    first = GetRegionIoFds(2, argsz=16)
    answered = RegionIoFds.decode(memoryview(fds.encode(first)), first)
    assert answered == RegionIoFds(needs_argsz=56)
    again = GetRegionIoFds(2, argsz=answered.needs_argsz)
    assert RegionIoFds.decode(memoryview(fds.encode(again)), again) == fds


def test_a_truncated_reply_of_libvfio_user_is_understood() -> None:
    # It fills the reply up to argsz with zeros, where ours has the fixed part alone.
    payload = struct.pack("<IIIIQQQ", 96, 7, 2, 0, 0x4000, 0, 0)
    answered = RegionInfo.decode(memoryview(payload), GetRegionInfo(2, argsz=40))
    assert answered.needs_argsz == 96


def test_capabilities_without_the_flag_are_not_there() -> None:
    payload = struct.pack("<IIIIQQ HHIII", 48, 1, 2, 32, 0x1000, 0, 2, 1, 0, 7, 7)
    assert RegionInfo.decode(memoryview(payload), REGION_2) == RegionInfo(0x1000, RegionFlags.READ)


@pytest.mark.parametrize("number", [1, 3, 64])
def test_a_chain_of_capabilities_comes_out_as_it_was_put_in(number: int) -> None:
    chain = tuple(RegionType(at, 100 + at) for at in range(number))
    info = RegionInfo(0x1000, RegionFlags.READ, capabilities=chain)
    assert RegionInfo.decode(memoryview(info.encode(REGION_2)), REGION_2) == info


def test_a_chain_of_too_many_capabilities_is_refused() -> None:
    chain = (RegionType(0, 0),) * 65
    payload = RegionInfo(0x1000, RegionFlags.READ, capabilities=chain).encode(REGION_2)
    with pytest.raises(MalformedMessage, match="number of capabilities"):
        RegionInfo.decode(memoryview(payload), REGION_2)


def test_an_area_may_end_where_its_region_does() -> None:
    whole = RegionInfo(0x1000, RegionFlags.MMAP, 0, (SparseMmap((MmapArea(0x400, 0xC00),)),))
    decoded = RegionInfo.decode(memoryview(whole.encode(REGION_2)), REGION_2)
    assert decoded == whole
    assert decoded.needs_argsz == 0


@pytest.mark.parametrize("flags", [1, 2, 3, 5, 6, 7, 9, 10, 11])
def test_a_mapping_has_one_way_of_access_or_leaves_it_open(flags: int) -> None:
    payload = struct.pack("<IIQQQ", 32, flags, 0, 0, 0x1000)
    assert DmaMap.decode(memoryview(payload)).flags == flags


def test_a_capability_that_is_not_known_is_passed_over() -> None:
    payload = struct.pack(
        "<IIIIQQ HHI HHI HHIII", 64, 8, 2, 40, 0x1000, 0, 3, 1, 48, 1, 9, 32, 2, 1, 0, 0xAB, 1
    )
    info = RegionInfo.decode(memoryview(payload), REGION_2)
    assert [repr(capability) for capability in info.capabilities] == [
        "RegionType(type=171, subtype=1)"
    ]


def test_flags_have_the_values_of_linux() -> None:
    assert [flag.value for flag in DeviceFlags] == [1, 2, 4]
    assert [flag.value for flag in RegionFlags] == [1, 2, 4]
    assert [flag.value for flag in IrqFlags] == [1, 2, 4, 8]
    assert [flag.value for flag in DmaFlags] == [1, 2, 4, 8]
    assert [flag.value for flag in IoEventFdFlags] == [1, 2, 8]
    assert [flag.value for flag in IoRegionFdFlags] == [1, 2]


def test_flags_of_an_answer_that_are_not_known_are_kept() -> None:
    payload = memoryview(struct.pack("<IIII", 16, 0x83, 9, 5))
    assert DeviceInfo.decode(payload, GetDeviceInfo()).flags == 0x83
