"""A guest with a disk, as far as that takes: a driver of virtio-blk over `DeviceHost`.

Its queue is in memory that the server shares, and it looks there for answers: what it does
with the server are its accesses only.
"""

from __future__ import annotations

import mmap
import struct
import time
from collections.abc import Callable, Iterator

from daemonlab import WAIT_S
from devicehost_client import ConnectionLost, DeviceHost
from devicehost_server.devices.virtio.blk.spec import HEADER, Feature, Kind, Status
from devicehost_server.devices.virtio.features import VERSION_1

BASE = 0xD000_0000
BLOCK = 4096
DEPTH = 16
QUEUE = 64
"""Descriptors: three for each request in flight, and three for the flush."""

TABLE, AVAIL, USED, BUFFERS = 0x0000, 0x1000, 0x2000, 0x4000
SLOT = 0x2000
RAM = BUFFERS + (DEPTH + 1) * SLOT

# Registers of virtio-mmio (virtio 1.2, section 4.2.2), and steps of the status.
DRIVER_FEATURES, DRIVER_FEATURES_SEL = 0x20, 0x24
QUEUE_SEL, QUEUE_NUM, QUEUE_READY, QUEUE_NOTIFY, STATUS = 0x30, 0x38, 0x44, 0x50, 0x70
QUEUE_TABLE, QUEUE_DRIVER, QUEUE_DEVICE = 0x80, 0x90, 0xA0


class Lost(Exception):
    """The server is gone."""


class Driver:
    """A driver of a disk.

    Args:
        host: the server.
        ram: the memory; all of it is the driver's.
        is_lost: tells whether nobody will answer any more.
    """

    def __init__(self, host: DeviceHost, ram: mmap.mmap, is_lost: Callable[[], bool]) -> None:
        self._host = host
        self._is_lost = is_lost
        self._ram = ram
        self._avail = memoryview(ram)[AVAIL : AVAIL + 4 + 2 * QUEUE].cast("H")
        self._used = memoryview(ram)[USED : USED + 4].cast("H")
        self._made = self._seen = 0
        for step in (0, 1, 3):
            self._set(STATUS, step)
        self._set(DRIVER_FEATURES_SEL, 0)
        self._set(DRIVER_FEATURES, Feature.FLUSH)
        self._set(DRIVER_FEATURES_SEL, 1)
        self._set(DRIVER_FEATURES, VERSION_1 >> 32)
        self._set(STATUS, 0xB)
        self._set(QUEUE_SEL, 0)
        self._set(QUEUE_NUM, QUEUE)
        for register, address in (
            (QUEUE_TABLE, TABLE),
            (QUEUE_DRIVER, AVAIL),
            (QUEUE_DEVICE, USED),
        ):
            self._set(register, address)
        self._set(QUEUE_READY, 1)
        self._set(STATUS, 0xF)

    def add(self, slot: int, kind: Kind, block: int, data: bytes) -> None:
        """Make a request available, in the memory of `slot`."""
        at = BUFFERS + slot * SLOT
        HEADER.pack_into(self._ram, at, kind, block * BLOCK // 512)
        self._ram[at + 0x1000 : at + 0x1000 + len(data)] = data
        self._ram[at + 0x20] = 0xFF
        parts = [(at, 16, 0), (at + 0x1000, len(data), 0), (at + 0x20, 1, 2)]
        parts = [part for part in parts if part[1]]
        for index, (address, size, flags) in enumerate(parts):
            number = 3 * slot + index
            more = index + 1 < len(parts)
            struct.pack_into(
                "<QIHH", self._ram, TABLE + 16 * number, address, size, flags | more, number + 1
            )
        self._avail[2 + self._made % QUEUE] = 3 * slot
        self._made += 1
        self._avail[1] = self._made % 0x10000

    def kick(self) -> None:
        """Tell the device of what was added."""
        self._set(QUEUE_NOTIFY, 0)

    def answered(self) -> Iterator[int]:
        """Wait for the answers to all that was added; yield each one's slot."""
        deadline = time.monotonic() + WAIT_S
        while self._seen != self._made:
            if self._used[1] == self._seen % 0x10000:
                if self._is_lost():
                    raise Lost
                assert time.monotonic() < deadline
                continue
            head: int = struct.unpack_from("<I", self._ram, USED + 4 + 8 * (self._seen % QUEUE))[0]
            self._seen += 1
            slot = head // 3
            assert self._ram[BUFFERS + slot * SLOT + 0x20] == Status.OK
            yield slot

    @property
    def answers(self) -> int:
        """How many answers the device says that it has given, of those that there can be."""
        return (self._used[1] - self._seen) % 0x10000 + self._seen

    def close(self) -> None:
        """Let go of the memory."""
        self._avail.release()
        self._used.release()

    def _set(self, register: int, value: int) -> None:
        try:
            self._host.mmio_write(BASE + register, 4, value)
        except ConnectionLost:
            raise Lost from None


def content(block: int) -> bytes:
    """What a block is to hold."""
    return struct.pack("<Q", block + 1) * (BLOCK // 8)
