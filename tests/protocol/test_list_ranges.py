"""IoService.ListRanges: the address map."""

from __future__ import annotations

import grpc
import pytest

from daemonlab import Lab, refused
from devicehost.v1 import hotplug_service_pb2
from devicehost.v1 import io_service_pb2 as pb
from devicehost.v1.hotplug_service_pb2_grpc import HotplugServiceStub
from devicehost.v1.io_service_pb2_grpc import IoServiceStub
from devicehost_client import DeviceHost
from devicehost_server.model.device_io import DeviceIo
from devicehost_server.model.resources import MMIO_SPACE_SIZE, MmioAddressRange, PioAddressRange
from wire import CALL_S


def listed(host: DeviceHost) -> list[tuple[str, int, int, str]]:
    return [
        (pb.Space.Name(each.space), each.base, each.size, each.device_id) for each in host.ranges()
    ]


def page(stub: IoServiceStub, size: int, token: str = "") -> pb.ListRangesResponse:
    request = pb.ListRangesRequest(page_size=size, page_token=token)
    response: pb.ListRangesResponse = stub.ListRanges(request, timeout=CALL_S)
    return response


def test_an_empty_server_has_an_empty_map(host: DeviceHost) -> None:
    assert listed(host) == []


def test_pio_comes_first_and_each_space_goes_by_address(host: DeviceHost) -> None:
    host.hotplug.plug("register", {"base": "0xd0002000", "port": "0x700"}, device_id="a")
    host.hotplug.plug("register", {"base": "0xd0000000", "port": "0x800"}, device_id="b")
    host.hotplug.plug("register", {"base": "0xd0001000", "size": "16"}, device_id="c")
    assert listed(host) == [
        ("SPACE_PIO", 0x700, 4, "a"),
        ("SPACE_PIO", 0x800, 4, "b"),
        ("SPACE_MMIO", 0xD000_0000, 0x1000, "b"),
        ("SPACE_MMIO", 0xD000_1000, 16, "c"),
        ("SPACE_MMIO", 0xD000_2000, 0x1000, "a"),
    ]
    host.hotplug.unplug("b")
    assert [each[3] for each in listed(host)] == ["a", "c", "a"]


def test_a_whole_space_is_shown(lab: Lab, host: DeviceHost) -> None:
    ranges = [PioAddressRange(0, 1 << 16), MmioAddressRange(0, MMIO_SPACE_SIZE)]
    lab.server.io.register_device_io(DeviceIo(), ranges)
    assert [(base, size) for _, base, size, _ in listed(host)] == [(0, 1 << 16), (0, 0)]


def test_pages_of_any_size_make_up_the_list(lab: Lab, host: DeviceHost) -> None:
    for number in range(7):
        lab.server.devices.plug("register", {"port": hex(0x700 + 4 * number)})
    whole = listed(host)
    assert len(whole) == 14
    stub = IoServiceStub(lab.channel())
    for size in (1, 3, 7, 13, 14, 1000):
        found: list[int] = []
        token = ""
        while True:
            response = page(stub, size, token)
            assert len(response.ranges) <= size
            found += [each.base for each in response.ranges]
            token = response.next_page_token
            if not token:
                break
        assert found == [base for _, base, _, _ in whole]


def test_a_token_goes_on_behind_a_range_that_is_gone(lab: Lab, host: DeviceHost) -> None:
    for number in range(4):
        config = {"base": hex(0xD000_0000 + 0x1000 * number)}
        host.hotplug.plug("register", config, device_id=f"r{number}")
    stub = IoServiceStub(lab.channel())
    first = page(stub, 2)
    host.hotplug.unplug("r1")
    host.hotplug.unplug("r2")
    rest = page(stub, 2, first.next_page_token)
    assert [each.device_id for each in rest.ranges] == ["r3"]
    assert rest.next_page_token == ""


@pytest.mark.parametrize("token", ["x", "????", "W10=", "\u00e4", "[" * 100_000])
def test_a_token_that_is_none_is_refused(lab: Lab, token: str) -> None:
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "BAD_REQUEST") as metadata:
        page(IoServiceStub(lab.channel()), 1, token)
    assert metadata == {"field": "page_token"}


def test_a_token_of_another_list_is_refused(lab: Lab, host: DeviceHost) -> None:
    for _ in range(2):
        host.hotplug.plug("register")
    token = page(IoServiceStub(lab.channel()), 1).next_page_token
    assert token
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "BAD_REQUEST"):
        request = hotplug_service_pb2.ListDevicesRequest(page_token=token)
        HotplugServiceStub(lab.channel()).ListDevices(request, timeout=CALL_S)
