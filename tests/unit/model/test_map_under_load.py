"""Readers hammer the bus while a writer changes it: they see the old map or the new, never half.

Each generation of devices replaces the one before it, in one transaction: other ranges, the
same bytes. Whoever read generation n at one address can't read an older one at another. And
when the commit has returned, no access is in the devices of before.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import pairwise

import pytest

from devicehost_server.model.device_io import DeviceIo, DeviceIoMut, WritableBuffer
from devicehost_server.model.errors import AccessOutOfRange, NoDevice
from devicehost_server.model.io_manager import IoManager
from devicehost_server.model.resources import MmioAddressRange, PioAddressRange, Resource

LOW, HIGH, PORT = 0x1000, 0x9000, 0x60
BRIDGE, STEADY, PASSING = 0x20000, 0x30000, 0x30008
SIZE = 8
GENERATIONS = 150
READERS = 3
WAIT_S = 60.0


class Generation(DeviceIo):
    """Reads as its number. It must not be used once it is gone."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.gone = False
        self.used_when_gone = False

    def read(self, base: int, offset: int, data: WritableBuffer) -> None:
        data[:] = self.number.to_bytes(len(data), "little")
        if self.gone:
            self.used_when_gone = True

    def pio_read(self, base: int, offset: int, data: WritableBuffer) -> None:
        self.read(base, offset, data)


class GenerationMut(Generation, DeviceIoMut):
    """Likewise, one thread at a time."""


class Bridge(DeviceIo):
    """Passes a read on to HIGH: an access inside of an access."""

    def __init__(self, manager: IoManager) -> None:
        self._manager = manager

    def read(self, base: int, offset: int, data: WritableBuffer) -> None:
        self._manager.mmio_read(HIGH + offset, data)


def layout(number: int) -> list[Resource]:
    """Return the ranges of a generation: the same bytes as all, cut another way."""
    cut = 1 + number % (SIZE - 1)
    ranges: list[Resource] = [PioAddressRange(PORT, 4)]
    for base in (LOW, HIGH):
        ranges += [MmioAddressRange(base, cut), MmioAddressRange(base + cut, SIZE - cut)]
    return ranges if number % 2 else ranges[::-1]


@pytest.fixture(autouse=True)
def many_interleavings() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


def number_at(read: Callable[[int, bytearray], None], address: int) -> int:
    data = bytearray(1)
    read(address, data)
    return data[0]


@pytest.mark.parametrize("kind", [Generation, GenerationMut])
def test_readers_see_the_old_map_or_the_new_one_and_nobody_is_in_a_device_that_is_gone(
    kind: type[Generation],
) -> None:
    manager = IoManager(drain_timeout_s=WAIT_S, lock_timeout_s=WAIT_S)
    generations = [kind(number) for number in range(GENERATIONS)]
    manager.register_device_io(generations[0], layout(0))
    manager.register_device_io(Bridge(manager), [MmioAddressRange(BRIDGE, SIZE)])
    together, done = threading.Barrier(READERS + 1), threading.Event()

    def read_all_the_time() -> None:
        together.wait(WAIT_S)
        newest = 0
        while not done.is_set():
            for read, address in (
                *((manager.mmio_read, LOW), (manager.mmio_read, HIGH + SIZE - 1)),
                *((manager.pio_read, PORT), (manager.mmio_read, BRIDGE)),
                *((manager.mmio_read, HIGH), (manager.mmio_read, LOW + SIZE - 1)),
            ):
                number = number_at(read, address)
                assert number >= newest
                newest = number
            with pytest.raises(AccessOutOfRange):  # there always is a cut
                manager.mmio_read(LOW, bytearray(SIZE))

    def replace_all_the_time() -> None:
        together.wait(WAIT_S)
        for old, new in pairwise(generations):
            with manager.begin_tx() as tx:
                tx.unregister_device_io(layout(old.number))
                tx.register_device_io(new, layout(new.number))
            old.gone = True

    with ThreadPoolExecutor(READERS + 1) as pool:
        reading = [pool.submit(read_all_the_time) for _ in range(READERS)]
        try:
            pool.submit(replace_all_the_time).result(WAIT_S)
        finally:
            done.set()
        for reader in reading:
            reader.result(WAIT_S)
    assert [device.number for device in generations if device.used_when_gone] == []
    assert number_at(manager.mmio_read, LOW) == GENERATIONS - 1


def test_a_device_that_stays_answers_every_access_while_its_neighbours_come_and_go() -> None:
    manager = IoManager(drain_timeout_s=WAIT_S)
    manager.register_device_io(Generation(7), [MmioAddressRange(STEADY, SIZE)])
    together, done = threading.Barrier(READERS + 1), threading.Event()

    def read_all_the_time() -> None:
        together.wait(WAIT_S)
        while not done.is_set():
            assert number_at(manager.mmio_read, STEADY) == 7
            assert number_at(manager.mmio_read, STEADY + SIZE - 1) == 7
            with suppress(NoDevice):
                assert number_at(manager.mmio_read, PASSING) == 9

    def come_and_go() -> None:
        together.wait(WAIT_S)
        neighbours = [MmioAddressRange(STEADY - 1, 1), MmioAddressRange(PASSING, SIZE)]
        for _ in range(GENERATIONS):
            manager.register_device_io(Generation(9), neighbours)
            manager.unregister_device_io(neighbours)

    with ThreadPoolExecutor(READERS + 1) as pool:
        reading = [pool.submit(read_all_the_time) for _ in range(READERS)]
        try:
            pool.submit(come_and_go).result(WAIT_S)
        finally:
            done.set()
        for reader in reading:
            reader.result(WAIT_S)
