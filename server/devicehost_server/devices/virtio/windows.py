"""Guest memory, as virtqueues look at it: windows that cost little to open.

A `GuestWindows` is a snapshot: the blocks of a `GuestMemory` at one moment, with one view of
each that is mapped here. When `blocks` of the memory returns another table, make a new one
and drop the old: its views keep memory mapped that may be gone.

Invariant: a window lies within one block, and is writable only if the block is.
"""

from __future__ import annotations

from devicehost_server.devices.base import Memory
from devicehost_server.model.errors import MemoryNotMapped, hex_address
from devicehost_server.model.guest_memory import MemoryBlock

_NOWHERE = (0, 0, memoryview(b""), False)


class GuestWindows:
    """The blocks of guest memory at one moment. Safe to use from any thread.

    Args:
        memory: copies what isn't mapped here.
        blocks: its blocks, by address.
    """

    __slots__ = ("_blocks", "_mapped", "_recent", "memory")

    def __init__(self, memory: Memory, blocks: tuple[MemoryBlock, ...]) -> None:
        self.memory = memory
        self._blocks = blocks
        self._mapped: list[tuple[int, int, memoryview, bool]] = []
        self._recent = _NOWHERE  # buffers are mostly where the last one was
        for block in blocks:
            view = block.backing.view(0, block.size) if block.readable else None
            if view is not None:
                view = view if block.writable else view.toreadonly()
                self._mapped.append((block.base, block.base + block.size, view, block.writable))

    def window(self, address: int, size: int, *, writing: bool) -> memoryview | None:
        """Return a window on `size` bytes, at least 1, at guest-physical `address`.

        None if they aren't all mapped here, in one block, for what they are wanted.
        """
        base, end, view, writable = self._recent
        if base <= address and address + size <= end and (writable or not writing):
            return view[address - base : address - base + size]
        for each in self._mapped:
            base, end, view, writable = each
            if base <= address and address + size <= end and (writable or not writing):
                self._recent = each
                return view[address - base : address - base + size]
        return None

    def require(self, address: int, size: int, *, writing: bool) -> None:
        """Check that all of a range is guest memory, mapped here or not.

        Raises:
            MemoryNotMapped: a byte isn't in any block, or its block isn't for this.
        """
        at, end = address, address + size
        for block in self._blocks:
            if block.base <= at <= block.last and (block.writable if writing else block.readable):
                at = block.last + 1
            if at >= end:
                return
        what = "writable" if writing else "readable"
        raise MemoryNotMapped(
            f"guest memory {address:#x}, {size:#x} bytes: not {what} from {at:#x} on",
            address=hex_address(address),
            size=hex_address(size),
        )
