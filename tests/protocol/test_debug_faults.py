"""DebugService's faults: devices that misbehave on purpose, until they are told not to."""

from __future__ import annotations

import time

import grpc
import pytest

from daemonlab import Lab, refused, wait_until
from debugwire import LCR, LSR, SCR, UART, DebugWire, in_thread
from devicehost.v1 import debug_service_pb2 as pb
from devicehost_client import DeviceHost
from wire import CALL_S

THRE = 0x20


@pytest.fixture
def wire(lab: Lab, host: DeviceHost) -> DebugWire:
    """The service, where a UART is plugged."""
    host.hotplug.plug("uart16550", device_id="uart0")
    return DebugWire(lab.channel())


def delete(wire: DebugWire, fault_id: int) -> None:
    wire.call.DeleteFault(pb.DeleteFaultRequest(fault_id=fault_id), timeout=CALL_S)


def test_bits_stick_until_the_fault_is_deleted(wire: DebugWire, host: DeviceHost) -> None:
    vcpu = host.vcpu(0)
    made = wire.fault("uart0.LSR", stuck_at_zero=THRE)
    assert vcpu.pio_read(UART + LSR, 1) & THRE == 0
    assert wire.peek("uart0", "LSR")[0].value & THRE  # the device knows better
    delete(wire, made.id)
    assert vcpu.pio_read(UART + LSR, 1) & THRE
    made = wire.fault("uart0.SCR", stuck_at_one=0x81)
    assert vcpu.pio_read(UART + SCR, 1) == 0x81


def test_a_device_is_gone_fails_or_is_slow(wire: DebugWire, host: DeviceHost) -> None:
    vcpu = host.vcpu(0)
    with wire.trace() as trace:
        wire.fault("uart0.SCR", gone=True)
        wire.fault("uart0.LCR", failing=True)
        vcpu.pio_read(UART + SCR, 1)
        vcpu.pio_read(UART + LCR, 1)
        assert [each.failure for each in trace.accesses(2)] == ["NO_DEVICE", "DEVICE_FAULT"]
    wire.fault("uart0.LSR", delay_us=50_000)
    begun = time.monotonic()
    assert vcpu.pio_read(UART + LSR, 1) == 0x60
    assert time.monotonic() - begun >= 0.05


def test_faults_are_numbered_and_listed_with_their_counts(
    wire: DebugWire, host: DeviceHost
) -> None:
    one = wire.fault("uart0.SCR", stuck_at_one=1, percent=50, seed=7)
    two = wire.fault(filter=pb.AccessFilter(device_ids=["uart0"], vcpus=[9]), gone=True)
    assert (one.id, two.id) == (1, 2)
    for _ in range(200):
        host.vcpu(0).pio_read(UART + SCR, 1)
    first, second = wire.faults()
    assert first.count == 100
    first.count = 0
    assert first == one
    assert second == two
    delete(wire, 1)
    assert wire.faults() == [two]
    with refused(grpc.StatusCode.NOT_FOUND, "NO_SUCH_FAULT"):
        delete(wire, 1)


@pytest.mark.parametrize("again", [False, True])
def test_the_same_seed_makes_the_same_choices(
    wire: DebugWire, host: DeviceHost, *, again: bool
) -> None:
    def choices(seed: int) -> list[int]:
        made = wire.fault("uart0.SCR", stuck_at_one=1, percent=30, seed=seed)
        found = [host.vcpu(0).pio_read(UART + SCR, 1) for _ in range(100)]
        delete(wire, made.id)
        return found

    assert (choices(5) == choices(5 if again else 6)) == again


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, "kind"),
        ({"gone": False}, "gone"),
        ({"delay_us": 10_000_001}, "delay_us"),
        ({"stuck_at_one": 0}, "stuck_at_one"),
        ({"gone": True, "percent": 101}, "percent"),
        ({"gone": True, "filter": pb.AccessFilter(value=1)}, "filter.value"),
        ({"gone": True, "filter": pb.AccessFilter(registers=["SCR"])}, "filter.registers"),
    ],
)
def test_a_fault_that_cannot_be_is_refused(
    wire: DebugWire, fields: dict[str, object], field: str
) -> None:
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "BAD_REQUEST") as metadata:
        wire.fault(**fields)
    assert metadata["field"] == field
    assert wire.faults() == []


@pytest.mark.parametrize(
    ("register", "reason"), [("none.SCR", "NO_SUCH_DEVICE"), ("uart0.NONE", "NO_SUCH_REGISTER")]
)
def test_a_fault_needs_registers_that_are_there(
    wire: DebugWire, register: str, reason: str
) -> None:
    with refused(grpc.StatusCode.NOT_FOUND, reason):
        wire.fault(register, gone=True)


def test_faults_end_with_the_server_s_work(lab: Lab, wire: DebugWire, host: DeviceHost) -> None:
    wire.fault("uart0.SCR", delay_us=10_000_000)
    done = in_thread(lambda: host.vcpu(0).pio_read(UART + SCR, 1))
    wait_until(lambda: wire.faults()[0].count == 1)
    begun = time.monotonic()
    lab.server.stop()
    assert time.monotonic() - begun < 8
    done.result(CALL_S)
