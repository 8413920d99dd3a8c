"""HotplugService.UnplugDevice: off the bus, once nobody is in it any more."""

from __future__ import annotations

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from daemonlab import Lab, refused, serving, wait_until
from devicehost.v1 import hotplug_service_pb2 as pb
from devicehost.v1.hotplug_service_pb2_grpc import HotplugServiceStub
from devicehost_client import DeviceHost, RemoteError
from testdevices import LEVEL, Blocker, Caller
from wire import CALL_S, RawStream, mmio_read, mmio_write

BASE = 0xD000_0000


def base_of(device: pb.Device) -> int:
    return device.resources[0].mmio.base


def test_nothing_is_left_of_it(lab: Lab, host: DeviceHost) -> None:
    host.hotplug.plug("register", device_id="other")
    before = lab.leftovers()
    config = {"base": str(BASE), "port": "0x700", "irq": "9"}
    host.hotplug.plug("register", config, device_id="r")
    host.mmio_write(BASE + LEVEL, 1, 1)
    assert lab.server.interrupts.asserted() == [9]
    assert host.hotplug.unplug("r") == 4  # plugged twice, then unplugging and unplugged
    assert lab.leftovers() == before
    assert host.mmio_read(BASE, 4) == 0xFFFF_FFFF
    host.hotplug.plug("register", config, device_id="r")


def test_what_is_not_there_is_refused(lab: Lab, host: DeviceHost) -> None:
    host.hotplug.plug("register", device_id="r")
    before = lab.leftovers()
    with refused(grpc.StatusCode.NOT_FOUND, "NO_SUCH_DEVICE") as metadata:
        host.hotplug.unplug("nobody")
    assert metadata == {"device": "nobody"}
    assert lab.leftovers() == before
    host.hotplug.unplug("r")
    with refused(grpc.StatusCode.NOT_FOUND, "NO_SUCH_DEVICE"):
        host.hotplug.unplug("r")


def test_a_new_device_of_the_same_id_begins_to_count_at_zero(host: DeviceHost) -> None:
    for _ in range(2):
        host.hotplug.plug("register", {"base": str(BASE)}, device_id="r")
        assert host.hotplug.get("r").accesses.reads == 0
        for _ in range(3):
            host.mmio_read(BASE, 4)
        assert host.hotplug.get("r").accesses.reads == 3
        host.hotplug.unplug("r")


def test_a_device_that_raises_as_it_closes_is_gone_all_the_same(lab: Lab, host: DeviceHost) -> None:
    before = lab.leftovers()
    host.hotplug.plug("raiser", {"step": "close"}, device_id="r")
    host.hotplug.unplug("r")
    assert lab.leftovers() == before


# Once for each request.


def test_the_same_request_again_returns_the_same_answer(lab: Lab, host: DeviceHost) -> None:
    stub = HotplugServiceStub(lab.channel())
    host.hotplug.plug("register", device_id="r")
    request = pb.UnplugDeviceRequest(request_id=str(uuid.uuid4()), device_id="r")
    first = stub.UnplugDevice(request, timeout=CALL_S)
    host.hotplug.plug("register", device_id="r")  # another one, which it doesn't mean
    assert stub.UnplugDevice(request, timeout=CALL_S) == first
    assert [device.id for device in host.hotplug.devices()] == ["r"]


def test_an_id_of_another_request_is_refused(lab: Lab, host: DeviceHost) -> None:
    stub = HotplugServiceStub(lab.channel())
    for device_id in ("a", "b"):
        host.hotplug.plug("register", device_id=device_id)
    request = pb.UnplugDeviceRequest(request_id=str(uuid.uuid4()), device_id="a")
    stub.UnplugDevice(request, timeout=CALL_S)
    request.device_id = "b"
    with refused(grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED"):
        stub.UnplugDevice(request, timeout=CALL_S)
    assert [device.id for device in host.hotplug.devices()] == ["b"]


def test_of_many_at_once_one_unplugs_it(lab: Lab) -> None:
    hosts = [lab.host() for _ in range(4)]
    for _ in range(20):
        lab.server.devices.plug("register", device_id="r")
        barrier = threading.Barrier(len(hosts))

        def run(host: DeviceHost, barrier: threading.Barrier = barrier) -> str:
            barrier.wait(CALL_S)
            try:
                host.hotplug.unplug("r")
            except RemoteError as error:
                return error.reason
            return "unplugged"

        with ThreadPoolExecutor(len(hosts)) as threads:
            ends = sorted(threads.map(run, hosts))
        assert ends == ["NO_SUCH_DEVICE"] * 3 + ["unplugged"]
        assert lab.leftovers() == ([], [], [], [])


# If the generation is the expected one.


def test_an_unplug_at_the_expected_generation_works(host: DeviceHost) -> None:
    host.hotplug.plug("register", device_id="r")
    assert host.hotplug.unplug("r", expected_generation=1) == 3


@pytest.mark.parametrize("expected", [0, 2])
def test_an_unplug_at_another_generation_is_refused(host: DeviceHost, expected: int) -> None:
    host.hotplug.plug("register", device_id="r")
    with refused(grpc.StatusCode.ABORTED, "GENERATION_MISMATCH") as metadata:
        host.hotplug.unplug("r", expected_generation=expected)
    assert metadata == {"generation": "1", "expected": str(expected)}
    assert host.hotplug.get("r").state == pb.DEVICE_STATE_PLUGGED


# While it is in use.


def test_a_device_in_use_is_busy_until_its_access_has_ended(tmp_path: Path) -> None:
    with serving(tmp_path, drain_timeout_s=0.1) as lab:
        host = lab.host()
        base = base_of(host.hotplug.plug("blocker", device_id="b"))
        device = lab.server.devices.device("b")
        assert isinstance(device, Blocker)
        with RawStream(lab.channel()) as stream:
            stream.send(mmio_read(1, base, 4))
            assert device.entered.wait(CALL_S)
            for _ in range(2):
                with refused(grpc.StatusCode.ABORTED, "DEVICE_BUSY") as metadata:
                    host.hotplug.unplug("b")
                assert metadata["device"] == "b"
                assert host.hotplug.get("b").state == pb.DEVICE_STATE_UNPLUGGING
            # It is off the bus, but what it has is its own, and so is its name.
            assert host.mmio_read(base, 4) == 0xFFFF_FFFF
            assert not device.closed.is_set()
            assert len(host.resources.allocations()) == 1
            with refused(grpc.StatusCode.ALREADY_EXISTS, "DEVICE_EXISTS"):
                host.hotplug.plug("blocker", device_id="b")
            device.release.set()
            # The access that was in flight is whole.
            assert stream.completion().data == b"\x5a" * 4
        host.hotplug.unplug("b")
        assert device.closed.is_set()
        assert lab.leftovers() == ([], [], [], [])


def test_an_unplug_waits_for_the_access_in_flight(lab: Lab) -> None:
    host = lab.host()
    base = base_of(host.hotplug.plug("blocker", device_id="b"))
    device = lab.server.devices.device("b")
    assert isinstance(device, Blocker)
    with RawStream(lab.channel()) as stream:
        stream.send(mmio_read(1, base, 4))
        assert device.entered.wait(CALL_S)
        unplugging = threading.Thread(target=host.hotplug.unplug, args=("b",))
        unplugging.start()
        wait_until(lambda: lab.server.io.ranges() == [], "it to be off the bus")
        assert not device.closed.is_set()
        device.release.set()
        unplugging.join()
        assert device.closed.is_set()
        assert stream.completion().data == b"\x5a" * 4


def test_a_device_can_be_unplugged_from_inside_its_own_access(lab: Lab, host: DeviceHost) -> None:
    base = base_of(host.hotplug.plug("caller", device_id="c"))
    device = lab.server.devices.device("c")
    assert isinstance(device, Caller)
    closed_inside: list[bool] = []

    def unplug() -> None:
        lab.server.devices.unplug("c")
        closed_inside.append(device.closed.is_set())

    device.on_write = unplug
    with RawStream(lab.channel()) as stream:
        stream.send(mmio_write(1, base, b"\1"), mmio_read(2, base, 1))
        written, read = stream.completions(2)
    assert not written.HasField("failure")
    assert read.failure.info.reason == "NO_DEVICE"
    assert closed_inside == [False]
    assert device.closed.wait(CALL_S)
    wait_until(lambda: lab.leftovers() == ([], [], [], []))


def test_a_device_whose_access_asks_the_server_to_unplug_it_is_busy(tmp_path: Path) -> None:
    # Over the wire the request is another thread's, which waits for the access in vain.
    with serving(tmp_path, drain_timeout_s=0.1) as lab:
        host = lab.host()
        base = base_of(host.hotplug.plug("caller", device_id="c"))
        device = lab.server.devices.device("c")
        assert isinstance(device, Caller)
        reasons: list[str] = []

        def unplug() -> None:
            with refused(grpc.StatusCode.ABORTED, "DEVICE_BUSY") as metadata:
                host.hotplug.unplug("c")
            reasons.append(metadata["device"])

        device.on_write = unplug
        host.mmio_write(base, 1, 1)
        assert reasons == ["c"]
        host.hotplug.unplug("c")
        assert device.closed.is_set()


@pytest.mark.parametrize("exits", ["no", "yes"])
def test_a_device_that_raises_when_it_is_closed_is_gone_all_the_same(
    lab: Lab, host: DeviceHost, exits: str
) -> None:
    before = lab.leftovers()
    host.hotplug.plug("raiser", {"step": "close", "exits": exits}, device_id="r")
    host.hotplug.unplug("r")
    assert lab.leftovers() == before
    host.hotplug.plug("raiser", device_id="r")
