"""Malformed vfio-user messages, and a client that sends them byte by byte.

    with Peer(path) as peer:
        answers, goes_on = peer.send_and_see(message(Command.REGION_READ, b"too short"))

`FORMS` has a good message of each command, from which faults of framing are made, and
`ABSURD` what is wrong in a way that only its command has.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import termios
from contextlib import suppress
from dataclasses import dataclass
from errno import EINVAL, ENODEV, ENOSYS, ENOTSUP, ENOTTY
from pathlib import Path
from typing import Final, Self, TypeAlias

from daemonlab import WAIT_S
from devicehost.bus_regions import (
    LIMITS,
    REGION_MMIO,
)
from devicehost.vfio_user import (
    Command,
    DmaFlags,
    DmaMap,
    DmaRead,
    DmaUnmap,
    DmaWrite,
    GetDeviceInfo,
    GetIrqInfo,
    GetRegionInfo,
    GetRegionIoFds,
    Header,
    IrqAction,
    IrqData,
    RegionRead,
    RegionWrite,
    RegionWriteMulti,
    SetIrqs,
)
from devicehost.vfio_user.header import HEADER, HEADER_SIZE, REPLY_TYPE
from devicehost.vfio_user.negotiation import proposal

BASE = 0xD000_0000
"""Where a device has to be, of 4 KiB."""
TOP = (1 << 64) - 1

MESSAGE_ID = 0x1234
MARKER_ID = 0x7777
POSTED, UNKNOWN_FLAG, ERROR_FLAG = 0x10, 0x40, 0x20

FDS_MAX = LIMITS.max_msg_fds
KERNEL_FDS_MAX = 253
"""The most that Linux takes with one message (SCM_MAX_FD)."""

ANY: Final = -1
"""Some error number: which one is for the endpoint to choose."""

Outcome: TypeAlias = tuple[list[tuple[int, int, int]], bool]
"""Answers (message id, command, error number), and whether the connection goes on."""


class Peer:
    """The client's end of a connection, which sends whatever it is told."""

    def __init__(self, path: Path, *, opened: bool = True) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(WAIT_S)
        self.socket.connect(str(path))
        if opened:
            self.send(message(Command.VERSION, proposal(LIMITS).encode()))
            assert self.answer() == (MESSAGE_ID, Command.VERSION, 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes, fds: tuple[int, ...] = ()) -> None:
        """Send bytes, with the descriptors at their front."""
        sent = socket.send_fds(self.socket, [data], fds) if fds else 0
        self.socket.sendall(data[sent:])

    def send_and_see(self, data: bytes, fds: tuple[int, ...] = ()) -> Outcome:
        """Send bytes and a good request; return what comes before the answer to that."""
        with suppress(BrokenPipeError, ConnectionResetError):
            self.send(data, fds)
            self.send(message(Command.DEVICE_GET_INFO, GetDeviceInfo().encode(), id_=MARKER_ID))
        return self.see()

    def see(self) -> Outcome:
        """Return what is answered before the good request is, or before the end."""
        answers: list[tuple[int, int, int]] = []
        while answer := self.answer():
            if answer[0] == MARKER_ID:
                assert answer == (MARKER_ID, Command.DEVICE_GET_INFO, 0)
                return answers, True
            answers.append(answer)
        return answers, False

    def answer(self) -> tuple[int, int, int] | None:
        """Read a reply; return its id, command and error number. None at the end."""
        head = self._read(HEADER_SIZE)
        if len(head) < HEADER_SIZE:
            assert not head, "a reply that is cut short"
            return None
        header = Header.decode(head)
        assert header.type == REPLY_TYPE
        assert len(self._read(header.size - HEADER_SIZE)) == header.size - HEADER_SIZE
        return header.message_id, header.command, header.error

    def is_taken(self) -> bool:
        """Whether the server has read all that was sent."""
        unread = fcntl.ioctl(self.socket, termios.TIOCOUTQ, bytes(4))
        return not int.from_bytes(unread, "little")

    def _read(self, size: int) -> bytes:
        data = b""
        with suppress(ConnectionResetError):
            while len(data) < size:
                piece, fds, _, _ = socket.recv_fds(self.socket, size - len(data), FDS_MAX)
                for fd in fds:
                    os.close(fd)
                if not piece:
                    break
                data += piece
        return data


def message(
    command: int,
    payload: bytes = b"",
    *,
    flags: int = 0,
    size: int | None = None,
    id_: int | None = None,
) -> bytes:
    """A message; its header may say another size."""
    length = HEADER_SIZE + len(payload) if size is None else size
    return HEADER.pack(MESSAGE_ID if id_ is None else id_, command, length, flags, 0) + payload


@dataclass(frozen=True)
class Form:
    """A message of one command.

    Attributes:
        payload: what is behind the header.
        fds: the kinds of descriptors that go with it.
        errno: what it is answered with; 0 if it is carried out.
    """

    command: int
    payload: bytes
    fds: tuple[str, ...] = ()
    errno: int = 0


_EVENTFDS = SetIrqs(0, 4, 2, IrqAction.TRIGGER, IrqData.EVENTFD)
_WRITE = RegionWrite(REGION_MMIO, BASE, b"abcd")

FORMS: Final = {
    form.command: form
    for form in (
        Form(Command.VERSION, proposal(LIMITS).encode(), errno=EINVAL),  # sent twice
        Form(
            Command.DMA_MAP,
            DmaMap(0x10_0000, 0x2000, DmaFlags.READ | DmaFlags.WRITE | DmaFlags.MMAP).encode(),
            ("memory",),
        ),
        Form(Command.DMA_UNMAP, DmaUnmap(0, 0, everything=True).encode()),
        Form(Command.DEVICE_GET_INFO, GetDeviceInfo().encode()),
        Form(Command.DEVICE_GET_REGION_INFO, GetRegionInfo(2).encode()),
        Form(Command.DEVICE_GET_REGION_IO_FDS, GetRegionIoFds(2, 4096).encode()),
        Form(Command.DEVICE_GET_IRQ_INFO, GetIrqInfo(0).encode()),
        Form(Command.DEVICE_SET_IRQS, _EVENTFDS.encode(), ("eventfd", "eventfd")),
        Form(Command.REGION_READ, RegionRead(REGION_MMIO, BASE, 4).encode()),
        Form(Command.REGION_WRITE, _WRITE.encode()),
        Form(Command.DMA_READ, DmaRead(0, 4).encode(), errno=ENOSYS),  # the server's
        Form(Command.DMA_WRITE, DmaWrite(0, b"abcd").encode(), errno=ENOSYS),
        Form(Command.DEVICE_RESET, b""),
        Form(Command.DIRTY_PAGES, bytes(16), errno=ENOTSUP),
        Form(Command.REGION_WRITE_MULTI, RegionWriteMulti((_WRITE, _WRITE)).encode()),
        Form(Command.DEVICE_FEATURE, bytes(8), errno=ENOTTY),
        Form(Command.MIG_DATA_READ, bytes(8), errno=ENOTSUP),
        Form(Command.MIG_DATA_WRITE, bytes(9), errno=ENOTSUP),
        *(Form(unknown, b"what", errno=ENOSYS) for unknown in (0, max(Command) + 1, 0xFFFF)),
    )
}
"""A good message of each command, as far as there is one."""


def name(command: int) -> str:
    """The name of a command, for the id of a test."""
    return Command(command).name if command in list(Command) else f"unknown-{command}"


def absurd(
    command: Command,
    what: str,
    layout: str,
    *values: int | bytes,
    fds: str = "",
    errno: int = EINVAL,
) -> Form:
    """A payload that can't be carried out; the descriptors' kinds are divided by commas."""
    kinds = tuple(kind.strip() for kind in fds.split(",") if kind)
    return Absurd(command, struct.pack(f"<{layout}", *values), kinds, errno, what)


@dataclass(frozen=True)
class Absurd(Form):
    """A form with a name."""

    what: str = ""

    def __str__(self) -> str:
        return f"{name(self.command)}-{self.what.replace(' ', '-')}"


MAP, UNMAP, INFO, REGION, SET = "IIQQQ", "IIQQ", "IIII", "IIIIQQ", "IIIII"
AT = 0x10_0000

ABSURD: Final = (
    # argsz, flags, offset, address, size
    absurd(Command.DMA_MAP, "argsz 0", MAP, 0, 3, 0, AT, 0x1000),
    absurd(Command.DMA_MAP, "no access", MAP, 32, 0, 0, AT, 0x1000),
    absurd(Command.DMA_MAP, "all flags", MAP, 32, 0xFFFF_FFFF, 0, AT, 0x1000),
    absurd(Command.DMA_MAP, "two ways", MAP, 32, 0xF, 0, AT, 0x1000, fds="memory"),
    absurd(Command.DMA_MAP, "size 0", MAP, 32, 3, 0, AT, 0),
    absurd(Command.DMA_MAP, "past 64 bits", MAP, 32, 3, 0, TOP, 2),
    absurd(Command.DMA_MAP, "nearly all", MAP, 32, 3, 0, 1, TOP, errno=ANY),
    absurd(Command.DMA_MAP, "half a page", MAP, 32, 3, 0, AT, 0x800, errno=ANY),
    absurd(Command.DMA_MAP, "off a page", MAP, 32, 3, 0, AT + 1, 0x1000, errno=ANY),
    absurd(Command.DMA_MAP, "past the file", MAP, 32, 7, 0, AT, 0x5000, fds="memory", errno=ANY),
    absurd(Command.DMA_MAP, "offset in a page", MAP, 32, 7, 1, AT, 0x1000, fds="memory", errno=ANY),
    absurd(
        Command.DMA_MAP,
        "offset past the file",
        MAP,
        32,
        7,
        1 << 40,
        AT,
        0x1000,
        fds="memory",
        errno=ANY,
    ),
    absurd(Command.DMA_MAP, "offset of 2**63", MAP, 32, 7, 1 << 63, AT, 0x1000, fds="memory"),
    absurd(
        Command.DMA_MAP, "an exabyte", MAP, 32, 7, 0, AT & ~0xFFF, 1 << 60, fds="memory", errno=ANY
    ),
    *(
        absurd(Command.DMA_MAP, f"of a {kind}", MAP, 32, 7, 0, AT, 0x1000, fds=kind, errno=ANY)
        for kind in ("eventfd", "path", "folder", "device", "socket", "pipe", "read-only memory")
    ),
    absurd(Command.DMA_MAP, "two files", MAP, 32, 7, 0, AT, 0x1000, fds="memory,memory"),
    # argsz, flags, address, size
    absurd(Command.DMA_UNMAP, "argsz 0", UNMAP, 0, 0, AT, 0x1000),
    absurd(Command.DMA_UNMAP, "size 0", UNMAP, 24, 0, AT, 0),
    absurd(Command.DMA_UNMAP, "past 64 bits", UNMAP, 24, 0, TOP, 2),
    absurd(Command.DMA_UNMAP, "all of something", UNMAP, 24, 2, AT, 0x1000),
    absurd(Command.DMA_UNMAP, "with dirty pages", UNMAP, 24, 1, AT, 0x1000, errno=ENOTSUP),
    absurd(Command.DMA_UNMAP, "of what is not mapped", UNMAP, 24, 0, AT, 0x1000, errno=ANY),
    # argsz, flags, num_regions, num_irqs
    absurd(Command.DEVICE_GET_INFO, "argsz 0", INFO, 0, 0, 0, 0),
    absurd(Command.DEVICE_GET_INFO, "flags", INFO, 16, 0xFFFF_FFFF, 0, 0),
    absurd(Command.DEVICE_GET_INFO, "counts", INFO, 16, 0, 1, 1),
    # argsz, flags, index, cap_offset, size, offset
    absurd(Command.DEVICE_GET_REGION_INFO, "argsz 0", REGION, 0, 0, 1, 0, 0, 0),
    absurd(Command.DEVICE_GET_REGION_INFO, "no such region", REGION, 32, 0, 4, 0, 0, 0),
    absurd(Command.DEVICE_GET_REGION_INFO, "last index", REGION, 32, 0, 0xFFFF_FFFF, 0, 0, 0),
    absurd(Command.DEVICE_GET_REGION_INFO, "a size", REGION, 32, 0, 1, 0, TOP, 0),
    # argsz, flags, index, count
    absurd(Command.DEVICE_GET_REGION_IO_FDS, "argsz 0", INFO, 0, 0, 2, 0),
    absurd(Command.DEVICE_GET_REGION_IO_FDS, "flags", INFO, 16, 1, 2, 0),
    absurd(Command.DEVICE_GET_REGION_IO_FDS, "a count", INFO, 16, 0, 2, 0xFFFF_FFFF),
    absurd(Command.DEVICE_GET_IRQ_INFO, "argsz 0", INFO, 0, 0, 0, 0),
    absurd(Command.DEVICE_GET_IRQ_INFO, "no such index", INFO, 16, 0, 1, 0),
    absurd(Command.DEVICE_GET_IRQ_INFO, "last index", INFO, 16, 0, 0xFFFF_FFFF, 0),
    # argsz, flags (0x20 trigger, 0x10 unmask, 8 mask; 4 eventfd, 2 bool, 1 none), index,
    # start, count, data
    absurd(Command.DEVICE_SET_IRQS, "argsz 0", SET, 0, 0x21, 0, 0, 1),
    absurd(Command.DEVICE_SET_IRQS, "no flags", SET, 20, 0, 0, 0, 1),
    absurd(Command.DEVICE_SET_IRQS, "all flags", SET, 20, 0xFFFF_FFFF, 0, 0, 1),
    absurd(Command.DEVICE_SET_IRQS, "masking", SET, 20, 0x09, 0, 0, 1),
    absurd(Command.DEVICE_SET_IRQS, "no such index", SET, 20, 0x21, 1, 0, 1),
    absurd(Command.DEVICE_SET_IRQS, "start past the last", SET, 20, 0x21, 0, 1024, 1),
    absurd(Command.DEVICE_SET_IRQS, "4 billion of them", SET, 20, 0x21, 0, 0, 0xFFFF_FFFF),
    absurd(Command.DEVICE_SET_IRQS, "past 32 bits", SET, 20, 0x21, 0, 0xFFFF_FFFF, 0xFFFF_FFFF),
    absurd(Command.DEVICE_SET_IRQS, "bools that are not there", SET, 20, 0x22, 0, 0, 0xFFFF_FFFF),
    absurd(Command.DEVICE_SET_IRQS, "bools that are none", SET + "2s", 22, 0x22, 0, 0, 2, b"\2\3"),
    absurd(Command.DEVICE_SET_IRQS, "an eventfd too few", SET, 20, 0x24, 0, 0, 2, fds="eventfd"),
    absurd(Command.DEVICE_SET_IRQS, "none of none", SET, 20, 0x24, 0, 0, 0),
    *(
        absurd(Command.DEVICE_SET_IRQS, f"a {kind}", SET, 20, 0x24, 0, 0, 1, fds=kind, errno=ANY)
        for kind in ("memory", "path", "folder", "device", "socket", "pipe", "pipe to write")
    ),
    absurd(
        Command.DEVICE_SET_IRQS, "one of two", SET, 20, 0x24, 0, 0, 2, fds="eventfd,pipe", errno=ANY
    ),
    # offset, region, count
    absurd(Command.REGION_READ, "count 0", "QII", BASE, 1, 0),
    absurd(Command.REGION_READ, "4 GiB", "QII", BASE, 1, 0xFFFF_FFFF),
    absurd(Command.REGION_READ, "more than is taken", "QII", BASE, 1, (1 << 20) + 1),
    absurd(Command.REGION_READ, "all that is taken", "QII", BASE, 1, 1 << 20, errno=ANY),
    absurd(Command.REGION_READ, "past 64 bits", "QII", TOP, 1, 2),
    absurd(Command.REGION_READ, "no device", "QII", 0x10, 1, 4, errno=ENODEV),
    absurd(Command.REGION_READ, "past the device", "QII", BASE + 0xFFE, 1, 4, errno=ANY),
    absurd(Command.REGION_READ, "3 bytes of a port", "QII", 0, 0, 3, errno=ANY),
    absurd(Command.REGION_READ, "port of 17 bits", "QII", 1 << 16, 0, 1, errno=ANY),
    absurd(Command.REGION_READ, "the ring", "QII", 0, 2, 4, errno=ANY),
    absurd(Command.REGION_READ, "half a status", "QII", 0x100, 3, 8, errno=ANY),
    absurd(Command.REGION_READ, "no such region", "QII", 0, 4, 4, errno=ANY),
    absurd(Command.REGION_READ, "last region", "QII", 0, 0xFFFF_FFFF, 4, errno=ANY),
    absurd(Command.REGION_WRITE, "count 0", "QII", BASE, 1, 0),
    absurd(Command.REGION_WRITE, "data that is not there", "QII2s", BASE, 1, 4, b"ab"),
    absurd(Command.REGION_WRITE, "4 GiB that are not there", "QII", BASE, 1, 0xFFFF_FFFF),
    absurd(Command.REGION_WRITE, "more data than it says", "QII4s", BASE, 1, 2, b"abcd"),
    absurd(Command.REGION_WRITE, "past 64 bits", "QII2s", TOP, 1, 2, b"ab"),
    absurd(Command.REGION_WRITE, "no device", "QII4s", 0x10, 1, 4, b"abcd", errno=ENODEV),
    absurd(Command.REGION_WRITE, "3 bytes of a port", "QII3s", 0, 0, 3, b"abc", errno=ANY),
    absurd(Command.REGION_WRITE, "the ring", "QII4s", 0, 2, 4, b"abcd", errno=ANY),
    absurd(Command.REGION_WRITE, "a count of failures", "QIIQ", 0, 3, 8, 1, errno=ANY),
    absurd(Command.REGION_WRITE, "a queue without a ring", "QIIQ", 0x10, 3, 8, 0, errno=ANY),
    absurd(Command.REGION_WRITE, "queue 2**64 - 1", "QIIQ", 0x10, 3, 8, TOP, errno=ANY),
    absurd(Command.REGION_WRITE, "no such region", "QII4s", 0, 4, 4, b"abcd", errno=ANY),
    # number of writes; of each: offset, region, count, data
    absurd(Command.REGION_WRITE_MULTI, "none", "Q", 0),
    absurd(Command.REGION_WRITE_MULTI, "2**64 - 1 of them", "Q", TOP),
    absurd(Command.REGION_WRITE_MULTI, "one that is not there", "QQII8s", 2, BASE, 1, 1, b"a"),
    absurd(Command.REGION_WRITE_MULTI, "count 0", "QQII8s", 1, BASE, 1, 0, b""),
    absurd(Command.REGION_WRITE_MULTI, "count 9", "QQII8s", 1, BASE, 1, 9, b"abcdefgh"),
    absurd(Command.REGION_WRITE_MULTI, "past 64 bits", "QQII8s", 1, TOP, 1, 2, b"ab"),
    absurd(
        Command.REGION_WRITE_MULTI,
        "a bad one behind a good one",
        "QQII8sQII8s",
        2,
        BASE,
        1,
        1,
        b"a",
        BASE,
        1,
        0xFFFF_FFFF,
        b"b",
    ),
    absurd(
        Command.REGION_WRITE_MULTI,
        "no device behind a good one",
        "QQII8sQII8s",
        2,
        BASE,
        1,
        1,
        b"a",
        0x10,
        1,
        1,
        b"b",
        errno=ANY,
    ),
    absurd(Command.DEVICE_RESET, "a megabyte", f"{1 << 20}s", b"x"),
    absurd(Command.DEVICE_RESET, "a descriptor", "", fds="memory"),
)
