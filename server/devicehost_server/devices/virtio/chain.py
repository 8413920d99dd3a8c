"""One request in a virtqueue: a chain of descriptors, checked, as windows on guest memory.

Source: VIRTIO 1.2, section 2.7.5 (the descriptor table, indirect descriptors).

Descriptors are written by the guest, which may change them at any time. Each is read once,
then checked, and never looked at again.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import partial
from typing import TypeAlias

from devicehost_server.devices.virtio.windows import GuestWindows

DESCRIPTOR_SIZE = 16
"""Bytes of a descriptor."""

DESCRIPTOR = struct.Struct("<QIHH")
"""Guest-physical address, length in bytes, flags, and the number of the next one."""

NEXT = 0x1
"""Flag: another descriptor follows."""
WRITE = 0x2
"""Flag: the device writes the buffer, and doesn't read it."""
INDIRECT = 0x4
"""Flag: the buffer is a table of descriptors, and the chain goes on in there."""

CHAIN_BYTES_MAX = 1 << 32
"""The most bytes that the buffers of a chain may have together."""

COPIED_BYTES_MAX = 64 << 20
"""The most bytes of a chain's buffers that are copied because they aren't mapped here."""

Descriptor: TypeAlias = tuple[int, int, int, int]

ReadDescriptor: TypeAlias = Callable[[int], Descriptor]
"""Reads the descriptor that begins so many bytes into a table."""


class BadChain(Exception):
    """The driver broke a rule. The argument says which, in words."""


class Chain:
    """A request that a driver has made available.

    Attributes:
        head: the number of its first descriptor, by which the driver knows it.
        readable: the buffers that the device reads, in order.
        writable: the buffers that the device writes, in order.
        readable_size: bytes in `readable`.
        writable_size: bytes in `writable`.
        copies: the guest-physical addresses of those of `writable` that are copies, by
            their index there. The queue's business.

    The windows lead to guest memory itself, where that is mapped here: what is written there
    is in the guest at once, and what is read there may change under the reader. Where it
    isn't mapped they are copies, and `VirtQueue.push` writes those of `writable` back.
    """

    __slots__ = (
        "copies",
        "head",
        "readable",
        "readable_size",
        "writable",
        "writable_size",
    )

    def __init__(
        self,
        head: int,
        readable: tuple[memoryview, ...] = (),
        writable: tuple[memoryview, ...] = (),
        readable_size: int = 0,
        writable_size: int = 0,
    ) -> None:
        self.head = head
        self.readable = readable
        self.writable = writable
        self.readable_size = readable_size
        self.writable_size = writable_size
        self.copies: dict[int, int] = {}


def read_chain(  # noqa: C901, PLR0912 # one loop without calls: it is the cost of a request
    head: int, table: ReadDescriptor, size: int, windows: GuestWindows, *, indirect: bool
) -> Chain:
    """Follow a chain from its first descriptor to its last.

    A chain has at most as many buffers as its queue has descriptors, so a loop ends, too.

    Args:
        head: the number of its first descriptor.
        table: reads the queue's descriptors.
        size: how many these are.
        windows: the guest's memory.
        indirect: whether a table of its own was negotiated.

    Raises:
        BadChain: it breaks a rule of the specification.
        MemoryNotMapped: a buffer, or a table, isn't all in guest memory; or not writable
            though it is to be written.
    """
    readable: list[memoryview] = []
    writable: list[memoryview] = []
    readable_size = writable_size = count = 0
    copied: dict[int, int] | None = None
    number, room, in_table = head, size, False
    window = windows.window
    while True:
        if number >= room:
            raise BadChain(f"there is no descriptor {number}, the table has {room}")
        address, length, flags, following = table(number * DESCRIPTOR_SIZE)
        if flags & INDIRECT:
            _check_indirect(length, flags, in_table=in_table, negotiated=indirect)
            table, room = _table(windows, address, length), length // DESCRIPTOR_SIZE
            number, in_table = 0, True
            continue
        if count == size:
            raise BadChain(f"it has more than {size} descriptors, or goes round in circles")
        count += 1
        if not length:
            raise BadChain(f"descriptor {number} has a length of 0")
        if flags & WRITE:
            buffer = window(address, length, writing=True)
            if buffer is None:
                copied = copied or {}
                copied[len(writable)] = address
                buffer = _copy(windows, address, length, writing=True)
            writable.append(buffer)
            writable_size += length
        elif writable:
            raise BadChain(f"descriptor {number} is readable, and follows a writable one")
        else:
            buffer = window(address, length, writing=False)
            if buffer is None:
                buffer = _copy(windows, address, length, writing=False)
            readable.append(buffer)
            readable_size += length
        if not flags & NEXT:
            break
        number = following
    if readable_size + writable_size > CHAIN_BYTES_MAX:
        raise BadChain(f"it has more than {CHAIN_BYTES_MAX:#x} bytes")
    chain = Chain(head, tuple(readable), tuple(writable), readable_size, writable_size)
    if copied is not None:
        chain.copies = copied
    return chain


def _check_indirect(length: int, flags: int, *, in_table: bool, negotiated: bool) -> None:
    """Check a descriptor that stands for a table."""
    if not negotiated:
        raise BadChain("it has an indirect table, which wasn't negotiated")
    if in_table:
        raise BadChain("an indirect table refers to another one")
    if flags & NEXT:
        raise BadChain("a descriptor follows one that refers to an indirect table")
    if not length or length % DESCRIPTOR_SIZE:
        raise BadChain(f"an indirect table has {length} bytes, allowed: multiples of 16")


def _table(windows: GuestWindows, address: int, size: int) -> ReadDescriptor:
    """Return what reads a table of descriptors."""
    window = windows.window(address, size, writing=False)
    if window is not None:
        return partial(DESCRIPTOR.unpack_from, window)
    windows.require(address, size, writing=False)
    read = windows.memory.read
    return lambda offset: DESCRIPTOR.unpack(read(address + offset, DESCRIPTOR_SIZE))


def _copy(windows: GuestWindows, address: int, size: int, *, writing: bool) -> memoryview:
    """Return a copy of a buffer that isn't mapped here; zeros if it is to be written."""
    windows.require(address, size, writing=writing)
    if size > COPIED_BYTES_MAX:
        raise BadChain(f"{size:#x} bytes aren't mapped here, allowed: {COPIED_BYTES_MAX:#x}")
    if writing:
        return memoryview(bytearray(size))
    return memoryview(windows.memory.read(address, size))
