"""HotplugService.ListDeviceTypes: what the server can make."""

from __future__ import annotations

import grpc

from daemonlab import Lab, refused
from devicehost.v1 import hotplug_service_pb2 as pb
from devicehost.v1.hotplug_service_pb2_grpc import HotplugServiceStub
from devicehost_client import DeviceHost
from wire import CALL_S


def test_types_are_listed_by_name_with_their_options(host: DeviceHost) -> None:
    types = {device_type.name: device_type for device_type in host.hotplug.types()}
    assert list(types) == sorted(types)
    register = types["register"]
    assert register.summary == "Memory that can interrupt; its one port, if it has one, is a FIFO."
    assert [option.name for option in register.options] == ["base", "size", "port", "irq"]
    size = register.options[1]
    assert (size.type, size.required, size.default_value) == ("int", False, "4096")
    assert size.help == "bytes of MMIO"
    assert size.allowed == "a number, at least 0x1"
    assert register.options[0].default_value == "none"


def test_the_devices_that_come_with_the_server_are_there(host: DeviceHost) -> None:
    names = {device_type.name for device_type in host.hotplug.types()}
    assert names >= {"i8042", "mc146818", "pl031", "scratch", "uart16550"}
    summaries = [device_type.summary for device_type in host.hotplug.types()]
    assert all(summaries)
    assert not [summary for summary in summaries if "can't be loaded" in summary]


def test_every_type_with_nothing_required_can_be_made(host: DeviceHost) -> None:
    for device_type in host.hotplug.types():
        if not any(option.required for option in device_type.options):
            device = host.hotplug.plug(device_type.name)
            host.hotplug.unplug(device.id)


def test_types_come_in_pages(lab: Lab, host: DeviceHost) -> None:
    stub = HotplugServiceStub(lab.channel())
    request = pb.ListDeviceTypesRequest(page_size=2)
    names: list[str] = []
    while True:
        response = stub.ListDeviceTypes(request, timeout=CALL_S)
        assert len(response.device_types) <= 2
        names += [device_type.name for device_type in response.device_types]
        if not response.next_page_token:
            break
        request.page_token = response.next_page_token
    assert names == [device_type.name for device_type in host.hotplug.types()]


def test_a_token_of_the_devices_is_refused(lab: Lab, host: DeviceHost) -> None:
    for _ in range(2):
        host.hotplug.plug("register")
    stub = HotplugServiceStub(lab.channel())
    devices = stub.ListDevices(pb.ListDevicesRequest(page_size=1), timeout=CALL_S)
    request = pb.ListDeviceTypesRequest(page_token=devices.next_page_token)
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "BAD_REQUEST"):
        stub.ListDeviceTypes(request, timeout=CALL_S)
