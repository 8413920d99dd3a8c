"""What a client sends to an endpoint, made from a fuzz input, and cut into reads."""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Sequence
from functools import cache
from typing import Final, TypeAlias

from devicehost.vfio_user import Command
from devicehost.vfio_user.header import HEADER, HEADER_SIZE, REPLY_TYPE
from fuzz.source import Source

Piece: TypeAlias = tuple[bytes, list[int]]
"""Bytes for one read, and descriptors that go with them."""

BASE: Final = 0xD000_0000
PORT: Final = 0x3F8
SIZE: Final = 0x100
OFFSETS: Final = (BASE, PORT, 0, BASE + SIZE - 4, (1 << 64) - 16)
GUEST: Final = (0x1000, 0x2000, 0x10000)
"""Where the client's memory may be."""

DMA: Final = 0x80
"""Register: the number written is where in the guest's memory a few bytes are swapped."""

FLAGS: Final = (0x00, 0x00, 0x10, 0x01, 0x21)

JOINED: Final = 0x20
CUT: Final = 0x40
"""Bits of how a message is sent; the lowest five are its number of descriptors."""


class Script:
    """What the client sends, piece by piece.

    Args:
        offsets: where in the regions its accesses are, about.
        regions: how many regions it takes there to be.
        dma: the region and the offset of the device's register DMA.
    """

    def __init__(
        self,
        offsets: Sequence[int] = OFFSETS,
        regions: int = 5,
        dma: tuple[int, int] = (1, BASE + DMA),
    ) -> None:
        self._offsets = offsets
        self._regions = regions
        self._dma = dma
        self.pieces: list[tuple[bytes, list[int]]] = []
        self._held = b""

    def message(self, source: Source) -> None:
        """A message whose size is right."""
        command = source.byte() % (max(Command) + 2)
        self._message(source, source.byte(), command, source.choose(FLAGS), source.blob())

    def access(self, source: Source) -> None:
        """A read or a write of a region, around the device."""
        posted, region = source.choose((0x00, 0x10)), source.byte() % self._regions
        offset = source.choose(self._offsets) + source.byte()
        if source.byte() & 1:
            count = source.byte()
            payload = struct.pack("<QII", offset % (1 << 64), region, count)
            self._message(source, 1, Command.REGION_READ, posted, payload)
        else:
            data = source.take(1 + source.byte() % 16)
            payload = struct.pack("<QII", offset % (1 << 64), region, len(data)) + data
            self._message(source, 2, Command.REGION_WRITE, posted, payload)

    def memory(self, source: Source) -> None:
        """Share memory, or take it back."""
        address, size = source.choose(GUEST), 0x1000 * (1 + source.byte() % 2)
        if source.byte() & 3:
            flags, at = source.byte() % 16, 0x1000 * (source.byte() % 3)
            payload = struct.pack("<IIQQQ", 32, flags, at, address, size)
            self._message(source, 3, Command.DMA_MAP, 0, payload)
        else:
            payload = struct.pack("<IIQQ", 24, 0, address, size)
            self._message(source, 4, Command.DMA_UNMAP, 0, payload)

    def transfer(self, source: Source) -> None:
        """Have the device go to the guest's memory."""
        address = (source.choose(GUEST) + source.byte()).to_bytes(8, "little")
        region, offset = self._dma
        payload = struct.pack("<QII", offset, region, 8) + address
        flags = source.choose((0x00, 0x10))
        self._message(source, 5, Command.REGION_WRITE, flags, payload)

    def reply(self, source: Source) -> None:
        """What may be the reply to a request for memory."""
        command = source.choose((Command.DMA_READ, Command.DMA_WRITE))
        address, data = source.choose(GUEST) + source.byte(), source.take(source.byte() % 8)
        payload = struct.pack("<QQ", address, source.choose((4, len(data)))) + data
        flags = source.choose((REPLY_TYPE, 0x21))
        self._message(source, source.byte() % 16, command, flags, payload)

    def raw(self, source: Source) -> None:
        """Bytes, whatever they are."""
        self._send(source, source.blob())

    def end(self) -> None:
        """Send what was held back."""
        if self._held:
            self.pieces.append((self._held, []))

    def _message(
        self, source: Source, message_id: int, command: int, flags: int, payload: bytes
    ) -> None:
        header = HEADER.pack(message_id, command, HEADER_SIZE + len(payload), flags, 5)
        self._send(source, header + payload)

    def _send(self, source: Source, data: bytes) -> None:
        how = source.byte()
        data, self._held = self._held + data, b""
        fds: list[int] = []
        if number := how & 0x1F:
            first, kinds = source.byte(), palette()
            fds = [kinds[(first + at) % len(kinds)] for at in range(number)]
        if how & JOINED and not fds:
            self._held = data
        elif how & CUT and len(data) > 1:
            cut = 1 + source.number(2) % (len(data) - 1)
            self.pieces += [(data[:cut], fds), (data[cut:], [])]
        elif data:
            self.pieces.append((data, fds))


@cache
def palette() -> tuple[int, ...]:
    """Descriptors of several kinds, made once."""
    sealed = os.memfd_create("sealed", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    unsealed = os.memfd_create("unsealed", os.MFD_CLOEXEC)
    for memory in (sealed, unsealed):
        os.ftruncate(memory, 0x3000)
    fcntl.fcntl(sealed, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    return (
        os.eventfd(0, os.EFD_CLOEXEC),
        sealed,
        os.eventfd(1, os.EFD_CLOEXEC | os.EFD_NONBLOCK),
        unsealed,
        *os.pipe(),
        os.open("/", os.O_PATH | os.O_CLOEXEC),
        os.open("/dev/zero", os.O_RDWR | os.O_CLOEXEC),
        os.open(f"/proc/self/fd/{sealed}", os.O_RDONLY | os.O_CLOEXEC),
    )
