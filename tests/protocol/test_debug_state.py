"""DebugService.SaveState and RestoreState: all that fits, or nothing."""

from __future__ import annotations

import json
from typing import Any

import grpc
import pytest

from daemonlab import Lab, refused
from debugwire import SCR, UART, DebugWire
from devicehost_client import DeviceHost

BASE = 0xD000_0000
INVALID = grpc.StatusCode.INVALID_ARGUMENT


@pytest.fixture
def wire(lab: Lab, host: DeviceHost) -> DebugWire:
    """The service, where a UART and registers that interrupt are plugged."""
    host.hotplug.plug("uart16550", device_id="uart0")
    host.hotplug.plug("scratch", {"base": str(BASE), "size": "4", "irq": "5"}, device_id="s")
    return DebugWire(lab.channel())


def changed(states: str, device_id: str, **fields: Any) -> str:
    """States in which a device's has other fields."""
    found = json.loads(states)
    found[device_id]["state"].update(fields)
    return json.dumps(found)


def test_devices_are_as_they_were_saved(lab: Lab, wire: DebugWire, host: DeviceHost) -> None:
    vcpu = host.vcpu(0)
    vcpu.pio_write(UART + SCR, 1, 0x11)
    vcpu.mmio_write(BASE, 4, 0x0100_0000)  # which asserts the interrupt
    states = wire.save()
    vcpu.pio_write(UART + SCR, 1, 0x22)
    vcpu.mmio_write(BASE, 4, 0)
    assert lab.server.interrupts.asserted() == []
    wire.restore(states)
    assert vcpu.pio_read(UART + SCR, 1) == 0x11
    assert lab.server.interrupts.asserted() == [5]


def test_states_are_json_with_the_types_of_the_devices(wire: DebugWire) -> None:
    states = json.loads(wire.save())
    assert {name: entry["type"] for name, entry in states.items()} == {
        "uart0": "uart16550",
        "s": "scratch",
    }
    assert states["s"]["state"] == {"registers": "00000000"}


def test_a_part_of_the_devices_is_saved_and_restored_alone(
    wire: DebugWire, host: DeviceHost
) -> None:
    states = wire.save("s")
    assert json.loads(states).keys() == {"s"}
    host.vcpu(0).pio_write(UART + SCR, 1, 0x22)
    host.vcpu(0).mmio_write(BASE, 4, 7)
    wire.restore(states)
    assert host.vcpu(0).pio_read(UART + SCR, 1) == 0x22
    assert host.vcpu(0).mmio_read(BASE, 4) == 0
    with refused(grpc.StatusCode.NOT_FOUND, "NO_SUCH_DEVICE"):
        wire.save("s", "none")


def test_where_one_state_does_not_fit_no_device_is_changed(
    wire: DebugWire, host: DeviceHost
) -> None:
    vcpu = host.vcpu(0)
    states = wire.save()
    vcpu.pio_write(UART + SCR, 1, 0x33)
    vcpu.mmio_write(BASE, 4, 9)
    with refused(INVALID, "BAD_STATE") as metadata:
        wire.restore(changed(states, "uart0", scratch=0x100))
    assert (metadata["device"], metadata["field"]) == ("uart0", "scratch")
    with refused(INVALID, "BAD_STATE") as metadata:
        wire.restore(changed(states, "s", registers="00"))
    assert (metadata["device"], metadata["field"]) == ("s", "registers")
    assert vcpu.pio_read(UART + SCR, 1) == 0x33
    assert vcpu.mmio_read(BASE, 4) == 9


def test_a_state_is_for_a_device_of_its_type_that_is_there(
    wire: DebugWire, host: DeviceHost
) -> None:
    states = wire.save()
    with refused(INVALID, "BAD_STATE") as metadata:
        wire.restore(states.replace('"scratch"', '"debugcon"', 1))
    assert metadata == {"device": "s", "field": "type"}
    host.hotplug.unplug("s")
    with refused(INVALID, "BAD_STATE") as metadata:
        wire.restore(states)
    assert metadata == {"device": "s", "field": "device"}


@pytest.mark.parametrize("text", ["", "x", "[]", "null", '{"s": 5}', "[" * 10_000])
def test_what_is_no_state_is_refused(wire: DebugWire, text: str) -> None:
    with refused(INVALID, "BAD_STATE") as metadata:
        wire.restore(text)
    assert metadata["field"] == "states"


def test_states_too_large_for_a_message_are_refused_and_a_part_is_not(
    wire: DebugWire, host: DeviceHost
) -> None:
    for number in range(2):
        host.hotplug.plug("scratch", {"size": "1M"}, device_id=f"large{number}")
    with refused(INVALID, "BAD_REQUEST") as metadata:
        wire.save()
    assert metadata["field"] == "device_ids"
    states = wire.save("large0")
    wire.restore(states)
