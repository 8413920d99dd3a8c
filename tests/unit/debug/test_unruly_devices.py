"""Devices that break their side of what a debugger asks: that is no trouble of anybody else's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from devicehost.registers import Register, RegisterMap
from devicehost_server.debug.breakpoint import Breakpoint, BreakpointAction
from devicehost_server.devices.base import Device, NoConfig
from devicehost_server.devices.registry import DeviceTypes
from devicehost_server.model.errors import DeviceFault
from devicehost_server.model.resources import (
    MmioAddressConstraint,
    MmioAddressRange,
    PioAddressRange,
    ResourceConstraint,
)
from devicehost_server.server import DeviceServer, ServerConfig

BASE, GOOD = 0xD000_0000, 0xD100_0000


class Unruly(Device[NoConfig]):
    """Has a map with two registers of one name, and says once only where it is."""

    type_name = "unruly"
    asked = False

    def get_resource_constraints(self) -> list[ResourceConstraint]:
        return [MmioAddressConstraint.exact(BASE, 0x1000)]

    def get_trapped_io_resources(self) -> Sequence[PioAddressRange | MmioAddressRange]:
        if self.asked:
            raise RuntimeError("I said so already")
        self.asked = True
        return super().get_trapped_io_resources()

    def get_register_map(self) -> RegisterMap:
        return RegisterMap("unruly", (Register("A", 0), Register("A", 0)))


@pytest.fixture
def server() -> Iterator[DeviceServer]:
    running = DeviceServer(ServerConfig(), DeviceTypes([Unruly]))
    running.devices.plug("unruly", device_id="u")
    running.devices.plug("scratch", {"base": str(GOOD)}, device_id="s")
    yield running
    running.stop()


def test_a_map_that_breaks_a_rule_is_a_fault_of_its_device(server: DeviceServer) -> None:
    with pytest.raises(DeviceFault, match="two of this name"):
        server.debugger.registers.of("u")


def test_a_trace_shows_the_others_by_name(server: DeviceServer) -> None:
    vcpu = server.io.initiator(0)
    with server.debugger.trace() as feed:
        vcpu.mmio_read(BASE, bytearray(4))
        vcpu.mmio_read(GOOD, bytearray(4))
        _, events = next(iter(feed))
    assert [each.device for each in events] == ["", "s"]


def test_an_access_of_one_that_does_not_say_where_it_is_passes_breakpoints(
    server: DeviceServer,
) -> None:
    breakpoints = server.debugger.breakpoints
    made = breakpoints.create(Breakpoint(action=BreakpointAction.LOG))
    data = bytearray(4)
    server.io.initiator(0).mmio_read(BASE, data)
    assert [each.hits for each in breakpoints.list()] == [1]
    breakpoints.delete(made.id)
