"""Dispatch inside the server: from IoManager to a device that answers from a register."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import cycle, islice

from measure import Case, Effort, Result, measure

from devicehost_server.model.device_io import DeviceIo, DeviceIoMut, WritableBuffer
from devicehost_server.model.io_manager import IoManager
from devicehost_server.model.resources import MmioAddressRange

STRIDE = 0x1000
SIZES = (16, 64, 4096)


class Register(DeviceIo):
    """Answers with four bytes that it has at hand."""

    value = (0x1234_5678).to_bytes(4, "little")

    def read(self, base: int, offset: int, data: WritableBuffer) -> None:  # one register
        data[:] = self.value


class LockedRegister(Register, DeviceIoMut):
    """Likewise, one thread at a time, as most devices are."""


def results(effort: Effort) -> Iterator[Result]:
    """Measure with maps of different sizes."""
    cases = [
        Case(
            f"dispatch.{count}",
            f"IoManager.mmio_read, 4 bytes, {count} ranges",
            _reader(count),
            beside="" if count == SIZES[0] else f"dispatch.{SIZES[0]}",
        )
        for count in SIZES
    ]
    locked = Case(
        "dispatch.locked",
        "the same, 64 ranges, of a device with a lock",
        _reader(64, LockedRegister()),
    )
    return measure([*cases, locked], effort).results()


def _reader(count: int, device: DeviceIo | None = None) -> Callable[[int], None]:
    """Reads all over a map of `count` ranges."""
    io = IoManager()
    ranges = [MmioAddressRange(n * STRIDE, 0x100) for n in range(count)]
    io.register_device_io(device or Register(), ranges)
    # A prime step visits the ranges in an order that no cache has learned.
    addresses = [(n * 2_654_435_761 % count) * STRIDE + 0x10 for n in range(500)]
    visits = cycle(addresses)
    data = memoryview(bytearray(4))

    def read(times: int) -> None:
        mmio_read = io.mmio_read
        for address in islice(visits, times):
            mmio_read(address, data)

    return read
