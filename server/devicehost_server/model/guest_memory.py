"""The guest's memory, as a device sees it: what the VMM has shared, by guest address.

A VMM shares its memory in blocks, each a range of guest-physical addresses. Some are
mapped here, so that a device can look at them without copying; others are only reached
by messages to the VMM.

    memory.read(0x1000, 16)             copies
    memory.write(0x1000, b"...")
    memory.view(0x1000, 4096)           a window on the memory itself, if it is mapped

Invariants:
    No two blocks share a byte. The table is replaced as a whole: a device that is in the
    middle of a transfer goes on with the blocks as they were.
    A block that is taken away stays valid for as long as somebody holds a view of it.
    Listeners hear of each change after it is made, on the thread that made it.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import Protocol

from devicehost_server.model.device_io import ReadableBuffer
from devicehost_server.model.errors import (
    BadRange,
    MemoryMapped,
    MemoryNotMapped,
    hex_address,
    hex_range,
)
from devicehost_server.model.resources import MMIO_SPACE_SIZE, PAGE_SIZE

_base = attrgetter("base")


class Backing(Protocol):
    """What a block's bytes are. Offsets and sizes are in bytes and lie within the block."""

    def read(self, offset: int, size: int) -> bytes:
        """Return a copy of `size` bytes."""

    def write(self, offset: int, data: ReadableBuffer) -> None:
        """Replace as many bytes as `data` has."""

    def view(self, offset: int, size: int) -> memoryview | None:
        """Return a window, or None if the bytes aren't here."""


class MappedBacking:
    """Bytes that are mapped into this process.

    Args:
        memory: all of the block; read-only if the device may not write.
    """

    def __init__(self, memory: memoryview) -> None:
        self._memory = memory

    def read(self, offset: int, size: int) -> bytes:
        """Return a copy of `size` bytes."""
        return bytes(self._memory[offset : offset + size])

    def write(self, offset: int, data: ReadableBuffer) -> None:
        """Replace as many bytes as `data` has."""
        self._memory[offset : offset + len(data)] = data

    def view(self, offset: int, size: int) -> memoryview:
        """Return a window."""
        return self._memory[offset : offset + size]


@dataclass(frozen=True, slots=True, eq=False)
class MemoryBlock:
    """`size` bytes of guest memory at guest-physical `base`.

    Attributes:
        base: the first address.
        size: in bytes, whole pages.
        readable: whether devices may read it.
        writable: whether devices may write it.
        backing: its bytes.
    """

    base: int
    size: int
    readable: bool
    writable: bool
    backing: Backing

    @property
    def last(self) -> int:
        """The address of the last byte."""
        return self.base + self.size - 1


class GuestMemory:
    """The blocks of one VM. Safe to use from any thread; transfers take no lock."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._blocks: tuple[MemoryBlock, ...] = ()
        self._listeners: tuple[Callable[[], None], ...] = ()

    def subscribe(self, listener: Callable[[], None]) -> None:
        """Call `listener` after each change. It must return soon, and not raise."""
        with self._lock:
            self._listeners = (*self._listeners, listener)

    def unsubscribe(self, listener: Callable[[], None]) -> None:
        """Call `listener` no more, but for a change that is being told just now."""
        with self._lock:
            self._listeners = tuple(each for each in self._listeners if each != listener)

    def blocks(self) -> tuple[MemoryBlock, ...]:
        """All blocks, by address."""
        return self._blocks

    def add(self, block: MemoryBlock) -> None:
        """Add a block.

        Raises:
            BadRange: it is empty, not in whole pages, or past the last address.
            MemoryMapped: it shares a byte with another one.
        """
        what = f"memory block at {block.base:#x} of {block.size:#x} bytes"
        facts = {"base": hex_address(block.base), "size": hex_address(block.size)}
        if block.size <= 0 or block.base % PAGE_SIZE or block.size % PAGE_SIZE:
            raise BadRange(f"{what}: allowed: whole pages of {PAGE_SIZE:#x}", **facts)
        if block.base < 0 or block.base + block.size > MMIO_SPACE_SIZE:
            raise BadRange(f"{what} runs past the last address", **facts)
        with self._lock:
            index = bisect_right(self._blocks, block.last, key=_base)
            if index and (there := self._blocks[index - 1]).last >= block.base:
                taken = hex_range(there.base, there.size)
                raise MemoryMapped(f"{what} overlaps {taken}", other_range=taken, **facts)
            self._blocks = (*self._blocks[:index], block, *self._blocks[index:])
        self._tell()

    def remove(self, base: int, size: int) -> MemoryBlock:
        """Take a block away, and return it.

        Raises:
            MemoryNotMapped: no block has exactly this range.
        """
        with self._lock:
            index = bisect_right(self._blocks, base, key=_base) - 1
            if index < 0 or (self._blocks[index].base, self._blocks[index].size) != (base, size):
                raise _not_mapped(base, size, "no block is exactly there")
            block = self._blocks[index]
            self._blocks = self._blocks[:index] + self._blocks[index + 1 :]
        self._tell()
        return block

    def clear(self) -> None:
        """Take all blocks away."""
        with self._lock:
            self._blocks = ()
        self._tell()

    def read(self, address: int, size: int) -> bytes:
        """Return a copy of `size` bytes at guest-physical `address`, across blocks if need be.

        Raises:
            MemoryNotMapped: a byte of it isn't in any block, or may not be read.
        """
        pieces = [
            block.backing.read(offset, count)
            for block, offset, count in self._pieces(address, size, writing=False)
        ]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def write(self, address: int, data: ReadableBuffer) -> None:
        """Write `data` to guest-physical `address`, across blocks if need be.

        Raises:
            MemoryNotMapped: a byte of it isn't in any block, or may not be written;
                nothing is written then.
        """
        done = 0
        source = memoryview(data)
        for block, offset, count in self._pieces(address, len(data), writing=True):
            block.backing.write(offset, source[done : done + count])
            done += count

    def view(self, address: int, size: int) -> memoryview:
        """Return a window on `size` bytes at guest-physical `address`; nothing is copied.

        It is read-only if the block is. Release it soon: it keeps the memory mapped.

        Raises:
            MemoryNotMapped: it isn't within one block, the block may not be read, or isn't
                mapped here.
        """
        pieces = self._pieces(address, size, writing=False)
        if len(pieces) == 1:
            block, offset, count = pieces[0]
            window = block.backing.view(offset, count)
            if window is not None:
                return window if block.writable else window.toreadonly()
        raise _not_mapped(address, size, "not within one mapped block")

    def _tell(self) -> None:
        for listener in self._listeners:
            listener()

    def _pieces(
        self, address: int, size: int, *, writing: bool
    ) -> list[tuple[MemoryBlock, int, int]]:
        """The parts of blocks that make up a range: block, offset in it, bytes of it."""
        blocks = self._blocks
        if size <= 0:
            raise _not_mapped(address, size, "it is empty")
        index = bisect_right(blocks, address, key=_base) - 1
        end = address + size
        pieces = []
        while address < end:
            if (
                not 0 <= index < len(blocks)
                or not blocks[index].base <= address <= blocks[index].last
            ):
                raise _not_mapped(address, end - address, "no block is there")
            block = blocks[index]
            if not (block.writable if writing else block.readable):
                raise _not_mapped(address, end - address, "the VMM doesn't allow it")
            count = min(end, block.base + block.size) - address
            pieces.append((block, address - block.base, count))
            address += count
            index += 1
        return pieces


def _not_mapped(address: int, size: int, why: str) -> MemoryNotMapped:
    return MemoryNotMapped(
        f"guest memory {address:#x}, {size:#x} bytes: {why}",
        address=hex_address(address),
        size=hex_address(size),
    )
