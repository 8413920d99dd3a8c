"""Dispatch inside the server: from IoManager to a device that answers from a register."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from measure import Result, result, time_batches

from devicehost_server.model.counters import AccessCounters
from devicehost_server.model.device_io import DeviceIo, DeviceIoMut, WritableBuffer
from devicehost_server.model.io_manager import IoManager
from devicehost_server.model.live_map import Observer
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


def results(*, quick: bool) -> Iterator[Result]:
    """Measure with maps of different sizes, taking turns."""
    readers = {count: _reader(count) for count in SIZES}
    samples: dict[int, list[float]] = {count: [] for count in SIZES}
    for _ in range(10 if quick else 40):
        for count, reader in readers.items():
            samples[count] += time_batches(reader, 20, 500)
    for count in SIZES:
        yield result(
            f"dispatch.{count}", samples[count], f"IoManager.mmio_read, 4 bytes, {count} ranges"
        )
    hosted = _reader(64, LockedRegister(), AccessCounters())
    hosted_samples = [sample for _ in range(10) for sample in time_batches(hosted, 20, 500)]
    yield result(
        "dispatch.hosted", hosted_samples, "the same, 64 ranges, with a lock and counted accesses"
    )


def _reader(
    count: int, device: DeviceIo | None = None, observer: Observer | None = None
) -> Callable[[int], None]:
    """Reads all over a map of `count` ranges."""
    io = IoManager()
    io.observe(observer)
    ranges = [MmioAddressRange(n * STRIDE, 0x100) for n in range(count)]
    io.register_device_io(device or Register(), ranges)
    # A prime step visits the ranges in an order that no cache has learned.
    addresses = [(n * 2_654_435_761 % count) * STRIDE + 0x10 for n in range(500)]
    data = memoryview(bytearray(4))

    def read(times: int) -> None:
        mmio_read = io.mmio_read
        for address in addresses[:times]:
            mmio_read(address, data)

    return read
