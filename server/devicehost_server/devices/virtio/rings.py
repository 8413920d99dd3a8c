"""The three areas of a split virtqueue in guest memory.

Source: VIRTIO 1.2, sections 2.7.5 to 2.7.8. Of a queue of N descriptors:

    descriptor table    16 N bytes
    available ring      2 * (3 + N): flags, idx, N heads, used_event
    used ring           4 + 8 N + 2: flags, idx, N elements (head, length), avail_event

Fields of two bytes are read and written by one instruction each, where the area is mapped.
Where it isn't, each is a transfer.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from devicehost_server.devices.base import Memory
from devicehost_server.devices.virtio.chain import DESCRIPTOR, DESCRIPTOR_SIZE, ReadDescriptor
from devicehost_server.devices.virtio.windows import GuestWindows

FLAGS = 0
"""Of both rings, which 16-bit field is the flags."""
INDEX = 1
"""Likewise the index."""
HEADS = 2
"""Where the heads of the available ring begin."""
USED_ELEMENTS = 4
"""Where the elements of the used ring begin, in bytes."""
USED_ELEMENT = struct.Struct("<II")

DESCRIPTOR_ALIGN, DRIVER_ALIGN, DEVICE_ALIGN = 16, 2, 4
"""How the areas are aligned: table, available ring, used ring (section 2.7)."""


def used_event(size: int) -> int:
    """Which field of the available ring says when the driver wants an interrupt."""
    return HEADS + size


def avail_event(size: int) -> int:
    """Which field of the used ring says when the device wants a kick."""
    return HEADS + 4 * size


class Shorts(Protocol):
    """A row of 16-bit fields in guest memory."""

    def __getitem__(self, index: int, /) -> int:
        """Read one."""

    def __setitem__(self, index: int, value: int, /) -> None:
        """Write one."""


class CopiedShorts:
    """A row of 16-bit fields that isn't mapped here."""

    def __init__(self, memory: Memory, address: int) -> None:
        self._memory = memory
        self._address = address

    def __getitem__(self, index: int, /) -> int:
        """Read one."""
        return int.from_bytes(self._memory.read(self._address + 2 * index, 2), "little")

    def __setitem__(self, index: int, value: int, /) -> None:
        """Write one."""
        self._memory.write(self._address + 2 * index, value.to_bytes(2, "little"))


@dataclass(frozen=True, slots=True)
class Rings:
    """The areas of a queue, ready for use.

    Attributes:
        descriptor: reads a descriptor, by its offset in the table.
        avail: the available ring.
        used: the used ring.
        put_used: writes an element of the used ring: its offset in bytes, head, and length.
    """

    descriptor: ReadDescriptor
    avail: Shorts
    used: Shorts
    put_used: Callable[[int, int, int], None]

    @classmethod
    def of(cls, windows: GuestWindows, size: int, table: int, driver: int, device: int) -> Rings:
        """Look at the areas of a queue of `size` descriptors, by their addresses.

        Raises:
            MemoryNotMapped: they aren't all in guest memory.
        """
        used = windows.window(device, 6 + 8 * size, writing=True)
        if used is None:
            windows.require(device, 6 + 8 * size, writing=True)
        avail = windows.window(driver, 6 + 2 * size, writing=False)
        if avail is None:
            windows.require(driver, 6 + 2 * size, writing=False)
        descriptors = windows.window(table, DESCRIPTOR_SIZE * size, writing=False)
        if descriptors is None:
            windows.require(table, DESCRIPTOR_SIZE * size, writing=False)
        memory = windows.memory

        def copy_descriptor(offset: int) -> tuple[int, int, int, int]:
            return DESCRIPTOR.unpack(memory.read(table + offset, DESCRIPTOR_SIZE))

        def copy_used(offset: int, head: int, written: int) -> None:
            memory.write(device + offset, USED_ELEMENT.pack(head, written))

        return cls(
            copy_descriptor
            if descriptors is None
            else partial(DESCRIPTOR.unpack_from, descriptors),
            _shorts(memory, avail, driver),
            _shorts(memory, used, device),
            copy_used if used is None else partial(USED_ELEMENT.pack_into, used),
        )


def _shorts(memory: Memory, window: memoryview | None, address: int) -> Shorts:
    if window is None or sys.byteorder != "little":
        return CopiedShorts(memory, address)
    return window.cast("H")
