"""DebugService.Peek and Poke: registers without what an access does besides."""

from __future__ import annotations

import grpc
import pytest

from daemonlab import Lab, refused
from debugwire import IER, IIR, LCR, RBR, SCR, UART, DebugWire
from devicehost_client import DeviceHost

NOT_FOUND = grpc.StatusCode.NOT_FOUND


@pytest.fixture
def wire(lab: Lab, host: DeviceHost) -> DebugWire:
    """The service, where a UART and a device without registers are plugged."""
    host.hotplug.plug("uart16550", device_id="uart0")
    host.hotplug.plug("register", device_id="r")
    return DebugWire(lab.channel())


def test_a_peek_tells_value_and_fields(wire: DebugWire, host: DeviceHost) -> None:
    host.vcpu(0).pio_write(UART + LCR, 1, 0x83)
    (found,) = wire.peek("uart0", "LCR")
    assert (found.name, found.value, found.reserved) == ("LCR", 0x83, 0)
    fields = {field.name: field.value for field in found.fields}
    assert fields["DLAB"] == 1
    assert fields["WLS"] == 3
    meanings = {field.name: field.meaning for field in found.fields}
    assert "8" in meanings["WLS"]


def test_without_a_name_all_that_can_be_told_is(wire: DebugWire, host: DeviceHost) -> None:
    host.vcpu(0).pio_write(UART + SCR, 1, 0x55)
    found = {each.name: each.value for each in wire.peek("uart0")}
    assert found["SCR"] == 0x55
    assert {"IER", "LCR", "MCR", "LSR", "DLL", "DLM"} <= found.keys()


def test_a_peek_does_not_do_what_a_read_does(wire: DebugWire, host: DeviceHost) -> None:
    vcpu = host.vcpu(0)
    vcpu.pio_write(UART + IER, 1, 0x02)  # THRE is pending until IIR is read
    for _ in range(3):
        assert wire.peek("uart0", "IIR")[0].value & 0x0F == 0x02
        wire.peek("uart0")
    assert vcpu.pio_read(UART + IIR, 1) & 0x0F == 0x02
    assert vcpu.pio_read(UART + IIR, 1) & 0x0F == 0x01
    assert wire.peek("uart0", "IIR")[0].value & 0x0F == 0x01


def test_a_poke_sets_what_the_guest_then_reads(wire: DebugWire, host: DeviceHost) -> None:
    wire.poke("uart0", "SCR", 0xA5)
    assert host.vcpu(0).pio_read(UART + SCR, 1) == 0xA5
    wire.poke("uart0", "DLL", 0x0C)  # which a guest reaches only with DLAB set
    host.vcpu(0).pio_write(UART + LCR, 1, 0x80)
    assert host.vcpu(0).pio_read(UART + RBR, 1) == 0x0C


def test_peeks_and_pokes_are_no_accesses(wire: DebugWire, host: DeviceHost) -> None:
    wire.peek("uart0")
    wire.poke("uart0", "SCR", 1)
    counts = host.hotplug.get("uart0").accesses
    assert (counts.reads, counts.writes) == (0, 0)


def test_a_device_or_register_that_is_not_there_is_not_found(wire: DebugWire) -> None:
    with refused(NOT_FOUND, "NO_SUCH_DEVICE"):
        wire.peek("none", "LCR")
    with refused(NOT_FOUND, "NO_SUCH_DEVICE"):
        wire.poke("none", "LCR", 0)
    for name in ("NONE", "lcr", "LCR[0]", "R[1"):
        with refused(NOT_FOUND, "NO_SUCH_REGISTER") as metadata:
            wire.peek("uart0", name)
        assert metadata["register"] == name
        assert "LCR" in metadata["known"]
    with refused(NOT_FOUND, "NO_REGISTER_MAP"):
        wire.peek("r", "A")
    with refused(NOT_FOUND, "NO_REGISTER_MAP"):
        wire.peek("r")


def test_what_a_device_cannot_tell_or_set_is_refused(wire: DebugWire) -> None:
    with refused(grpc.StatusCode.FAILED_PRECONDITION, "NOT_PEEKABLE") as metadata:
        wire.poke("uart0", "IIR", 0)
    assert metadata == {"device": "uart0", "register": "IIR"}


@pytest.mark.parametrize("value", [0x100, (1 << 64) - 1])
def test_a_value_that_does_not_fit_is_refused(wire: DebugWire, value: int) -> None:
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "BAD_REQUEST") as metadata:
        wire.poke("uart0", "SCR", value)
    assert metadata["field"] == "value"
    assert wire.peek("uart0", "SCR")[0].value == 0
