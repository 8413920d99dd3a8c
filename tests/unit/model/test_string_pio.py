"""String PIO: one access with a buffer of several operands (INS, OUTS, REP)."""

from __future__ import annotations

import mmap
from collections import deque

import pytest

from devicehost_server.model.device_io import DeviceIo, ReadableBuffer, WritableBuffer
from devicehost_server.model.errors import AccessOutOfRange, BadAccessSize, DeviceFault, NoDevice
from devicehost_server.model.io_manager import IoManager
from devicehost_server.model.resources import PioAddressRange

PORT = 0x1F0
ABSENT = 0x80


class Fifo(DeviceIo):
    """A data port: reads take from `content` what writes put there. It raises when empty."""

    def __init__(self, content: bytes = b"", room: int = 1 << 20) -> None:
        self.content = deque(content)
        self.room = room
        self.accesses: list[tuple[int, int, bytes]] = []

    def pio_read(self, base: int, offset: int, data: WritableBuffer) -> None:
        self.accesses.append((base, offset, bytes(data)))
        for at in range(len(data)):
            data[at] = self.content.popleft()

    def pio_write(self, base: int, offset: int, data: ReadableBuffer) -> None:
        self.accesses.append((base, offset, bytes(data)))
        if len(self.content) + len(data) > self.room:
            raise OverflowError("full")
        self.content.extend(data)


def manager_of(device: DeviceIo, size: int = 8) -> IoManager:
    manager = IoManager()
    manager.register_device_io(device, [PioAddressRange(PORT, size)])
    return manager


@pytest.mark.parametrize("size", [1, 2, 4])
def test_a_string_read_reads_the_same_port_once_for_each_operand_in_order(size: int) -> None:
    fifo = Fifo(bytes(range(1, 13)))
    data = bytearray(b"\xff" * 12)
    manager_of(fifo).pio_read(PORT + 2, data, size)
    assert data == bytes(range(1, 13))
    assert fifo.accesses == [(PORT, 2, bytes(size))] * (12 // size)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_a_string_write_writes_the_same_port_once_for_each_operand_in_order(size: int) -> None:
    fifo = Fifo()
    string = bytes(range(1, 13))
    manager_of(fifo).pio_write(PORT + 2, string, size)
    operands = [string[at : at + size] for at in range(0, 12, size)]
    assert fifo.accesses == [(PORT, 2, operand) for operand in operands]


@pytest.mark.parametrize("size", [1, 2, 4])
def test_one_operand_is_a_plain_access_whether_its_size_is_given_or_not(size: int) -> None:
    fifo = Fifo()
    manager = manager_of(fifo)
    manager.pio_write(PORT, bytes(size))
    manager.pio_write(PORT, bytes(size), size)
    manager.pio_write(PORT, bytes(size), 0)
    assert fifo.accesses == [(PORT, 0, bytes(size))] * 3


@pytest.mark.parametrize(
    ("length", "size"),
    [
        *((0, 0), (3, 0), (5, 0), (8, 0), (6, 3), (8, 8), (4, -1)),  # no operand of IN and OUT
        *((0, 1), (0, 4), (1, 2), (3, 2), (2, 4), (6, 4)),  # not a whole number of them
    ],
)
@pytest.mark.parametrize("port", [PORT, ABSENT])
def test_operands_are_of_1_2_or_4_bytes_and_whole(length: int, size: int, port: int) -> None:
    fifo = Fifo(bytes(64))
    manager = manager_of(fifo)
    for transfer in (manager.pio_read, manager.pio_write):
        with pytest.raises(BadAccessSize, match="allowed: operands of 1, 2 or 4") as caught:
            transfer(port, bytearray(length), size)
        assert caught.value.metadata == {
            "space": "pio",
            "address": f"{port:#x}",
            "length": str(length),
            "size": str(size or length),
            "allowed": "1, 2, 4",
        }
    assert fifo.accesses == []


def test_a_string_may_be_longer_than_the_range_since_each_operand_fits() -> None:
    fifo = Fifo(bytes(4096))
    manager_of(fifo, size=1).pio_read(PORT, bytearray(4096), 1)
    assert len(fifo.accesses) == 4096


def test_an_operand_that_straddles_the_end_of_the_range_is_out_of_range() -> None:
    fifo = Fifo(bytes(64))
    manager = manager_of(fifo)
    for transfer in (manager.pio_read, manager.pio_write):
        with pytest.raises(AccessOutOfRange, match="access of 2 bytes at 0x1f7"):
            transfer(PORT + 7, bytearray(8), 2)
    assert fifo.accesses == []


def test_a_string_to_an_absent_port_is_no_device() -> None:
    manager = manager_of(Fifo())
    for transfer in (manager.pio_read, manager.pio_write):
        with pytest.raises(NoDevice):
            transfer(ABSENT, bytearray(8), 2)


def test_a_device_that_raises_ends_a_string_read_there_and_the_rest_reads_as_zeros() -> None:
    fifo = Fifo(b"\1\2\3\4")
    data = bytearray(b"\xff" * 12)
    with pytest.raises(DeviceFault):
        manager_of(fifo).pio_read(PORT, data, 2)
    assert data == b"\1\2\3\4" + bytes(8)
    assert len(fifo.accesses) == 3


def test_a_device_that_raises_ends_a_string_write_there() -> None:
    fifo = Fifo(room=4)
    with pytest.raises(DeviceFault):
        manager_of(fifo).pio_write(PORT, bytes(range(12)), 2)
    assert list(fifo.content) == [0, 1, 2, 3]
    assert len(fifo.accesses) == 3


def test_a_device_can_not_resize_an_operand_of_a_string() -> None:
    class Generous(DeviceIo):
        def pio_read(self, _base: int, _offset: int, data: WritableBuffer) -> None:
            data[:] = b"too much"

    data = bytearray(b"\xff" * 4)
    with pytest.raises(DeviceFault):
        manager_of(Generous()).pio_read(PORT, data, 2)
    assert data == bytes(4)


def test_a_string_read_fills_a_window_on_shared_memory_and_nothing_around_it() -> None:
    with mmap.mmap(-1, 16) as shared:
        with memoryview(shared) as view, view[4:12] as window:
            manager_of(Fifo(b"\xee" * 8)).pio_read(PORT, window, 4)
        assert shared[:] == bytes(4) + b"\xee" * 8 + bytes(4)
