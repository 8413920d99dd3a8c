"""The bus as a vfio-user device: what one client of it asks, and gets.

`devicehost.bus_regions` says what its regions and interrupts are.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from errno import EINVAL, ENOENT, ESHUTDOWN

from devicehost.access_status import AccessStatus
from devicehost.bus_regions import (
    DOORBELL_OFFSET,
    GSI_COUNT,
    INSTANCE_ID,
    IRQ_COUNT,
    IRQ_GSI,
    LIMITS,
    MMIO_SIZE,
    OPEN_QUEUE,
    PIO_SIZE,
    REGION_COUNT,
    REGION_MMIO,
    REGION_PIO,
    REGION_RING,
    REGION_STATUS,
    RING_QUEUES,
    STATUS_SIZE,
    wake_up_offset,
)
from devicehost.ring.membarrier import is_offered
from devicehost.vfio_user import (
    DeviceFlags,
    DeviceInfo,
    GetDeviceInfo,
    GetIrqInfo,
    GetRegionInfo,
    GetRegionIoFds,
    IoEventFd,
    IrqFlags,
    IrqInfo,
    RegionFlags,
    RegionInfo,
    RegionIoFds,
    RequestPayload,
)
from devicehost_server.endpoints.attached import AttachedDevice
from devicehost_server.endpoints.dma import SharedMemory
from devicehost_server.endpoints.endpoint import Answer, ReadDma, WriteDma
from devicehost_server.endpoints.irqfds import IrqFds
from devicehost_server.endpoints.refused import Refused
from devicehost_server.endpoints.ring import Ring
from devicehost_server.endpoints.shutter import Shutter
from devicehost_server.model.guest_memory import GuestMemory
from devicehost_server.model.holds import Holds
from devicehost_server.model.interrupts import InterruptController
from devicehost_server.model.io_manager import IoManager

_READ_WRITE = RegionFlags.READ | RegionFlags.WRITE


@dataclass(frozen=True, slots=True)
class Bus:
    """What clients of the bus reach: an `Endpoint`.

    Attributes:
        io: makes their accesses.
        interrupts: what their eventfds signal.
        holds: which accesses are held.
        memory: where devices find the memory that they share.
        instance_id: tells this start of the server from others, 16 bytes.
        spin_s: the longest that a connection, and the poller of a ring, looks for the next
            access before it sleeps, in seconds.
    """

    io: IoManager
    interrupts: InterruptController
    holds: Holds
    memory: GuestMemory
    instance_id: bytes
    spin_s: float

    def attach(self, read: ReadDma, write: WriteDma) -> BusDevice:
        """Return the bus for one more client; `read` and `write` transfer its memory."""
        return BusDevice(self, read, write)


class BusDevice(AttachedDevice):
    """The bus, for one client: an `Attached`.

    Args:
        bus: what it reaches.
        dma_read: asks the client for bytes of its memory.
        dma_write: gives it some.

    Attributes:
        posted_failures: how many of its posted writes failed.
        posted_failure: the status of the last of them.
    """

    def __init__(
        self,
        bus: Bus,
        dma_read: ReadDma,
        dma_write: WriteDma,
    ) -> None:
        self._bus = bus
        self._shutter = Shutter(bus.io)
        self._accesses = self._shutter.initiator()  # by the socket: nobody says whose
        self._irqs = IrqFds(bus.interrupts)
        self._memory = SharedMemory(bus.memory, dma_read, dma_write, LIMITS.max_dma_maps)
        super().__init__(self._irqs, self._memory)
        self._ring: Ring | None = None
        self._ring_lock = threading.Lock()
        self._closed = False
        self.posted_failures = 0
        self.posted_failure = AccessStatus.OK

    def drain(self) -> None:
        """Refuse accesses, by the socket and by the ring, from here on."""
        self._shutter.shut()

    def ask_to_leave(self) -> bool:
        """Return that it can't be asked: the bus stays as long as the server does."""
        return False

    def close(self) -> None:
        """Take back the memory and the eventfds of the client, and make none of its accesses.

        Whatever another thread does for the client, and may hang in, goes on. Once is
        enough.
        """
        self._shutter.shut()
        self._memory.close()
        self._irqs.close()

    def release(self) -> None:
        """Take the ring back; it is freed when the accesses that are being made have ended."""
        with self._ring_lock:
            self._closed = True
        if self._ring is not None:
            self._ring.close()

    def view(self) -> dict[str, int]:
        """What somebody who debugs sees of the client."""
        counts = {"posted_failures": self.posted_failures}
        if self._ring is not None:
            counts |= self._ring.view()
        return counts

    def count_posted_failure(self, status: AccessStatus) -> None:
        """Keep account of a posted write that failed."""
        self.posted_failures += 1
        self.posted_failure = status

    def read(self, region: int, offset: int, data: memoryview) -> None:
        """Fill `data` from a region.

        Raises:
            Refused: there is nothing to be read there.
            DeviceHostError: the access failed.
        """
        if region == REGION_MMIO:
            self._accesses.mmio_read(offset, data)
        elif region == REGION_PIO:
            self._accesses.pio_read(offset, data)
        elif region == REGION_STATUS:
            self._read_status(offset, data)
        else:
            raise Refused(EINVAL, f"region {region} can't be read")

    def write(self, region: int, offset: int, data: bytes | memoryview) -> None:
        """Write `data` to a region. Raises as `read` does."""
        if region == REGION_MMIO:
            self._accesses.mmio_write(offset, data)
        elif region == REGION_PIO:
            self._accesses.pio_write(offset, data)
        elif region == REGION_STATUS:
            self._write_status(offset, data)
        else:
            raise Refused(EINVAL, f"region {region} can't be written")

    def reset(self) -> None:
        """Do nothing: each device has a reset of its own, and the bus keeps nothing."""

    def describe(self, request: RequestPayload) -> Answer:
        """Say what the bus is."""
        match request:
            case GetDeviceInfo():
                flags = DeviceFlags.PLATFORM | DeviceFlags.RESET
                return Answer(DeviceInfo(flags, REGION_COUNT, IRQ_COUNT))
            case GetRegionInfo(index):
                return self._region_info(index)
            case GetRegionIoFds():
                return self._region_io_fds(request)
            case GetIrqInfo(index) if index == IRQ_GSI:
                return Answer(IrqInfo(IrqFlags.EVENTFD, GSI_COUNT))
        raise Refused(EINVAL, f"{request!r} is for another device")

    def _region_info(self, index: int) -> Answer:
        sizes = {REGION_PIO: PIO_SIZE, REGION_MMIO: MMIO_SIZE, REGION_STATUS: STATUS_SIZE}
        if index in sizes:
            return Answer(RegionInfo(sizes[index], _READ_WRITE))
        if index != REGION_RING:
            raise Refused(EINVAL, f"there is no region {index}")
        if not is_offered():
            return Answer(RegionInfo(0, RegionFlags(0)))
        ring = self._open_ring()
        return Answer(RegionInfo(ring.size, _READ_WRITE | RegionFlags.MMAP), (ring.fd,))

    def _region_io_fds(self, request: GetRegionIoFds) -> Answer:
        if request.index != REGION_RING or not is_offered():
            return Answer(RegionIoFds())
        ring = self._open_ring()
        fds = (ring.doorbell, *ring.wake_ups)
        offsets = (DOORBELL_OFFSET, *map(wake_up_offset, range(RING_QUEUES)))
        found = RegionIoFds(tuple(IoEventFd(at, 8, n) for n, at in enumerate(offsets)))
        fits = len(found.encode(request)) > len(RegionIoFds().encode(request))
        return Answer(found, fds if fits else ())

    def _open_ring(self) -> Ring:
        with self._ring_lock:
            if self._closed:
                raise Refused(ESHUTDOWN, "the client is gone")
            if self._ring is None:
                bus = self._bus
                self._ring = Ring(
                    self._shutter.initiator,
                    bus.spin_s,
                    interrupts=bus.interrupts,
                    holds=bus.holds,
                )
            return self._ring

    def _read_status(self, offset: int, data: memoryview) -> None:
        if offset >= INSTANCE_ID:
            registers = self._bus.instance_id[offset - INSTANCE_ID :]
        else:
            counts = (self.posted_failures, self.posted_failure)
            registers = b"".join(count.to_bytes(8, "little") for count in counts)[offset:]
        if len(registers) < len(data):
            raise Refused(EINVAL, f"no status register of {len(data)} bytes is at {offset:#x}")
        data[:] = registers[: len(data)]

    def _write_status(self, offset: int, data: bytes | memoryview) -> None:
        if offset != OPEN_QUEUE or len(data) != 8:  # noqa: PLR2004 # a register's size
            raise Refused(EINVAL, f"no status register at {offset:#x} takes {len(data)} bytes")
        queue, owner = int.from_bytes(data[:4], "little"), int.from_bytes(data[4:], "little")
        if self._ring is None or queue >= RING_QUEUES:
            raise Refused(ENOENT, f"there is no queue {queue}")
        self._ring.open_queue(queue, owner - 1 if owner else None)
