"""A PCI function as a vfio-user device: what one client of it asks, and gets.

    region 0 to 5   the BARs (`pci_bars`); the second register of a pair is no region
    region 7        configuration space
    region 6, 8     no expansion ROM, no VGA
    interrupts      `pci_irqs`

A client accesses a BAR by its number and the distance from its base. Where the guest has
put it, and whether decoding is on in the command register, is the client's to heed: VMMs
map BARs themselves, and send no access of one that isn't decoded. One that is sent all the
same is made, as with libvfio-user. A function transfers memory of its guest only while
the driver lets it be a bus master (`bus_master`).

DEVICE_RESET resets the device and then the function, as if both had lost power for a
moment; neither, if another thread is in the device for too long. What the client has
connected and shared stays.

When a client goes, all that it had goes with it: memory and eventfds. The device keeps its
state, and configuration space as well, but for one bit. A client may have lost its
connection only, and its guest goes on; and a new guest has the function reset before it
runs, as QEMU does. But it shares its memory before that, and what the guest before had
asked for must not go there. So a function is no bus master for a new client, also one that
goes on from a snapshot, until the driver says so again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from errno import EINVAL, ESHUTDOWN
from typing import Any, Final

from devicehost.access_status import AccessStatus
from devicehost.bus_regions import LIMITS
from devicehost.vfio_user import (
    DeviceFlags,
    DeviceInfo,
    GetDeviceInfo,
    GetIrqInfo,
    GetRegionInfo,
    GetRegionIoFds,
    RegionFlags,
    RegionInfo,
    RegionIoFds,
    RequestPayload,
)
from devicehost_server.devices.base import Hosted
from devicehost_server.endpoints.attached import AttachedDevice
from devicehost_server.endpoints.bus_master import BusMaster
from devicehost_server.endpoints.dma import SharedMemory
from devicehost_server.endpoints.endpoint import Answer, ReadDma, WriteDma
from devicehost_server.endpoints.pci_bars import (
    READ_WRITE,
    Behind,
    Memory,
    Nothing,
    Ports,
    Registers,
)
from devicehost_server.endpoints.pci_irqs import IRQ_COUNT, PciIrqs
from devicehost_server.endpoints.refused import Refused
from devicehost_server.endpoints.shutter import Shutter
from devicehost_server.model.initiator import Initiator
from devicehost_server.model.io_manager import IoManager
from devicehost_server.pci import config_space
from devicehost_server.pci.bars import BarKind
from devicehost_server.pci.config_space import COMMAND, COMMAND_BUS_MASTER
from devicehost_server.pci.function import PciFunction

REGION_CONFIG: Final = 7
REGION_COUNT: Final = 9

_COMMAND_SIZE = 2


@dataclass(frozen=True, slots=True)
class PciEndpoint:
    """What clients of a function reach: an `Endpoint`.

    Attributes:
        function: the function; it is assigned.
        device: the device.
        io: the bus that the device's registers are on.
        reset: resets the device.
        spin_s: the longest that a connection looks for the next access before it sleeps.
    """

    function: PciFunction
    device: Hosted[Any]
    io: IoManager
    reset: Callable[[], None]
    spin_s: float

    def attach(self, read: ReadDma, write: WriteDma) -> PciDevice:
        """Return the function for one more client; `read` and `write` transfer its memory."""
        return PciDevice(self, read, write)


class PciDevice(AttachedDevice):
    """A function, for one client: an `Attached`.

    Args:
        endpoint: what it reaches.
        dma_read: asks the client for bytes of its memory.
        dma_write: gives it some.
    """

    def __init__(self, endpoint: PciEndpoint, dma_read: ReadDma, dma_write: WriteDma) -> None:
        self._endpoint = endpoint
        self._function = function = endpoint.function
        self._shutter = Shutter(endpoint.io)
        self._closing = threading.Lock()
        self._is_closed = False
        self._posted_failures = 0
        self._behind = _behind_bars(endpoint, self._shutter.initiator())
        self._behind[REGION_CONFIG] = function.config
        self._sizes = {bar.index: bar.size for bar in function.bars}
        self._sizes[REGION_CONFIG] = config_space.SIZE
        self._bus_master = BusMaster(function.memory)
        self._memory = SharedMemory(
            self._bus_master.shared, dma_read, dma_write, LIMITS.max_dma_maps
        )
        self._irqs = PciIrqs(function.vectors)
        super().__init__(self._irqs, self._memory)
        self._end_bus_master()  # a snapshot may have brought it back

    def drain(self) -> None:
        """Refuse accesses and resets from here on: the state may be saved now."""
        self._shutter.shut()
        self._behind = {}

    def close(self) -> None:
        """Take back the memory and the eventfds of the client, and make none of its accesses.

        Whatever another thread does for the client, and may hang in, goes on. Once is
        enough.
        """
        self.drain()
        with self._closing:
            if self._is_closed:
                return
            self._is_closed = True
            # First, for whoever signals an eventfd that the client has filled holds up the rest.
            self._irqs.close()
            self._end_bus_master()
            self._memory.close()

    def release(self) -> None:
        """Nothing is left."""

    def ask_to_leave(self) -> bool:
        """Ask the client to let the function go; return whether it can be asked."""
        self._irqs.request_release()
        return self._irqs.takes_requests

    def view(self) -> dict[str, int]:
        """What somebody who debugs sees of the client."""
        return {
            "posted_failures": self._posted_failures,
            "can_be_asked_to_leave": self._irqs.takes_requests,
        }

    def count_posted_failure(self, status: AccessStatus) -> None:
        """Keep account of a posted write that failed."""
        del status
        self._posted_failures += 1

    def read(self, region: int, offset: int, data: memoryview) -> None:
        """Fill `data` from a region.

        Raises:
            Refused: there is nothing to be read there.
            DeviceHostError: the access failed.
        """
        behind = self._behind.get(region)
        if behind is None or offset + len(data) > self._sizes[region]:
            raise self._beyond(region, offset, len(data))
        behind.read(offset, data)

    def write(self, region: int, offset: int, data: bytes | memoryview) -> None:
        """Write `data` to a region. Raises as `read` does."""
        behind = self._behind.get(region)
        if behind is None or offset + len(data) > self._sizes[region]:
            raise self._beyond(region, offset, len(data))
        behind.write(offset, data)
        if region == REGION_CONFIG:
            self._follow_command()

    def reset(self) -> None:
        """Reset the device, then the function.

        Raises:
            Refused: no more accesses are made.
            DeviceHostError: the device is in use, or raised; the function isn't reset.
        """
        if not self._behind:
            raise _shut()
        self._endpoint.reset()
        self._function.reset()
        self._follow_command()

    def describe(self, request: RequestPayload) -> Answer:
        """Say what the function is."""
        match request:
            case GetDeviceInfo():
                flags = DeviceFlags.PCI | DeviceFlags.RESET
                return Answer(DeviceInfo(flags, REGION_COUNT, IRQ_COUNT))
            case GetRegionInfo(index):
                return self._region_info(index)
            case GetRegionIoFds():
                return Answer(RegionIoFds())
            case GetIrqInfo(index):
                return Answer(self._irqs.info(index))
        raise Refused(EINVAL, f"{request!r} is for another device")

    def _region_info(self, index: int) -> Answer:
        if not 0 <= index < REGION_COUNT:
            raise Refused(EINVAL, f"region {index}; allowed: 0 to {REGION_COUNT - 1}")
        size = self._sizes.get(index, 0)
        if not size:
            return Answer(RegionInfo(0, RegionFlags(0)))
        behind = self._behind.get(index)
        if isinstance(behind, Memory):
            info, fd = behind.info(size)
            return Answer(info, (fd,) if fd >= 0 else ())
        return Answer(RegionInfo(size, READ_WRITE))

    def _follow_command(self) -> None:
        """Let the function at its guest's memory as its command register says."""
        enabled = bool(self._function.config.command & COMMAND_BUS_MASTER)
        self._bus_master.enable(enabled=enabled and not self._is_closed)

    def _end_bus_master(self) -> None:
        """Keep the function from its guest's memory until a driver says otherwise."""
        command = self._function.config.command & ~COMMAND_BUS_MASTER
        self._function.config.write(COMMAND, command.to_bytes(_COMMAND_SIZE, "little"))
        self._bus_master.enable(enabled=False)

    def _beyond(self, region: int, offset: int, size: int) -> Refused:
        if not self._behind:
            return _shut()
        there = self._sizes.get(region, 0)
        return Refused(
            EINVAL, f"region {region}: {size} bytes at {offset:#x}; it has {there:#x} bytes"
        )


def _shut() -> Refused:
    return Refused(ESHUTDOWN, "no more accesses are made: the server stops, or the client is gone")


def _behind_bars(endpoint: PciEndpoint, accesses: Initiator) -> dict[int, Behind]:
    """Return what is behind each BAR, by its index."""
    function = endpoint.function
    offered = iter(endpoint.device.offered_memory())
    behind: dict[int, Behind] = {}
    for bar in function.bars:
        if bar.kind is BarKind.MSIX and function.msix is not None:
            behind[bar.index] = function.msix
        elif bar.kind is BarKind.MEMORY:
            memory = next(offered, None)
            behind[bar.index] = Nothing() if memory is None else Memory(memory)
        else:
            kind = Ports if bar.is_io else Registers
            behind[bar.index] = kind(accesses, function.ranges[bar.index].base, bar.length)
    return behind
