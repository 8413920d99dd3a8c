"""Guest memory against a model too simple to be wrong: a dictionary with a value per byte."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from devicehost_server.model.device_io import ReadableBuffer
from devicehost_server.model.errors import BadRange, MemoryMapped, MemoryNotMapped
from devicehost_server.model.guest_memory import (
    Backing,
    GuestMemory,
    MappedBacking,
    MemoryBlock,
)

PAGE = 0x1000
PAGES = 6
END = 1 << 64
"""So many pages at the bottom, and at the top, of the address space are in play."""


class Messages:
    """Memory that has no view."""

    def __init__(self, content: bytearray) -> None:
        self._content = content

    def read(self, offset: int, size: int) -> bytes:
        return bytes(self._content[offset : offset + size])

    def write(self, offset: int, data: ReadableBuffer) -> None:
        self._content[offset : offset + len(data)] = data

    def view(self, offset: int, size: int) -> None:
        del offset, size


@dataclass(frozen=True, eq=False)
class Shared:
    """A block as the model knows it, not to be taken for another of the same shape."""

    base: int
    size: int
    readable: bool
    writable: bool
    mapped: bool


@dataclass
class Plain:
    """Which block each byte is of, and what is in it; only bytes that were ever written."""

    blocks: set[Shared] = field(default_factory=set)
    content: dict[int, int] = field(default_factory=dict)

    def owner(self, address: int) -> Shared | None:
        return next((b for b in self.blocks if b.base <= address < b.base + b.size), None)

    def allows(self, address: int, size: int, permission: str) -> bool:
        # Permissions and blocks change at pages, so one byte of each, and the last, are enough.
        probes = {*range(address, address + size, PAGE), address + size - 1}
        owners = [self.owner(probe) for probe in probes]
        return size > 0 and all(o is not None and getattr(o, permission) for o in owners)

    def read(self, address: int, size: int) -> bytes:
        return bytes(self.content.get(at, 0) for at in range(address, address + size))

    def write(self, address: int, data: bytes) -> None:
        self.content.update(enumerate(data, start=address))

    def forget(self, block: Shared) -> None:
        self.blocks.discard(block)
        for at in [at for at in self.content if block.base <= at < block.base + block.size]:
            del self.content[at]


pages = st.integers(-1, PAGES) | st.integers(END // PAGE - PAGES, END // PAGE)
bases = pages.map(lambda page: page * PAGE) | st.sampled_from([1, 0x800, END - 1])
sizes = st.integers(-1, 4).map(lambda count: count * PAGE) | st.sampled_from([1, 0x1800])
# Mostly near the seams between pages, where things go wrong.
addresses = st.builds(lambda page, by: page * PAGE + by, pages, st.integers(-4, 4) | st.just(0x800))
lengths = st.integers(0, 8) | st.integers(PAGE - 4, 2 * PAGE + 4)


class Machine(RuleBasedStateMachine):
    """Blocks come and go; devices read, write and look."""

    shared = Bundle("shared")
    windows = Bundle("windows")

    def __init__(self) -> None:
        super().__init__()
        self.memory = GuestMemory()
        self.plain = Plain()

    @rule(
        target=shared,
        base=bases,
        size=sizes,
        readable=st.booleans() | st.just(value=True),
        writable=st.booleans() | st.just(value=True),
        mapped=st.booleans(),
    )
    def add(self, base: int, size: int, *, readable: bool, writable: bool, mapped: bool) -> object:
        content = bytearray(max(size, 0))
        backing: Backing = MappedBacking(memoryview(content)) if mapped else Messages(content)
        block = MemoryBlock(base, size, readable, writable, backing)
        if size <= 0 or base % PAGE or size % PAGE or base < 0 or base + size > END:
            with pytest.raises(BadRange):
                self.memory.add(block)
        elif any(self.plain.owner(at) for at in range(base, base + size, PAGE)):
            with pytest.raises(MemoryMapped):
                self.memory.add(block)
        else:
            self.memory.add(block)
            known = Shared(base, size, readable, writable, mapped)
            self.plain.blocks.add(known)
            return known
        return multiple()

    @rule(block=consumes(shared))
    def remove(self, block: Shared) -> None:
        if block in self.plain.blocks:
            assert self.memory.remove(block.base, block.size).last == block.base + block.size - 1
            self.plain.forget(block)

    @rule(base=bases, size=sizes)
    def remove_somewhere(self, base: int, size: int) -> None:
        there = self.plain.owner(base)
        if there is None or (there.base, there.size) != (base, size):
            with pytest.raises(MemoryNotMapped):
                self.memory.remove(base, size)

    @rule()
    def clear(self) -> None:
        self.memory.clear()
        self.plain = Plain()

    @rule(address=addresses, size=lengths)
    def read(self, address: int, size: int) -> None:
        if self.plain.allows(address, size, "readable"):
            assert self.memory.read(address, size) == self.plain.read(address, size)
        else:
            with pytest.raises(MemoryNotMapped):
                self.memory.read(address, size)

    @rule(address=addresses, size=lengths, byte=st.integers(1, 255))
    def write(self, address: int, size: int, byte: int) -> None:
        data = bytes((byte + at) % 256 for at in range(size))
        if self.plain.allows(address, size, "writable"):
            self.memory.write(address, data)
            self.plain.write(address, data)
        else:
            with pytest.raises(MemoryNotMapped):
                self.memory.write(address, data)

    @rule(target=windows, address=addresses, size=lengths)
    def look(self, address: int, size: int) -> object:
        block = self.plain.owner(address)
        whole = block is not None and address + size <= block.base + block.size
        if block and whole and size > 0 and block.readable and block.mapped:
            window = self.memory.view(address, size)
            assert window.readonly != block.writable
            return block, address, window
        with pytest.raises(MemoryNotMapped):
            self.memory.view(address, size)
        return multiple()

    @rule(seen=consumes(windows), byte=st.integers(0, 255))
    def write_through(self, seen: tuple[Shared, int, memoryview], byte: int) -> None:
        block, address, window = seen
        if not window.readonly:
            window[-1] = byte  # whether the block is still there or not
            assert window[-1] == byte
            if block in self.plain.blocks:
                self.plain.write(address + len(window) - 1, bytes([byte]))
        elif block in self.plain.blocks:
            assert bytes(window) == self.plain.read(address, len(window))

    @invariant()
    def the_blocks_are_the_same_in_order(self) -> None:
        expected = sorted((b.base, b.size, b.readable, b.writable) for b in self.plain.blocks)
        found = [(b.base, b.size, b.readable, b.writable) for b in self.memory.blocks()]
        assert found == expected


Machine.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
test_guest_memory_behaves_like_the_plain_one = Machine.TestCase
