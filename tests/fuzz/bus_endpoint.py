"""Fuzz target: a connection of the local socket, with a bus, a device and real descriptors.

What is sent, and what holds, is described in `fuzz.scripted`.
"""

from __future__ import annotations

from devicehost_server.endpoints.bus import Bus
from devicehost_server.model.guest_memory import GuestMemory
from devicehost_server.model.holds import Holds
from devicehost_server.model.interrupts import InterruptController
from devicehost_server.model.io_manager import IoManager
from devicehost_server.model.resources import MmioAddressRange, PioAddressRange
from fuzz.bus_script import BASE, PORT, SIZE, Script
from fuzz.scripted import Device, follow
from fuzz.source import Source


def test_one_input(data: bytes) -> None:
    """Be the client that the input describes, and look at what the server did."""
    follow(Source(data), Script(), _bus)


def _bus() -> tuple[Bus, GuestMemory]:
    interrupts, memory, io = InterruptController(), GuestMemory(), IoManager()
    device = Device(interrupts, memory)
    io.register_device_io(device, [MmioAddressRange(BASE, SIZE), PioAddressRange(PORT, SIZE)])
    return Bus(io, interrupts, Holds(), memory, instance_id=bytes(16), spin_s=0), memory
