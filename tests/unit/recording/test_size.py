"""A long recording is small, and takes no more memory than a short one."""

from __future__ import annotations

import io
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from devicehost.recording import Header, Packer, Recording, file_block, file_end, file_start
from devicehost.recording.layout import CAPACITY

ADDRESSES = (0xFEB0_0000, 0x80_0000_0000, 0x3F8, 0xFEB0_1000, 0x81_0000_0000, 0x60)
"""Of several devices: two far away from the others, so that no two in a row are alike."""


def some_accesses(count: int, in_a_row: int) -> Iterator[tuple[Any, ...]]:
    """The arguments of accesses every 3 µs, of four vCPUs, so many in a row to one device.

    One device is slow. All of memory are of 8 bytes, those of ports of 4.
    """
    for number in range(count):
        device = number // in_a_row % len(ADDRESSES)
        address = ADDRESSES[device]
        port = address < 1 << 16
        data = b"abcd" if port else b"abcdefgh"
        took = 100_000 if device == 3 else 1_000
        started = 5_000_000_000_000 + number * 3_000 - number % 5 * 1_000
        vcpu, write = number % 4, number % 2 == 0
        yield started, took, vcpu, write, port, address + number % 8, len(data), data, 0


def record(file: BinaryIO, accesses: Iterator[tuple[Any, ...]]) -> None:
    """Write a recording, as a server does."""
    packer = Packer()
    events = 0
    file.write(file_start(Header()))
    for arguments in accesses:
        if not packer.access(*arguments):
            events += packer.count
            file.write(file_block(packer.take()))
            assert packer.access(*arguments)
    events += packer.count
    file.write(file_block(packer.take()) + file_end(events))


def test_a_million_accesses_take_24_bytes_each_at_most(tmp_path: Path) -> None:
    path = tmp_path / "long.dhrec"
    with path.open("wb") as file:
        record(file, some_accesses(1_000_000, in_a_row=20))
    recording = Recording.open(path)
    assert sum(1 for _ in recording) == 1_000_000
    assert recording.is_complete
    assert path.stat().st_size <= 20 * 1_000_000


def test_accesses_of_which_no_two_in_a_row_are_alike_take_24_bytes_each_at_most() -> None:
    file = io.BytesIO()
    record(file, some_accesses(50_000, in_a_row=1))
    assert file.tell() <= 24 * 50_000


def test_packing_and_reading_take_the_memory_of_a_few_blocks_however_long_it_goes_on(
    tmp_path: Path,
) -> None:
    path = tmp_path / "long.dhrec"
    blocks = 7  # tracing makes it all ten times slower
    accesses = some_accesses(blocks * CAPACITY // 16, in_a_row=20)
    tracemalloc.start()
    try:
        with path.open("wb") as file:
            record(file, accesses)
        while_packing = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        assert sum(1 for _ in Recording.open(path)) == blocks * CAPACITY // 16
        while_reading = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert path.stat().st_size > blocks * CAPACITY
    assert while_packing < 5 * CAPACITY
    assert while_reading < 5 * CAPACITY


@pytest.mark.parametrize(
    ("port", "size", "bytes_each"),
    [(False, 1, 13), (False, 4, 16), (False, 8, 20), (True, 1, 11), (True, 4, 14)],
)
def test_an_access_like_the_one_before_takes_this_many_bytes(
    port: bool,  # noqa: FBT001 # a parameter of the test
    size: int,
    bytes_each: int,
) -> None:
    packer = Packer()
    for number in range(10_000):
        assert packer.access(
            *(5_000_000_000_000 + number * 3000, 900, 1, False, port, 0x3F8, size, bytes(size), 0)
        )
    assert bytes_each <= len(packer.take()) / 10_000 < bytes_each + 0.01
