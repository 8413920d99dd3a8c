"""Each message's bytes, written down by hand from the tables of the specification."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pytest

from devicehost.vfio_user import (
    Capabilities,
    ClientSession,
    Command,
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
    Request,
    RequestPayload,
    ServerSession,
    SetIrqs,
    ShadowIoEventFd,
    SparseMmap,
    Version,
)
from devicehost.vfio_user.header import Header
from devicehost.vfio_user.messages import EXCHANGES


def wire(text: str) -> memoryview:
    """Bytes in hex, one field a line, with its name behind a #."""
    return memoryview(bytes.fromhex("".join(line.partition("#")[0] for line in text.splitlines())))


@dataclass
class Golden:
    """A payload and its bytes. A reply stands with its request."""

    value: Any
    text: str
    request: Any = None

    def __str__(self) -> str:
        return type(self.value).__name__


REQUESTS = [
    Golden(
        Version(0, 1, Capabilities(max_msg_fds=2, write_multiple=True)),
        """
        0000                                     # major
        0100                                     # minor
        7b22 6361 7061 6269 6c69 7469 6573 223a  # {"capabilities":
        7b22 6d61 785f 6d73 675f 6664 7322 3a32  # {"max_msg_fds":2
        2c22 7772 6974 655f 6d75 6c74 6970 6c65  # ,"write_multiple
        223a 7472 7565 7d7d 00                   # ":true}} and a NUL
        """,
    ),
    Golden(
        DmaMap(0x1_0000_0000, 0x20_0000, DmaFlags.READ | DmaFlags.WRITE, offset=0x1000),
        """
        20000000          # argsz: 32
        03000000          # flags: readable, writeable
        0010000000000000  # offset
        0000000001000000  # address
        0000200000000000  # size
        """,
    ),
    Golden(
        DmaMap(0x4000, 0x1000, DmaFlags.READ | DmaFlags.FILE_IO),
        """
        20000000          # argsz: 32
        09000000          # flags: readable, file I/O
        0000000000000000  # offset
        0040000000000000  # address
        0010000000000000  # size
        """,
    ),
    Golden(
        DmaUnmap(0x1_0000_0000, 0x20_0000),
        """
        18000000          # argsz: 24
        00000000          # flags
        0000000001000000  # address
        0000200000000000  # size
        """,
    ),
    Golden(
        DmaUnmap(0, 0, everything=True),
        """
        18000000          # argsz: 24
        02000000          # flags: all
        0000000000000000  # address
        0000000000000000  # size
        """,
    ),
    Golden(
        GetDeviceInfo(),
        """
        10000000  # argsz: 16
        00000000  # flags
        00000000  # num_regions
        00000000  # num_irqs
        """,
    ),
    Golden(
        GetRegionInfo(7, argsz=0x100),
        """
        00010000          # argsz
        00000000          # flags
        07000000          # index
        00000000          # cap_offset
        0000000000000000  # size
        0000000000000000  # offset
        """,
    ),
    Golden(
        GetRegionIoFds(2, argsz=0x1000),
        """
        00100000  # argsz
        00000000  # flags
        02000000  # index
        00000000  # count
        """,
    ),
    Golden(
        GetIrqInfo(2),
        """
        10000000  # argsz: 16
        00000000  # flags
        02000000  # index
        00000000  # count
        """,
    ),
    Golden(
        SetIrqs(2, start=3, count=4, action=IrqAction.TRIGGER, data=IrqData.EVENTFD),
        """
        14000000  # argsz: 20
        24000000  # flags: DATA_EVENTFD, ACTION_TRIGGER
        02000000  # index
        03000000  # start
        04000000  # count
        """,
    ),
    Golden(
        SetIrqs(0, 0, 3, IrqAction.MASK, IrqData.BOOL, bools=b"\1\0\1"),
        """
        17000000  # argsz: 23
        0a000000  # flags: DATA_BOOL, ACTION_MASK
        00000000  # index
        00000000  # start
        03000000  # count
        010001    # data
        """,
    ),
    Golden(
        SetIrqs(1, 0, 0, IrqAction.TRIGGER, IrqData.NONE),
        """
        14000000  # argsz: 20
        21000000  # flags: DATA_NONE, ACTION_TRIGGER
        01000000  # index
        00000000  # start
        00000000  # count
        """,
    ),
    Golden(
        SetIrqs(0, 0, 1, IrqAction.UNMASK, IrqData.NONE),
        """
        14000000  # argsz: 20
        11000000  # flags: DATA_NONE, ACTION_UNMASK
        00000000  # index
        00000000  # start
        01000000  # count
        """,
    ),
    Golden(
        RegionRead(region=1, offset=0xFE00_0000_1234, count=4),
        """
        34120000 00fe0000  # offset
        01000000           # region
        04000000           # count
        """,
    ),
    Golden(
        RegionWrite(region=1, offset=0x3F8, data=b"\x41\x42"),
        """
        f803000000000000  # offset
        01000000          # region
        02000000          # count
        4142              # data
        """,
    ),
    Golden(
        RegionWriteMulti((RegionWrite(0, 0x70, b"\x8f"), RegionWrite(1, 0x1000, bytes(range(8))))),
        """
        0200000000000000  # wr_cnt
        7000000000000000  # offset
        00000000          # region
        01000000          # count
        8f00000000000000  # data
        0010000000000000  # offset
        01000000          # region
        08000000          # count
        0001020304050607  # data
        """,
    ),
    Golden(
        DmaRead(0x8000_0000, count=0x100),
        """
        0000008000000000  # address
        0001000000000000  # count
        """,
    ),
    Golden(
        DmaWrite(0x8000_0000, b"abc"),
        """
        0000008000000000  # address
        0300000000000000  # count
        616263            # data
        """,
    ),
    Golden(DeviceReset(), ""),
]

REPLIES = [
    Golden(Done(), "", DeviceReset()),
    Golden(
        DmaUnmapped(),
        """
        18000000          # argsz: 24
        00000000          # flags
        0000000001000000  # address
        0000200000000000  # size
        """,
        DmaUnmap(0x1_0000_0000, 0x20_0000),
    ),
    Golden(
        DeviceInfo(DeviceFlags.RESET | DeviceFlags.PCI, num_regions=9, num_irqs=5),
        """
        10000000  # argsz: 16
        03000000  # flags: reset, PCI
        09000000  # num_regions
        05000000  # num_irqs
        """,
        GetDeviceInfo(),
    ),
    Golden(
        RegionInfo(0x1000, RegionFlags.READ | RegionFlags.WRITE),
        """
        20000000          # argsz: 32
        03000000          # flags: read, write
        07000000          # index
        00000000          # cap_offset
        0010000000000000  # size
        0000000000000000  # offset
        """,
        GetRegionInfo(7),
    ),
    Golden(
        RegionInfo(
            0x4000,
            RegionFlags.READ | RegionFlags.WRITE | RegionFlags.MMAP,
            offset=0x1_0000,
            capabilities=(
                SparseMmap((MmapArea(0x1000, 0x1000), MmapArea(0x3000, 0x800))),
                RegionType(0x8000_1234, 5),
            ),
        ),
        """
        60000000          # argsz: 96
        0f000000          # flags: read, write, mmap, capabilities
        02000000          # index
        20000000          # cap_offset: 32
        0040000000000000  # size
        0000010000000000  # offset
                          # at 32:
        0100              # id: sparse mmap
        0100              # version
        50000000          # next: 80
        02000000          # nr_areas
        00000000          # reserved
        0010000000000000  # offset
        0010000000000000  # size
        0030000000000000  # offset
        0008000000000000  # size
                          # at 80:
        0200              # id: type
        0100              # version
        00000000          # next: none
        34120080          # type
        05000000          # subtype
        """,
        GetRegionInfo(2, argsz=96),
    ),
    Golden(
        RegionIoFds(
            (
                IoEventFd(0x10, 4, 0, IoEventFdFlags.DATAMATCH | IoEventFdFlags.PIO, 0x55),
                IoRegionFd(0x100, 0x20, 1, IoRegionFdFlags.POSTED_WRITES, 0x1122334455667788),
            )
        ),
        """
        60000000          # argsz: 96
        00000000          # flags
        02000000          # index
        02000000          # count
        1000000000000000  # offset
        0400000000000000  # size
        00000000          # fd_index
        00000000          # type: ioeventfd
        03000000          # flags: datamatch, PIO
        00000000          # padding
        5500000000000000  # datamatch
        0001000000000000  # offset
        2000000000000000  # size
        01000000          # fd_index
        01000000          # type: ioregionfd
        02000000          # flags: posted writes
        00000000          # padding
        8877665544332211  # user_data
        """,
        GetRegionIoFds(2, argsz=96),
    ),
    Golden(
        RegionIoFds(
            (
                ShadowIoEventFd(0x1000, 8, 0, shadow_fd_index=2, shadow_offset=0x40),
                IoEventFd(0x2000, 4, 1, IoEventFdFlags.DATAMATCH, datamatch=7),
                IoRegionFd(0x3000, 4, 1, user_data=9),
            )
        ),
        """
        a0000000          # argsz: 160
        00000000          # flags
        00000000          # index
        03000000          # count
        0010000000000000  # offset
        0800000000000000  # size
        00000000          # fd_index
        02000000          # type: shadow ioeventfd
        00000000          # flags
        02000000          # shadow_mem_fd_index
        4000000000000000  # shadow_offset
        0000000000000000  # datamatch
        0020000000000000  # offset
        0400000000000000  # size
        01000000          # fd_index
        00000000          # type: ioeventfd
        01000000          # flags: datamatch
        00000000          # shadow_mem_fd_index
        0000000000000000  # shadow_offset
        0700000000000000  # datamatch
        0030000000000000  # offset
        0400000000000000  # size
        01000000          # fd_index
        01000000          # type: ioregionfd
        00000000          # flags
        00000000          # padding
        0900000000000000  # user_data
        0000000000000000  # the rest of the longer form
        """,
        GetRegionIoFds(0, argsz=0x1000),
    ),
    Golden(
        IrqInfo(IrqFlags.EVENTFD | IrqFlags.MASKABLE, count=24),
        """
        10000000  # argsz: 16
        03000000  # flags: eventfd, maskable
        02000000  # index
        18000000  # count
        """,
        GetIrqInfo(2),
    ),
    Golden(
        RegionData(b"\x78\x56\x34\x12"),
        """
        34120000 00fe0000  # offset
        01000000           # region
        04000000           # count
        78563412           # data
        """,
        RegionRead(1, 0xFE00_0000_1234, 4),
    ),
    Golden(
        RegionWritten(2),
        """
        f803000000000000  # offset
        01000000          # region
        02000000          # count
        """,
        RegionWrite(1, 0x3F8, b"AB"),
    ),
    Golden(
        RegionWritesDone(1),
        "0100000000000000  # wr_cnt",
        RegionWriteMulti((RegionWrite(0, 0, b"a"), RegionWrite(0, 1, b"b"))),
    ),
    Golden(
        DmaData(b"abc"),
        """
        0000008000000000  # address
        0300000000000000  # count
        616263            # data
        """,
        DmaRead(0x8000_0000, 3),
    ),
    Golden(
        DmaWritten(3),
        """
        0000008000000000  # address
        0300000000000000  # count
        """,
        DmaWrite(0x8000_0000, b"abc"),
    ),
]


@pytest.mark.parametrize("golden", REQUESTS, ids=str)
def test_a_request_is_encoded_to_the_bytes_of_the_specification(golden: Golden) -> None:
    assert golden.value.encode() == bytes(wire(golden.text))


@pytest.mark.parametrize("golden", REQUESTS, ids=str)
def test_a_request_is_decoded_from_the_bytes_of_the_specification(golden: Golden) -> None:
    assert type(golden.value).decode(wire(golden.text)) == golden.value


@pytest.mark.parametrize("golden", REPLIES, ids=str)
def test_a_reply_is_encoded_to_the_bytes_of_the_specification(golden: Golden) -> None:
    assert golden.value.encode(golden.request) == bytes(wire(golden.text))


@pytest.mark.parametrize("golden", REPLIES, ids=str)
def test_a_reply_is_decoded_from_the_bytes_of_the_specification(golden: Golden) -> None:
    assert type(golden.value).decode(wire(golden.text), golden.request) == golden.value


def test_there_are_bytes_for_each_command_and_each_reply() -> None:
    requests = {type(golden.value) for golden in REQUESTS}
    replies = {type(golden.value) for golden in REPLIES}
    assert requests == {exchange.request for exchange in EXCHANGES.values()} | {Version}
    assert replies == {exchange.reply for exchange in EXCHANGES.values()}


def test_each_kind_of_payload_is_in_the_table() -> None:
    def names(kinds: Iterable[type]) -> set[str]:
        return {kind.__name__ for kind in kinds}

    requests = names(exchange.request for exchange in EXCHANGES.values()) | {"Version"}
    replies = names(exchange.reply for exchange in EXCHANGES.values())
    assert names(RequestPayload.__subclasses__()) == requests
    assert names(ReplyPayload.__subclasses__()) == replies


def test_the_commands_have_the_numbers_of_the_specification() -> None:
    assert [(command.value, command.name) for command in Command] == [
        (1, "VERSION"),
        (2, "DMA_MAP"),
        (3, "DMA_UNMAP"),
        (4, "DEVICE_GET_INFO"),
        (5, "DEVICE_GET_REGION_INFO"),
        (6, "DEVICE_GET_REGION_IO_FDS"),
        (7, "DEVICE_GET_IRQ_INFO"),
        (8, "DEVICE_SET_IRQS"),
        (9, "REGION_READ"),
        (10, "REGION_WRITE"),
        (11, "DMA_READ"),
        (12, "DMA_WRITE"),
        (13, "DEVICE_RESET"),
        (14, "DIRTY_PAGES"),
        (15, "REGION_WRITE_MULTI"),
        (16, "DEVICE_FEATURE"),
        (17, "MIG_DATA_READ"),
        (18, "MIG_DATA_WRITE"),
    ]


# Whole messages, with their headers.


def test_a_read_a_posted_write_and_an_error_have_the_headers_of_the_specification(
    client: ClientSession, server: ServerSession
) -> None:
    read = client.request(RegionRead(1, 0x10, 4))
    assert read.data == wire(
        """
        0100              # message id: 0 was VERSION's
        0900              # command: REGION_READ
        20000000          # size: 32
        00000000          # flags: command
        00000000          # error
        1000000000000000  # offset
        01000000          # region
        04000000          # count
        """
    )
    posted = client.request(RegionWrite(1, 0x10, b"\xaa"), posted=True)
    assert posted.data == wire(
        """
        0200              # message id
        0a00              # command: REGION_WRITE
        21000000          # size: 33
        10000000          # flags: command, No_reply
        00000000          # error
        1000000000000000  # offset
        01000000          # region
        01000000          # count
        aa                # data
        """
    )
    [request] = server.receive_data(read.data)
    assert isinstance(request, Request)
    refused = server.fail(request, 22)
    assert refused is not None
    assert refused.data == wire(
        """
        0100      # message id
        0900      # command: REGION_READ
        10000000  # size: 16, the header alone
        21000000  # flags: reply, Error
        16000000  # error: EINVAL
        """
    )


def test_a_successful_reply_has_the_header_of_the_specification(
    client: ClientSession, server: ServerSession
) -> None:
    [request] = server.receive_data(client.request(DeviceReset()).data)
    assert isinstance(request, Request)
    done = server.reply(request)
    assert done is not None
    assert done.data == wire(
        """
        0100      # message id
        0d00      # command: DEVICE_RESET
        10000000  # size
        01000000  # flags: reply
        00000000  # error
        """
    )


# Whoever debugs reads these.


def test_a_header_prints_itself_well() -> None:
    assert repr(Header(7, 9, 32)) == "<REGION_READ #7: command, 32 bytes>"
    assert repr(Header(7, 10, 36, 0x10)) == "<REGION_WRITE #7: command, 36 bytes, no reply wanted>"
    error = Header(7, 9, 16, 0x21, 22)
    assert repr(error) == "<REGION_READ #7: reply, 16 bytes, error 22 (Invalid argument)>"
    strange = Header(7, 99, 16, 0x62, 0xFFFF_FFFF)
    assert repr(strange) == (
        "<command 99 #7: type 2, 16 bytes, error 4294967295, unknown flags 0x40>"
    )


def test_a_payload_prints_its_addresses_in_hex_and_its_data_cut_short() -> None:
    mapped = DmaMap(0x1_0000_0000, 0x1000, DmaFlags.READ | DmaFlags.WRITE)
    assert repr(mapped) == "DmaMap(address=0x100000000, size=0x1000, flags=READ|WRITE, offset=0x0)"
    write = RegionWrite(1, 0x3F8, bytes(range(100)))
    assert repr(write) == (
        "RegionWrite(region=1, offset=0x3f8, "
        "data=<100 bytes: 00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f…>)"
    )
    irqs = SetIrqs(2, 0, 1, IrqAction.TRIGGER, IrqData.EVENTFD)
    assert repr(irqs) == (
        "SetIrqs(index=2, start=0, count=1, action=TRIGGER, data=EVENTFD, bools=<empty>)"
    )
