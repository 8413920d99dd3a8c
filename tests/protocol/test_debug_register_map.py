"""DebugService.GetRegisterMap and SetRegisterMap: what registers are called."""

from __future__ import annotations

import json
from typing import Any

import grpc
import pytest

from daemonlab import Lab, refused
from debugwire import UART, DebugWire
from devicehost.registers import Register, RegisterMap, from_json, to_json
from devicehost.v1 import debug_service_pb2 as pb
from devicehost_client import DeviceHost
from wire import CALL_S

BASE = 0xD000_0000
GIVEN = RegisterMap("board", (Register("FIRST", 0, 4), Register("ROW", 16, 2, count=8)))


@pytest.fixture
def wire(lab: Lab, host: DeviceHost) -> DebugWire:
    """The service, where a UART and a device without registers are plugged."""
    host.hotplug.plug("uart16550", device_id="uart0")
    host.hotplug.plug("register", {"base": str(BASE)}, device_id="r")
    return DebugWire(lab.channel())


def get(wire: DebugWire, **fields: Any) -> RegisterMap:
    response = wire.call.GetRegisterMap(pb.GetRegisterMapRequest(**fields), timeout=CALL_S)
    return from_json(json.loads(response.register_map))


def give(wire: DebugWire, device_id: str, register_map: RegisterMap | str) -> None:
    text = register_map if isinstance(register_map, str) else json.dumps(to_json(register_map))
    request = pb.SetRegisterMapRequest(device_id=device_id, register_map=text)
    wire.call.SetRegisterMap(request, timeout=CALL_S)


def test_a_device_and_its_type_say_what_registers_there_are(wire: DebugWire) -> None:
    of_device = get(wire, device_id="uart0")
    assert of_device == get(wire, type="uart16550")
    assert of_device.register("LCR").field("DLAB").mask == 0x80


def test_a_type_s_map_is_without_the_configuration_of_a_device(
    wire: DebugWire, host: DeviceHost
) -> None:
    config = {"bus": "mmio", "base": "0xd1000000", "reg_shift": "2", "irq": "none"}
    host.hotplug.plug("uart16550", config, device_id="wide")
    assert get(wire, device_id="wide").register("LCR").offset == 12
    assert get(wire, type="uart16550").register("LCR").offset == 3


def test_the_names_of_a_given_map_are_used_until_its_own_is_again(
    wire: DebugWire, host: DeviceHost
) -> None:
    with refused(grpc.StatusCode.NOT_FOUND, "NO_REGISTER_MAP"):
        get(wire, device_id="r")
    give(wire, "r", GIVEN)
    assert get(wire, device_id="r") == GIVEN
    with wire.trace(filter=pb.AccessFilter(registers=["r.FIRST", "r.ROW[3]"])) as trace:
        vcpu = host.vcpu(0)
        vcpu.mmio_write(BASE, 4, 0x12345678)
        vcpu.mmio_write(BASE + 20, 2, 0)  # ROW[2]
        vcpu.mmio_write(BASE + 22, 2, 0xBEEF)
        one, other = trace.accesses(2)
    assert [(each.name, each.value) for each in one.registers] == [("FIRST", 0x12345678)]
    assert [(each.name, each.value) for each in other.registers] == [("ROW[3]", 0xBEEF)]
    give(wire, "r", "")
    with refused(grpc.StatusCode.NOT_FOUND, "NO_REGISTER_MAP"):
        get(wire, device_id="r")


def test_a_given_map_goes_with_its_device(wire: DebugWire, host: DeviceHost) -> None:
    give(wire, "uart0", GIVEN)
    assert get(wire, device_id="uart0") == GIVEN
    host.hotplug.unplug("uart0")
    host.hotplug.plug("uart16550", {"base": str(UART)}, device_id="uart0")
    assert get(wire, device_id="uart0") == get(wire, type="uart16550")


@pytest.mark.parametrize("text", ["x", "{}", "[]", "[" * 10_000, '{"name": "b", "registers": 1}'])
def test_what_is_no_register_map_is_refused(wire: DebugWire, text: str) -> None:
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "BAD_REQUEST") as metadata:
        give(wire, "uart0", text)
    assert metadata["field"] == "register_map"
    assert get(wire, device_id="uart0") == get(wire, type="uart16550")


def test_a_map_that_breaks_a_rule_is_refused(wire: DebugWire) -> None:
    twice = json.dumps(to_json(GIVEN)).replace('"ROW"', '"FIRST"')
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "BAD_REQUEST") as metadata:
        give(wire, "uart0", twice)
    assert metadata["field"] == "register_map"


def test_who_asks_names_a_device_or_a_type(wire: DebugWire) -> None:
    with refused(grpc.StatusCode.NOT_FOUND, "NO_SUCH_DEVICE"):
        get(wire, device_id="none")
    with refused(grpc.StatusCode.NOT_FOUND, "NO_SUCH_DEVICE"):
        give(wire, "none", GIVEN)
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "UNKNOWN_DEVICE_TYPE"):
        get(wire, type="none")
    with refused(grpc.StatusCode.NOT_FOUND, "NO_REGISTER_MAP"):
        get(wire, type="register")
    for fields in ({}, {"device_id": "uart0", "type": "uart16550"}):
        with refused(grpc.StatusCode.INVALID_ARGUMENT, "BAD_REQUEST"):
            get(wire, **fields)
