"""A bench for one device: resources, a clock that the test moves, interrupts it can look at."""

from __future__ import annotations

from typing import Any, TypeVar

from devicehost_server.devices.base import DeviceContext, Hosted
from devicehost_server.model.clock import ManualClock
from devicehost_server.model.guest_memory import GuestMemory
from devicehost_server.model.interrupts import InterruptController
from devicehost_server.model.resources import (
    AddressConstraint,
    DeviceResources,
    LegacyIrq,
    LegacyIrqConstraint,
    MmioAddressConstraint,
    MmioAddressRange,
    MsiConstraint,
    MsiIrq,
    PioAddressConstraint,
    PioAddressRange,
    Resource,
    ResourceConstraint,
)

D = TypeVar("D", bound=Hosted[Any])

FREE_BASE = 0x1000
FREE_MSI = 24
FREE_IRQ = 5


def satisfy(constraint: ResourceConstraint) -> Resource:
    """Give what was asked for at its lowest address; one device has the space to itself."""
    if isinstance(constraint, AddressConstraint):
        base = FREE_BASE if constraint.min is None else constraint.min
        kind = {PioAddressConstraint: PioAddressRange, MmioAddressConstraint: MmioAddressRange}
        return kind[type(constraint)](base, constraint.size)
    if isinstance(constraint, LegacyIrqConstraint):
        return LegacyIrq(FREE_IRQ if constraint.irq is None else constraint.irq)
    if isinstance(constraint, MsiConstraint):
        return MsiIrq(constraint.ty, FREE_MSI, constraint.size)
    raise TypeError(f"no device on the bench needs {constraint!r}")


class Lab:
    """Where a device under test lives."""

    def __init__(self, wall_ns: int = 0) -> None:
        self.clock = ManualClock(wall_ns)
        self.interrupts = InterruptController()
        self.memory = GuestMemory()

    def host(self, device: D) -> D:
        """Lead `device` through its life up to the first access."""
        resources = DeviceResources(satisfy(c) for c in device.get_resource_constraints())
        device.assign(DeviceContext("dut", resources, self.clock, self.interrupts, self.memory))
        device.start()
        return device

    def asserted(self, gsi: int) -> bool:
        return gsi in self.interrupts.asserted()


def pio_in(device: Hosted[Any], port: int, size: int = 1) -> int:
    """Read `port` (absolute) of a device with one PIO range or several."""
    data = bytearray(size)
    base = _range_of(device, port)
    device.pio_read(base, port - base, data)  # type: ignore[attr-defined]
    return int.from_bytes(data, "little")


def pio_out(device: Hosted[Any], port: int, value: int, size: int = 1) -> None:
    """Write `value` to `port` (absolute)."""
    base = _range_of(device, port)
    device.pio_write(base, port - base, value.to_bytes(size, "little"))  # type: ignore[attr-defined]


def mmio_in(device: Hosted[Any], address: int, size: int = 4) -> int:
    """Read `address` (guest-physical)."""
    data = bytearray(size)
    base = _range_of(device, address)
    device.read(base, address - base, data)  # type: ignore[attr-defined]
    return int.from_bytes(data, "little")


def mmio_out(device: Hosted[Any], address: int, value: int, size: int = 4) -> None:
    """Write `value` to `address` (guest-physical)."""
    base = _range_of(device, address)
    device.write(base, address - base, value.to_bytes(size, "little"))  # type: ignore[attr-defined]


def _range_of(device: Hosted[Any], address: int) -> int:
    for trapped in device.get_assigned_resources().trapped():
        if trapped.base <= address <= trapped.last:
            return trapped.base
    raise LookupError(f"{device.name} has no range at {address:#x}")
