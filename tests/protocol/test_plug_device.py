"""HotplugService.PlugDevice: all of it or nothing, once for each request."""

from __future__ import annotations

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from daemonlab import Lab, refused, wait_until
from devicehost.v1 import hotplug_service_pb2 as pb
from devicehost.v1.hotplug_service_pb2_grpc import HotplugServiceStub
from devicehost_client import DeviceHost, RemoteError
from testdevices import STEPS, Raiser
from wire import CALL_S

ID_MAX = 64


@pytest.fixture
def stub(lab: Lab) -> HotplugServiceStub:
    return HotplugServiceStub(lab.channel())


def plug(stub: HotplugServiceStub, request: pb.PlugDeviceRequest) -> pb.Device:
    response: pb.PlugDeviceResponse = stub.PlugDevice(request, timeout=CALL_S)
    return response.device


def request_id() -> str:
    return str(uuid.uuid4())


# What comes back.


def test_the_device_comes_with_all_that_it_got(host: DeviceHost) -> None:
    config = {"base": "0xd0000000", "port": "0x700", "irq": "9"}
    device = host.hotplug.plug("register", config, device_id="r")
    assert (device.id, device.type, device.generation) == ("r", "register", 1)
    assert device.state == pb.DEVICE_STATE_PLUGGED
    assert dict(device.config) == config
    mmio, pio, irq = device.resources
    assert (mmio.mmio.base, mmio.mmio.size) == (0xD000_0000, 0x1000)
    assert (pio.pio.base, pio.pio.size) == (0x700, 4)
    assert irq.legacy_irq == 9
    assert (device.accesses.reads, device.accesses.writes, device.accesses.faults) == (0, 0, 0)


def test_the_device_is_on_the_bus_when_the_call_returns(host: DeviceHost) -> None:
    host.hotplug.plug("register", {"base": "0xd0000000"})
    host.mmio_write(0xD000_0000, 4, 0x1234)
    assert host.mmio_read(0xD000_0000, 4) == 0x1234


def test_a_device_without_an_id_gets_one_from_its_type(host: DeviceHost) -> None:
    assert [host.hotplug.plug("register").id for _ in range(3)] == [
        "register-0",
        "register-1",
        "register-2",
    ]
    host.hotplug.unplug("register-1")
    assert host.hotplug.plug("register").id == "register-1"


@pytest.mark.parametrize("device_id", ["a" * (ID_MAX + 1), "a/b", " ", "-x", "a\nb", "ä"])
def test_an_id_that_is_no_name_is_refused(lab: Lab, host: DeviceHost, device_id: str) -> None:
    before = lab.leftovers()
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "BAD_REQUEST"):
        host.hotplug.plug("register", device_id=device_id)
    assert lab.leftovers() == before


# Once for each request.


def test_the_same_request_again_returns_the_same_device(stub: HotplugServiceStub) -> None:
    request = pb.PlugDeviceRequest(request_id=request_id(), type="register")
    first = plug(stub, request)
    assert plug(stub, request) == first
    assert len(stub.ListDevices(pb.ListDevicesRequest(), timeout=CALL_S).devices) == 1


def test_requests_without_an_id_are_each_their_own(stub: HotplugServiceStub) -> None:
    request = pb.PlugDeviceRequest(type="register")
    assert plug(stub, request).id != plug(stub, request).id


def test_the_same_request_from_many_at_once_makes_one_device(lab: Lab) -> None:
    request = pb.PlugDeviceRequest(
        request_id=request_id(), type="register", config={"base": "0xd0000000"}
    )
    stubs = [HotplugServiceStub(lab.channel()) for _ in range(8)]
    barrier = threading.Barrier(len(stubs))

    def run(stub: HotplugServiceStub) -> list[pb.Device]:
        barrier.wait(CALL_S)
        return [plug(stub, request) for _ in range(5)]

    with ThreadPoolExecutor(len(stubs)) as threads:
        answers = [answer for each in threads.map(run, stubs) for answer in each]
    assert len(answers) == 40
    assert all(answer == answers[0] for answer in answers)
    assert [info.id for info in lab.server.devices.devices()[1]] == ["register-0"]
    assert lab.server.devices.generation == 1


@pytest.mark.parametrize(
    "change",
    [{"type": "blocker"}, {"device_id": "other"}, {"config": {"irq": "9"}}],
    ids=["type", "id", "config"],
)
def test_an_id_of_another_request_is_refused(
    lab: Lab, stub: HotplugServiceStub, change: dict[str, object]
) -> None:
    request = pb.PlugDeviceRequest(request_id=request_id(), type="register", device_id="r")
    plug(stub, request)
    before = lab.leftovers()
    other = pb.PlugDeviceRequest(request_id=request.request_id)
    other.MergeFrom(request)
    other.MergeFrom(pb.PlugDeviceRequest(**change))  # type: ignore[arg-type] # some field
    with refused(grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED") as metadata:
        plug(stub, other)
    assert metadata == {"request_id": request.request_id}
    assert lab.leftovers() == before


def test_an_id_of_another_method_is_refused(stub: HotplugServiceStub) -> None:
    request = pb.PlugDeviceRequest(request_id=request_id(), type="register", device_id="r")
    plug(stub, request)
    unplug = pb.UnplugDeviceRequest(request_id=request.request_id, device_id="r")
    with refused(grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED"):
        stub.UnplugDevice(unplug, timeout=CALL_S)


def test_a_request_that_failed_may_be_tried_again(host: DeviceHost, lab: Lab) -> None:
    stub = HotplugServiceStub(lab.channel())
    host.hotplug.plug("register", {"base": "0xd0000000"}, device_id="in-the-way")
    request = pb.PlugDeviceRequest(
        request_id=request_id(), type="register", config={"base": "0xd0000000"}
    )
    with refused(grpc.StatusCode.FAILED_PRECONDITION, "RANGE_TAKEN"):
        plug(stub, request)
    host.hotplug.unplug("in-the-way")
    assert plug(stub, request).id == "register-0"


# If the generation is the expected one.


def test_a_plug_at_the_expected_generation_works(host: DeviceHost) -> None:
    assert host.hotplug.plug("register", expected_generation=0).generation == 1
    assert host.hotplug.plug("register", expected_generation=1).generation == 2


@pytest.mark.parametrize("expected", [0, 2, (1 << 64) - 1])
def test_a_plug_at_another_generation_is_refused(lab: Lab, host: DeviceHost, expected: int) -> None:
    host.hotplug.plug("register")
    before = lab.leftovers()
    with refused(grpc.StatusCode.ABORTED, "GENERATION_MISMATCH") as metadata:
        host.hotplug.plug("register", expected_generation=expected)
    assert metadata["generation"] == "1"
    assert metadata["expected"] == str(expected)
    assert lab.leftovers() == before


def test_of_many_that_expect_the_same_generation_one_wins(lab: Lab) -> None:
    hosts = [lab.host() for _ in range(8)]
    barrier = threading.Barrier(len(hosts))

    def run(host: DeviceHost) -> str:
        barrier.wait(CALL_S)
        try:
            host.hotplug.plug("register", expected_generation=0)
        except RemoteError as error:
            return error.reason
        return "plugged"

    with ThreadPoolExecutor(len(hosts)) as threads:
        ends = sorted(threads.map(run, hosts))
    assert ends == ["GENERATION_MISMATCH"] * 7 + ["plugged"]
    assert len(lab.server.devices.devices()[1]) == 1
    assert len(lab.server.resources.allocations()) == 1


# All of it or nothing.

EXPECTED = {
    "create": (grpc.StatusCode.INTERNAL, "DEVICE_FAULT"),
    "constrain": (grpc.StatusCode.INTERNAL, "DEVICE_FAULT"),
    "allocate": (grpc.StatusCode.RESOURCE_EXHAUSTED, "NO_SPACE"),
    "assign": (grpc.StatusCode.INTERNAL, "DEVICE_FAULT"),
    "start": (grpc.StatusCode.INTERNAL, "DEVICE_FAULT"),
    "register": (grpc.StatusCode.INTERNAL, "DEVICE_FAULT"),
}


@pytest.mark.parametrize("step", STEPS)
def test_a_step_that_fails_undoes_those_before_it(lab: Lab, host: DeviceHost, step: str) -> None:
    host.hotplug.plug("register", device_id="bystander")
    before = lab.leftovers()
    with refused(*EXPECTED[step]) as metadata:
        host.hotplug.plug("raiser", {"step": step}, device_id="r")
    assert metadata["step"] == step
    assert lab.leftovers() == before
    # Nothing of it is left: the same again works, once nothing fails.
    device = host.hotplug.plug("raiser", device_id="r")
    assert device.generation == 2
    host.hotplug.unplug("r")
    assert lab.leftovers() == before


@pytest.mark.parametrize("step", [step for step in STEPS if step != "allocate"])
def test_a_device_that_exits_ends_neither_the_call_nor_the_server(
    lab: Lab, host: DeviceHost, step: str
) -> None:
    before = lab.leftovers()
    with refused(grpc.StatusCode.INTERNAL, "DEVICE_FAULT") as metadata:
        host.hotplug.plug("raiser", {"step": step, "exits": "yes"}, device_id="r")
    assert metadata == {"device": "r", "exception": "SystemExit", "step": step}
    assert lab.leftovers() == before


def test_an_error_of_a_device_says_what_was_raised_and_where(host: DeviceHost) -> None:
    with refused(grpc.StatusCode.INTERNAL, "DEVICE_FAULT") as metadata:
        host.hotplug.plug("raiser", {"step": "start"}, device_id="r")
    assert metadata == {"device": "r", "exception": "RuntimeError", "step": "start"}


def test_a_range_that_the_device_was_not_given_is_not_taken_from_another(
    lab: Lab, host: DeviceHost
) -> None:
    host.hotplug.plug("register", {"base": "0xc1000000"}, device_id="victim")
    before = lab.leftovers()
    with refused(grpc.StatusCode.ALREADY_EXISTS, "RANGE_OVERLAP") as metadata:
        host.hotplug.plug("trespasser", {"base": "0xc1000ff8"})
    assert metadata["step"] == "register"
    assert lab.leftovers() == before


def test_a_failed_plug_is_no_change(host: DeviceHost) -> None:
    watching = host.hotplug.watch()
    assert next(watching).generation == 0
    with refused(grpc.StatusCode.INTERNAL, "DEVICE_FAULT"):
        host.hotplug.plug("raiser", {"step": "register"})
    host.hotplug.plug("register", device_id="r")
    change = next(watching)
    watching.close()  # type: ignore[attr-defined] # a generator
    assert (change.generation, change.changed.id) == (1, "r")


def test_many_plugs_at_once_share_nothing(lab: Lab) -> None:
    hosts = [lab.host() for _ in range(4)]

    def run(host: DeviceHost) -> list[pb.Device]:
        return [host.hotplug.plug("register", {"size": "0x100"}) for _ in range(20)]

    with ThreadPoolExecutor(len(hosts)) as threads:
        plugged = [device for each in threads.map(run, hosts) for device in each]
    assert len({device.id for device in plugged}) == 80
    assert len({device.resources[0].mmio.base for device in plugged}) == 80
    assert sorted(device.generation for device in plugged) == list(range(1, 81))


def test_a_device_that_is_plugged_while_the_server_stops_does_not_stay(lab: Lab) -> None:
    entered, go_on = threading.Event(), threading.Event()

    class Slow(Raiser):
        """Takes its time to start."""

        type_name = "slow"

        def start(self) -> None:
            entered.set()
            go_on.wait(CALL_S)

    lab.server.devices.types._classes["slow"] = Slow
    refusals: list[dict[str, str]] = []

    def run() -> None:
        with refused(grpc.StatusCode.UNAVAILABLE, "DRAINING") as metadata:
            HotplugServiceStub(channel).PlugDevice(
                pb.PlugDeviceRequest(type="slow"), timeout=CALL_S
            )
        refusals.append(metadata)

    channel = lab.channel()
    plugging = threading.Thread(target=run)
    plugging.start()
    assert entered.wait(CALL_S)
    lab.server.devices.close()
    go_on.set()
    plugging.join()
    assert refusals[0]["step"] == "register"
    wait_until(lambda: lab.leftovers() == ([], [], [], []))
