"""HotplugService.ListDevices: the devices, by id."""

from __future__ import annotations

import random
import threading

import grpc
import pytest

from daemonlab import Lab, refused
from devicehost.v1 import hotplug_service_pb2 as pb
from devicehost.v1.hotplug_service_pb2_grpc import HotplugServiceStub
from devicehost_client import DeviceHost
from wire import CALL_S


def page(stub: HotplugServiceStub, size: int, token: str = "") -> pb.ListDevicesResponse:
    request = pb.ListDevicesRequest(page_size=size, page_token=token)
    response: pb.ListDevicesResponse = stub.ListDevices(request, timeout=CALL_S)
    return response


def walk(stub: HotplugServiceStub, size: int) -> list[str]:
    """List all ids, in pages of `size`."""
    ids: list[str] = []
    token = ""
    while True:
        response = page(stub, size, token)
        assert len(response.devices) <= size
        ids += [device.id for device in response.devices]
        token = response.next_page_token
        if not token:
            return ids


def test_devices_are_listed_by_id_with_the_generation(lab: Lab, host: DeviceHost) -> None:
    assert host.hotplug.devices() == []
    for device_id in ("m", "z", "a"):
        host.hotplug.plug("register", device_id=device_id)
    assert [device.id for device in host.hotplug.devices()] == ["a", "m", "z"]
    assert page(HotplugServiceStub(lab.channel()), 0).generation == 3


@pytest.mark.parametrize("size", [1, 2, 249, 250, 1000, (1 << 32) - 1])
def test_pages_of_any_size_make_up_the_list(lab: Lab, size: int) -> None:
    ids = [f"d{number:03}" for number in range(250)]
    for device_id in random.Random(1).sample(ids, len(ids)):
        lab.server.devices.plug("register", {"size": "16"}, device_id=device_id)
    assert walk(HotplugServiceStub(lab.channel()), size) == ids


def test_a_page_without_a_size_has_the_servers_default(lab: Lab, host: DeviceHost) -> None:
    for _ in range(101):
        lab.server.devices.plug("register", {"size": "16"})
    response = page(HotplugServiceStub(lab.channel()), 0)
    assert len(response.devices) == 100
    assert response.next_page_token
    assert len(host.hotplug.devices()) == 101


def test_a_device_that_stays_is_in_every_list_once_whoever_comes_and_goes(lab: Lab) -> None:
    staying = [f"s{number:02}" for number in range(20)]
    for device_id in staying:
        lab.server.devices.plug("register", {"size": "16"}, device_id=device_id)
    stop = threading.Event()

    def come_and_go() -> None:
        chance = random.Random(7)
        while not stop.is_set():
            device_id = f"{chance.choice('ast')}{chance.randrange(20):02}x"
            lab.server.devices.plug("register", {"size": "16"}, device_id=device_id)
            lab.server.devices.unplug(device_id)

    others = threading.Thread(target=come_and_go)
    others.start()
    stub = HotplugServiceStub(lab.channel())
    try:
        lists = [walk(stub, size) for size in (1, 2, 5, 19) for _ in range(3)]
    finally:
        stop.set()
        others.join()
    for ids in lists:
        assert [each for each in ids if each in staying] == staying
        assert ids == sorted(set(ids))


def test_a_token_of_a_device_that_is_gone_still_works(lab: Lab, host: DeviceHost) -> None:
    for device_id in "abcd":
        host.hotplug.plug("register", device_id=device_id)
    stub = HotplugServiceStub(lab.channel())
    token = page(stub, 2).next_page_token
    host.hotplug.unplug("b")
    assert [device.id for device in page(stub, 2, token).devices] == ["c", "d"]


def test_a_token_that_is_none_is_refused(lab: Lab) -> None:
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "BAD_REQUEST") as metadata:
        page(HotplugServiceStub(lab.channel()), 1, "bm9uc2Vuc2U=")
    assert metadata == {"field": "page_token"}
