"""DebugService's flight recorder: the last accesses, when something has gone wrong."""

from __future__ import annotations

import io

import grpc
import pytest

from daemonlab import Lab, refused
from debugwire import SCR, UART, DebugWire
from devicehost.recording import Recording
from devicehost.recording.events import Access
from devicehost_client import DeviceHost

NOT_ARMED = (grpc.StatusCode.FAILED_PRECONDITION, "NOT_ARMED")


@pytest.fixture
def wire(lab: Lab, host: DeviceHost) -> DebugWire:
    """The service, where a UART is plugged."""
    host.hotplug.plug("uart16550", device_id="uart0")
    return DebugWire(lab.channel())


def kept(wire: DebugWire) -> list[Access]:
    """The accesses that are in the flight recording now."""
    recording = Recording.read(io.BytesIO(wire.flight_recording()))
    found = [event for event in recording if isinstance(event, Access)]
    assert recording.is_complete, recording.damage
    return found


def test_nothing_is_kept_before_it_is_armed(wire: DebugWire) -> None:
    with refused(*NOT_ARMED):
        wire.flight_recording()
    wire.arm_flight_recorder(0)  # it is so already
    with refused(*NOT_ARMED):
        wire.flight_recording()


def test_the_last_accesses_are_kept_at_least_as_many_as_asked_for(
    wire: DebugWire, host: DeviceHost
) -> None:
    wire.arm_flight_recorder(1000)
    assert kept(wire) == []
    vcpu = host.vcpu(0)
    for number in range(20_000):
        vcpu.pio_write(UART + SCR, 1, number & 0xFF)
    found = kept(wire)
    assert 1000 <= len(found) < 20_000
    assert [each.data[0] for each in found] == [
        number & 0xFF for number in range(20_000 - len(found), 20_000)
    ]
    assert kept(wire) == found  # to look takes nothing away


def test_a_flight_recording_tells_of_itself(wire: DebugWire, host: DeviceHost) -> None:
    wire.arm_flight_recorder(10)
    host.vcpu(5).pio_write(UART + SCR, 1, 7)
    (access,) = kept(wire)
    assert (access.vcpu, access.address, access.data) == (5, UART + SCR, b"\7")
    header = Recording.read(io.BytesIO(wire.flight_recording())).header
    assert [(device.id, device.type) for device in header.devices] == [("uart0", "uart16550")]


def test_what_was_kept_is_forgotten_when_it_is_disarmed(wire: DebugWire, host: DeviceHost) -> None:
    wire.arm_flight_recorder(10)
    host.vcpu(0).pio_write(UART + SCR, 1, 7)
    assert len(kept(wire)) == 1
    wire.arm_flight_recorder(0)
    with refused(*NOT_ARMED):
        wire.flight_recording()
    wire.arm_flight_recorder(10)
    assert kept(wire) == []
