"""Nonsense of every kind: the server answers it, and is as it was."""

from __future__ import annotations

import random
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import grpc
import pytest

from daemonlab import Daemon, daemon, refused, wait_until
from devicehost.v1 import hotplug_service_pb2 as hotplug_pb
from devicehost.v1 import io_service_pb2 as io_pb
from devicehost.v1 import resource_pb2
from devicehost.v1 import resource_service_pb2 as resources_pb
from devicehost.v1.io_service_pb2_grpc import IoServiceStub
from wire import CALL_S, RawStream

SEED = 0x5EED
BASE = 0xD000_0000
STREAMS_MAX = 8

METHODS = (
    "HotplugService/GetDevice",
    "HotplugService/ListDevices",
    "HotplugService/ListDeviceTypes",
    "HotplugService/PlugDevice",
    "HotplugService/UnplugDevice",
    "IoService/Access",
    "IoService/ListRanges",
    "ResourceService/Allocate",
    "ResourceService/GetCapacity",
    "ResourceService/ListAllocations",
    "ResourceService/Release",
    "SessionService/GetServer",
)

EDGES = (0, 1, BASE, 0xFFFF, 0x10000, (1 << 32) - 1, 1 << 32, (1 << 63), (1 << 64) - 1)
SIZES = (0, 1, 2, 3, 4, 5, 8, 255, 4096, 1 << 20, (1 << 20) + 1, (1 << 31), (1 << 32) - 1)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon with devices at the ends of both spaces, and few places for streams."""
    arguments = ["--streams-max", str(STREAMS_MAX), "--phys-bits", "52"]
    for device in (
        f"scratch,id=mmio,base={BASE:#x},size=256",
        f"scratch,id=last-mmio,base={(1 << 52) - 256:#x},size=256",
        "scratch,id=first-pio,bus=pio,base=0,size=8",
        "scratch,id=last-pio,bus=pio,base=0xfff8,size=8",
    ):
        arguments += ["--device", device]
    with daemon(tmp_path_factory.mktemp("malformed"), *arguments) as started:
        yield started


@pytest.fixture(autouse=True)
def unchanged(running: Daemon) -> Iterator[None]:
    """Whatever a test sends, the server has the same devices and pools, and serves."""

    def state() -> object:
        host = running.host()
        devices = host.hotplug.devices()
        for device in devices:
            device.ClearField("accesses")
        found = (devices, host.resources.allocations(), host.resources.capacity(), host.ranges())
        host.close()
        return found

    before = state()
    yield
    assert state() == before
    with RawStream(running.channel()) as stream:
        write = io_pb.Access(
            space=io_pb.SPACE_MMIO, operation=io_pb.OPERATION_WRITE, address=BASE, data=b"\x5a"
        )
        read = io_pb.Access(
            space=io_pb.SPACE_MMIO, operation=io_pb.OPERATION_READ, address=BASE, size=1
        )
        stream.send(write, read)
        assert stream.completions(2)[1].data == b"\x5a"
    assert running.process.poll() is None


def any_access(chance: random.Random, sequence: int) -> io_pb.Access:
    """An access that is likely to be wrong in one way or several."""
    address = chance.choice(EDGES) + chance.randrange(-300, 300)
    return io_pb.Access(
        sequence=sequence,
        space=chance.choice((0, 1, 1, 2, 2, 2, 3, -1, 1 << 30)),  # type: ignore[arg-type] # on purpose
        operation=chance.choice((0, 1, 1, 1, 2, 2, 3, -(1 << 31))),  # type: ignore[arg-type] # likewise
        address=min(max(address, 0), (1 << 64) - 1),
        size=chance.choice(SIZES),
        count=chance.choice((0, 0, 0, 1, 2, 7, 1 << 20, (1 << 32) - 1)),
        data=bytes(chance.choice((0, 1, 2, 3, 4, 8, 300))),
        posted=chance.random() < 0.1,
    )


def test_accesses_of_every_kind_are_answered_on_a_stream(running: Daemon) -> None:
    chance = random.Random(SEED)
    with RawStream(running.channel()) as stream:
        for first in range(0, 5000, 50):
            batch = [any_access(chance, n) for n in range(first, first + 50)]
            stream.send(*batch)
            stream.send(io_pb.Access(sequence=1 << 40))
            answered = []
            while (completion := stream.completion()).sequence != 1 << 40:
                answered.append(completion.sequence)
                assert completion.failure.info.reason != "UNKNOWN", completion
            owed = [n.sequence for n in batch if not n.posted or n.operation != 2]
            # A posted write is answered if it fails, and not otherwise.
            assert [n for n in answered if n in set(owed)] == owed


def any_unary(chance: random.Random) -> tuple[str, bytes]:
    """A method, and bytes that may or may not be a request of it."""
    method = chance.choice(METHODS)
    if chance.random() < 0.5:
        return method, chance.randbytes(chance.choice((0, 1, 2, 7, 30, 300)))
    request = any_request(chance, method).SerializeToString()
    if chance.random() < 0.5:  # nearly right: a few bytes are other than they were
        damaged = bytearray(request)
        for _ in range(chance.randrange(1, 4)):
            if damaged:
                damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        request = bytes(damaged)
    return method, request


def any_text(chance: random.Random) -> str:
    texts = ("", "x", "mmio", "\0", "\U0001f4a3" * 9, "../..", "device/mmio", "A" * 70_000)
    return chance.choice(texts)


def any_constraint(chance: random.Random) -> resource_pb2.ResourceConstraint:
    """A constraint that no pool meets."""
    address = resource_pb2.AddressConstraint(size=chance.choice((0, 1 << 63)))
    address.align = chance.choice((0, 1, 3, 1 << 63))
    kinds: list[dict[str, Any]] = [
        {},
        {"pio": address},
        {"mmio": address},
        {"mem": address},
        {"legacy_irq": resource_pb2.LegacyIrqConstraint(irq=chance.choice((16, (1 << 32) - 1)))},
        {"msi": resource_pb2.MsiConstraint(size=chance.choice((0, (1 << 32) - 1)))},
        {"kvm_mem_slot": resource_pb2.KvmMemSlotConstraint(slot=600, size=(1 << 32) - 1)},
    ]
    return resource_pb2.ResourceConstraint(**chance.choice(kinds))


def any_resource(chance: random.Random) -> resource_pb2.Resource:
    """A resource that nobody has."""
    span = resource_pb2.AddressRange(base=chance.choice(EDGES), size=chance.choice(SIZES))
    msi = resource_pb2.MsiRange(
        type=chance.choice((0, 1, 9)),  # type: ignore[arg-type] # on purpose
        base=chance.choice((0, 24, (1 << 32) - 1)),
        size=chance.choice((0, 1, (1 << 32) - 1)),
    )
    kinds: list[dict[str, Any]] = [
        {},
        {"pio": span},
        {"mmio": span},
        {"mem": span},
        {"legacy_irq": chance.choice((0, 5, (1 << 32) - 1))},
        {"msi": msi},
        {"kvm_mem_slot": (1 << 32) - 1},
        {"mac_address": any_text(chance)},
    ]
    return resource_pb2.Resource(**chance.choice(kinds))


def any_request(chance: random.Random, method: str) -> Any:
    """A request of a method, which changes nothing if it is as wrong as it should be."""
    paged: dict[str, Any] = {
        "page_size": chance.choice((0, 1, (1 << 32) - 1)),
        "page_token": any_text(chance),
    }
    makers: dict[str, Callable[[], Any]] = {
        "GetDevice": lambda: hotplug_pb.GetDeviceRequest(device_id=any_text(chance)),
        "ListDevices": lambda: hotplug_pb.ListDevicesRequest(**paged),
        "ListDeviceTypes": lambda: hotplug_pb.ListDeviceTypesRequest(**paged),
        "PlugDevice": lambda: hotplug_pb.PlugDeviceRequest(
            request_id=any_text(chance),
            type=chance.choice(("scratch", any_text(chance))),
            device_id=any_text(chance),
            config={any_text(chance): any_text(chance), "nonsense": ""},
        ),
        "UnplugDevice": lambda: hotplug_pb.UnplugDeviceRequest(
            request_id=any_text(chance), device_id=any_text(chance), expected_generation=1 << 63
        ),
        "Access": lambda: io_pb.AccessRequest(access=any_access(chance, 0)),
        "ListRanges": lambda: io_pb.ListRangesRequest(**paged),
        "Allocate": lambda: resources_pb.AllocateRequest(
            request_id=any_text(chance),
            owner=any_text(chance),
            constraints=[any_constraint(chance) for _ in range(chance.randrange(1, 4))],
        ),
        "Release": lambda: resources_pb.ReleaseRequest(
            request_id=any_text(chance),
            owner=any_text(chance),
            resources=[any_resource(chance) for _ in range(chance.randrange(4))],
        ),
        "ListAllocations": lambda: resources_pb.ListAllocationsRequest(**paged),
    }
    return makers.get(method.partition("/")[2], resources_pb.GetCapacityRequest)()


def test_requests_of_every_kind_are_answered(running: Daemon) -> None:
    chance = random.Random(SEED)
    channel = running.channel()
    calls: dict[str, Any] = {
        method: channel.unary_unary(f"/devicehost.v1.{method}") for method in METHODS
    }
    ended: dict[str, int] = {}
    internal: set[str | None] = set()
    for _ in range(5000):
        method, request = any_unary(chance)
        try:
            calls[method](request, timeout=CALL_S)
            code = "OK"
        except grpc.RpcError as error:
            code = error.code().name
            if code == "INTERNAL":
                internal.add(error.details())
        ended[code] = ended.get(code, 0) + 1
    # What gRPC says of bytes that are no message; our own code never gets that far.
    assert internal == {"Exception deserializing request!"}
    assert ended.keys() <= {
        "OK",
        "ABORTED",
        "ALREADY_EXISTS",
        "INTERNAL",
        "INVALID_ARGUMENT",
        "NOT_FOUND",
        "OUT_OF_RANGE",
        "RESOURCE_EXHAUSTED",
    }, ended
    assert min(ended[code] for code in ("OK", "INTERNAL", "INVALID_ARGUMENT", "NOT_FOUND")) > 50


def test_streams_of_random_bytes_end_and_leave_their_places(running: Daemon) -> None:
    chance = random.Random(SEED)
    open_it = io_pb.StreamRequest(open=io_pb.StreamOpen()).SerializeToString()
    stream: Any = running.channel().stream_stream("/devicehost.v1.IoService/Stream")
    for number in range(100):
        messages = [chance.randbytes(chance.randrange(1, 60)) for _ in range(3)]
        if number % 2:
            messages.insert(0, open_it)
        call = stream(iter(messages), timeout=CALL_S)
        with suppress(grpc.RpcError):  # some of it may make sense
            for _ in call:
                pass
    wait_until(lambda: all_places_are_free(running), "the streams to be gone")


def test_streams_that_are_cut_anywhere_leave_their_places(running: Daemon) -> None:
    chance = random.Random(SEED)
    channel = running.channel()
    for number in range(200):
        stream = RawStream(channel, opened=False)
        if number % 4:
            stream.request(io_pb.StreamRequest(open=io_pb.StreamOpen()))
        for _ in range(chance.randrange(3)):
            stream.send(*(any_access(chance, n) for n in range(chance.choice((1, 20)))))
        if number % 4 and number % 3:
            assert stream.response().HasField("opened")
        with stream:
            pass
    wait_until(lambda: all_places_are_free(running), "the streams to be gone")


def all_places_are_free(running: Daemon) -> bool:
    channel = running.channel()
    streams = []
    try:
        for vcpu in range(STREAMS_MAX):
            streams.append(RawStream(channel, vcpu))  # noqa: PERF401 # what is open is closed
    except grpc.RpcError:
        return False
    finally:
        for stream in streams:
            stream.half_close()
        channel.close()
    return True


def test_a_message_larger_than_grpc_takes_is_refused(running: Daemon) -> None:
    stub = IoServiceStub(running.channel())
    access = io_pb.Access(
        space=io_pb.SPACE_MMIO, operation=io_pb.OPERATION_WRITE, address=BASE, data=bytes(5 << 20)
    )
    with pytest.raises(grpc.RpcError) as caught:
        stub.Access(io_pb.AccessRequest(access=access), timeout=CALL_S)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_method_that_is_not_there_is_unimplemented(running: Daemon) -> None:
    call: Any = running.channel().unary_unary("/devicehost.v1.IoService/Explode")
    with pytest.raises(grpc.RpcError) as caught:
        call(b"", timeout=CALL_S)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_token_that_is_nested_without_end_is_refused(running: Daemon) -> None:
    request = io_pb.ListRangesRequest(page_token="W1tb" * 100_000)  # [[[ and so on
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "BAD_REQUEST"):
        IoServiceStub(running.channel()).ListRanges(request, timeout=CALL_S)


def test_bytes_that_are_no_http_end_their_connection_only(running: Daemon) -> None:
    chance = random.Random(SEED)
    for size in (0, 1, 10, 10_000):
        with socket.socket(socket.AF_UNIX) as peer:
            peer.settimeout(CALL_S)
            peer.connect(str(running.socket))
            with suppress(OSError):
                peer.sendall(chance.randbytes(size))


def test_the_log_stays_json_whatever_is_sent(running: Daemon) -> None:
    levels = {event["level"] for event in running.events()}
    assert "info" in levels
