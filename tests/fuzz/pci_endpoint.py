"""Fuzz target: a connection of a PCI function's socket, with real descriptors.

What is sent, and what holds, is described in `fuzz.scripted`. Configuration space, the
table of MSI-X, and the interrupts of the device are within the client's reach.
"""

from __future__ import annotations

from typing import Final

from devicehost_server.allocation import ResourceManager
from devicehost_server.devices.base import ConcurrentDevice, NoConfig
from devicehost_server.endpoints.pci import PciEndpoint
from devicehost_server.model.guest_memory import GuestMemory
from devicehost_server.model.interrupts import InterruptController
from devicehost_server.model.io_manager import IoManager
from devicehost_server.model.pci import PciDescription, PciIdentity
from devicehost_server.model.resources import (
    LegacyIrqConstraint,
    MmioAddressConstraint,
    PciMsiIrqConstraint,
    PciMsixIrqConstraint,
    PioAddressConstraint,
    ResourceConstraint,
)
from devicehost_server.pci.function import PciFunction
from fuzz.bus_script import DMA, SIZE, Script
from fuzz.scripted import Device, follow
from fuzz.source import Source

OFFSETS: Final = (0, 0x04, 0x40, 0xF8, 0xFC, 0x1F8, 0xFF8, (1 << 64) - 16)
REGIONS: Final = 10
PORTS: Final = 6

NEEDS: Final[tuple[ResourceConstraint, ...]] = (
    MmioAddressConstraint(size=SIZE),
    PioAddressConstraint(size=PORTS),
    LegacyIrqConstraint(),
    PciMsiIrqConstraint(size=4),
    PciMsixIrqConstraint(size=20),
)


class Described(ConcurrentDevice[NoConfig]):
    """What the endpoint asks of a device: nothing, for it offers no memory."""

    def get_resource_constraints(self) -> tuple[ResourceConstraint, ...]:
        return NEEDS


def test_one_input(data: bytes) -> None:
    """Be the client that the input describes, and look at what the server did."""
    follow(Source(data), Script(offsets=OFFSETS, regions=REGIONS, dma=(0, DMA)), _function)


def _function() -> tuple[PciEndpoint, GuestMemory]:
    interrupts, io = InterruptController(), IoManager()
    function = PciFunction("fuzzed", PciDescription(PciIdentity(1, 2, 3)), NEEDS)
    resources = function.assign(ResourceManager().allocate(function.constraints, "fuzzed"))
    device = Device(interrupts, function.memory)
    io.register_device_io(device, resources.trapped())
    vectors = function.vectors
    interrupts.subscribe(lambda event: vectors.changed(event.gsi, event.kind))
    endpoint = PciEndpoint(function, Described(NoConfig()), io, reset=device.reset, spin_s=0)
    return endpoint, function.memory
