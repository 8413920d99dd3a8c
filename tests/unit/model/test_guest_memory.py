"""Guest memory: each rule of the module's docstring."""

from __future__ import annotations

import mmap
import os
import threading
import weakref
from collections.abc import Iterator

import pytest

from devicehost_server.model.device_io import ReadableBuffer
from devicehost_server.model.errors import BadRange, MemoryMapped, MemoryNotMapped
from devicehost_server.model.guest_memory import GuestMemory, MappedBacking, MemoryBlock

PAGE = 0x1000
LAST_PAGE = (1 << 64) - PAGE


class Messages:
    """Memory that isn't here: what it would take messages to reach."""

    def __init__(self, size: int) -> None:
        self.content = bytearray(size)
        self.sent: list[tuple[str, int, int]] = []

    def read(self, offset: int, size: int) -> bytes:
        self.sent.append(("read", offset, size))
        return bytes(self.content[offset : offset + size])

    def write(self, offset: int, data: ReadableBuffer) -> None:
        self.sent.append(("write", offset, len(data)))
        self.content[offset : offset + len(data)] = data

    def view(self, offset: int, size: int) -> None:
        self.sent.append(("view", offset, size))


def block(
    base: int, size: int = PAGE, *, readable: bool = True, writable: bool = True, fill: bytes = b""
) -> MemoryBlock:
    content = bytearray((fill * size)[:size] or bytes(size))
    return MemoryBlock(base, size, readable, writable, MappedBacking(memoryview(content)))


@pytest.fixture
def memory() -> GuestMemory:
    """Two blocks side by side, 0x1000 to 0x3fff, and one apart, at 0x8000."""
    memory = GuestMemory()
    memory.add(block(0x8000, fill=b"c"))
    memory.add(block(0x2000, 2 * PAGE, fill=b"b"))
    memory.add(block(0x1000, fill=b"a"))
    return memory


# The table.


def test_the_blocks_are_listed_by_address(memory: GuestMemory) -> None:
    assert [(b.base, b.size, b.last) for b in memory.blocks()] == [
        (0x1000, 0x1000, 0x1FFF),
        (0x2000, 0x2000, 0x3FFF),
        (0x8000, 0x1000, 0x8FFF),
    ]


@pytest.mark.parametrize(
    ("base", "size", "other"),
    [
        (0x1000, PAGE, "0x1000-0x1fff"),  # the same
        (0x2000, PAGE, "0x2000-0x3fff"),  # the beginning of one
        (0x3000, PAGE, "0x2000-0x3fff"),  # the end of one
        (0x3000, 2 * PAGE, "0x2000-0x3fff"),  # past the end
        (0x7000, 2 * PAGE, "0x8000-0x8fff"),  # from before the beginning
        (0x7000, 3 * PAGE, "0x8000-0x8fff"),  # around one
        (0, 16 * PAGE, "0x8000-0x8fff"),  # around all
    ],
)
def test_a_block_that_shares_a_byte_is_refused_and_nothing_changes(
    memory: GuestMemory, base: int, size: int, other: str
) -> None:
    before = memory.blocks()
    with pytest.raises(MemoryMapped, match=f"overlaps {other}") as caught:
        memory.add(block(base, size))
    assert caught.value.metadata == {"base": hex(base), "size": hex(size), "other_range": other}
    assert memory.blocks() == before


def test_blocks_may_touch(memory: GuestMemory) -> None:
    memory.add(block(0, fill=b"0"))
    memory.add(block(0x7000, fill=b"7"))
    memory.add(block(0x9000, fill=b"9"))
    assert memory.read(0xFFF, 2) == b"0a"
    assert memory.read(0x7FFF, 0x1002) == b"7" + b"c" * 0x1000 + b"9"


@pytest.mark.parametrize(
    ("base", "size"),
    [
        (0x5000, 0),
        (0x5000, -PAGE),
        (0x5001, PAGE),
        (0x5000, PAGE + 1),
        (0x5000, 1),
        (0x5800, 0x800),
    ],
)
def test_a_block_that_is_not_whole_pages_is_refused(
    memory: GuestMemory, base: int, size: int
) -> None:
    with pytest.raises(BadRange, match=r"allowed: whole pages of 0x1000") as caught:
        memory.add(MemoryBlock(base, size, True, True, Messages(0)))  # noqa: FBT003 # by position
    assert caught.value.metadata == {"base": hex(base), "size": hex(size)}
    assert len(memory.blocks()) == 3


@pytest.mark.parametrize(
    ("base", "size"), [(LAST_PAGE, 2 * PAGE), (1 << 64, PAGE), (-PAGE, PAGE), (PAGE, 1 << 64)]
)
def test_a_block_past_the_last_address_is_refused(
    memory: GuestMemory, base: int, size: int
) -> None:
    with pytest.raises(BadRange, match="past the last address"):
        memory.add(MemoryBlock(base, size, True, True, Messages(0)))  # noqa: FBT003 # by position


def test_the_first_and_the_last_page_can_be_memory(memory: GuestMemory) -> None:
    memory.add(block(0, fill=b"first"))
    memory.add(block(LAST_PAGE, fill=b"z"))
    assert memory.read(0, 5) == b"first"
    memory.write((1 << 64) - 2, b"!!")
    assert memory.read((1 << 64) - 3, 3) == b"z!!"
    with pytest.raises(MemoryNotMapped):
        memory.read((1 << 64) - 1, 2)


@pytest.mark.parametrize(
    ("base", "size"),
    [(0x2000, PAGE), (0x3000, PAGE), (0x1000, 3 * PAGE), (0x5000, PAGE), (0, PAGE), (0x1001, PAGE)],
)
def test_only_exactly_a_block_can_be_taken_away(memory: GuestMemory, base: int, size: int) -> None:
    with pytest.raises(MemoryNotMapped, match="no block is exactly there"):
        memory.remove(base, size)
    assert len(memory.blocks()) == 3


def test_a_block_that_was_taken_away_is_gone_and_its_place_is_free(memory: GuestMemory) -> None:
    taken = memory.remove(0x2000, 2 * PAGE)
    assert (taken.base, taken.size) == (0x2000, 2 * PAGE)
    for access in (
        lambda: memory.read(0x2000, 1),
        lambda: memory.write(0x3FFF, b"x"),
        lambda: memory.view(0x2000, 1),
        lambda: memory.remove(0x2000, 2 * PAGE),
        lambda: memory.read(0x1FFF, 2),
    ):
        with pytest.raises(MemoryNotMapped):
            access()
    memory.add(block(0x3000, fill=b"new"))
    assert memory.read(0x3000, 3) == b"new"


def test_all_blocks_can_be_taken_away_at_once(memory: GuestMemory) -> None:
    memory.clear()
    memory.clear()
    assert memory.blocks() == ()
    with pytest.raises(MemoryNotMapped):
        memory.read(0x1000, 1)
    memory.add(block(0x1000))


# Transfers.


def test_a_read_copies(memory: GuestMemory) -> None:
    copy = memory.read(0x1FF0, 16)
    memory.write(0x1FF0, b"changed")
    assert copy == b"a" * 16


def test_a_transfer_goes_across_blocks_that_touch(memory: GuestMemory) -> None:
    assert memory.read(0x1FFE, 4) == b"aabb"
    data = os.urandom(3 * PAGE)
    memory.write(0x1000, data)
    assert memory.read(0x1000, 3 * PAGE) == data
    assert memory.read(0x1801, 0x1801) == data[0x801:0x2002]
    memory.write(0x1FFF, bytearray(b"xy"))
    memory.write(0x2FFF, memoryview(b"-uv-")[1:3])
    assert memory.read(0x1FFE, 4) == data[0xFFE:0xFFF] + b"xy" + data[0x1001:0x1002]
    assert memory.read(0x2FFF, 2) == b"uv"


@pytest.mark.parametrize(
    ("address", "size"),
    [
        (0x1000, 0),
        (0x1000, -1),
        (0, 1),  # before the first
        (0xFFF, 2),  # into the first
        (0x3FFF, 2),  # past the end
        (0x5000, 1),  # between
        (0x7FFF, 2),
        (0x3FFF, 0x4002),  # over a hole
        (0x9000, 1),  # after the last
        (-1, 1),
        (1 << 64, 1),
        (0x1000, 1 << 64),
    ],
)
def test_memory_that_is_not_shared_is_not_reached(
    memory: GuestMemory, address: int, size: int
) -> None:
    with pytest.raises(MemoryNotMapped):
        memory.read(address, size)
    with pytest.raises(MemoryNotMapped):
        memory.view(address, size)


def test_an_error_says_where_the_first_byte_is_that_is_missing(memory: GuestMemory) -> None:
    with pytest.raises(MemoryNotMapped, match="0x4000, 0x3 bytes: no block is there") as caught:
        memory.read(0x3FFF, 4)
    assert caught.value.metadata == {"address": "0x4000", "size": "0x3"}


def test_a_write_that_does_not_fit_writes_nothing(memory: GuestMemory) -> None:
    with pytest.raises(MemoryNotMapped):
        memory.write(0x3FFE, b"xyz")
    with pytest.raises(MemoryNotMapped):
        memory.write(0x1000, b"")
    assert memory.read(0x3FFE, 2) == b"bb"


def test_memory_can_be_copied_onto_itself(memory: GuestMemory) -> None:
    memory.write(0x2000, b"0123456789")
    with memory.view(0x2000, 10) as window:
        memory.write(0x2002, window)
    assert memory.read(0x2000, 12) == b"010123456789"


# Permissions.


def test_a_block_that_may_not_be_written_is_read_and_viewed_only(memory: GuestMemory) -> None:
    memory.add(block(0x4000, writable=False, fill=b"r"))
    assert memory.read(0x3FFF, 2) == b"br"
    with pytest.raises(MemoryNotMapped, match="0x4000, 0x1 bytes: the VMM doesn't allow it"):
        memory.write(0x3FFF, b"xy")
    assert memory.read(0x3FFF, 1) == b"b"
    window = memory.view(0x4000, 4)
    assert window.readonly
    with pytest.raises(TypeError):
        window[0] = 1


def test_a_block_that_may_not_be_read_is_written_only(memory: GuestMemory) -> None:
    content = bytearray(PAGE)
    memory.add(
        MemoryBlock(
            0x4000, PAGE, readable=False, writable=True, backing=MappedBacking(memoryview(content))
        )
    )
    memory.write(0x3FFF, b"xy")
    assert content[0] == ord("y")
    for access in (memory.read, memory.view):
        with pytest.raises(MemoryNotMapped, match="the VMM doesn't allow it"):
            access(0x4000, 1)


# Views.


def test_a_view_is_the_memory_itself(memory: GuestMemory) -> None:
    with memory.view(0x2010, 4) as window:
        window[:] = b"view"
        assert memory.read(0x200F, 6) == b"bviewb"
        memory.write(0x2010, b"V")
        assert bytes(window) == b"View"


def test_a_view_lies_within_one_block(memory: GuestMemory) -> None:
    assert len(memory.view(0x2000, 2 * PAGE)) == 2 * PAGE
    with pytest.raises(MemoryNotMapped, match="not within one mapped block"):
        memory.view(0x1FFF, 2)


def test_memory_that_is_not_here_is_transferred_by_messages_and_has_no_view() -> None:
    memory, messages = GuestMemory(), Messages(PAGE)
    memory.add(block(0x1000, fill=b"a"))
    memory.add(MemoryBlock(0x2000, PAGE, readable=True, writable=True, backing=messages))
    memory.write(0x1FFE, b"1234")
    assert memory.read(0x1FFE, 4) == b"1234"
    with pytest.raises(MemoryNotMapped, match="not within one mapped block"):
        memory.view(0x2000, 1)
    assert messages.sent == [("write", 0, 2), ("read", 0, 2), ("view", 0, 1)]


class Mapping(mmap.mmap):
    """A mapping that can be watched going away."""


@pytest.fixture
def memfd() -> Iterator[int]:
    fd = os.memfd_create("guest")
    os.ftruncate(fd, 2 * PAGE)
    yield fd
    os.close(fd)


def test_a_view_keeps_memory_mapped_that_was_taken_away(memfd: int) -> None:
    memory = GuestMemory()
    mapping = Mapping(memfd, 2 * PAGE)
    alive = weakref.ref(mapping)
    memory.add(
        MemoryBlock(
            0, 2 * PAGE, readable=True, writable=True, backing=MappedBacking(memoryview(mapping))
        )
    )
    del mapping
    window = memory.view(PAGE, 4)
    memory.remove(0, 2 * PAGE)
    window[:] = b"here"
    assert os.pread(memfd, 4, PAGE) == b"here"
    assert alive() is not None
    window.release()
    assert alive() is None  # and so it is unmapped


def test_a_mapping_for_reading_is_read(memfd: int) -> None:
    memory = GuestMemory()
    os.pwrite(memfd, b"content", 0)
    mapping = mmap.mmap(memfd, 2 * PAGE, access=mmap.ACCESS_READ)
    backing = MappedBacking(memoryview(mapping))
    memory.add(MemoryBlock(0, 2 * PAGE, readable=True, writable=False, backing=backing))
    assert memory.read(0, 7) == b"content"
    assert bytes(memory.view(0, 7)) == b"content"
    assert memory.view(0, 1).readonly


def test_a_transfer_that_is_under_way_ends_with_the_blocks_as_they_were() -> None:
    memory = GuestMemory()

    class Removing(Messages):
        def read(self, offset: int, size: int) -> bytes:
            memory.clear()
            return super().read(offset, size)

    memory.add(
        MemoryBlock(0, PAGE, readable=True, writable=True, backing=Removing(PAGE)),
    )
    memory.add(block(PAGE, fill=b"x"))
    assert memory.read(0, 2 * PAGE) == bytes(PAGE) + b"x" * PAGE
    assert memory.blocks() == ()


def test_blocks_come_and_go_while_others_are_read() -> None:
    memory = GuestMemory()
    memory.add(block(0x10000, fill=b"s"))
    stop = threading.Event()
    failures: list[BaseException] = []

    def come_and_go(base: int) -> None:
        try:
            while not stop.is_set():
                memory.add(block(base, fill=b"t"))
                assert memory.read(base, 3) == b"ttt"
                memory.remove(base, PAGE)
        except BaseException as error:  # noqa: BLE001 # shown by the test's own thread
            failures.append(error)

    threads = [
        threading.Thread(target=come_and_go, args=(base,)) for base in (0xF000, 0x11000, 0x20000)
    ]
    for thread in threads:
        thread.start()
    for _ in range(5000):
        assert memory.read(0x10FFD, 3) == b"sss"
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(memory.blocks()) == 1
