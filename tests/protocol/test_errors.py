"""Every error of DESIGN.md section 8, provoked over the wire.

For each: the gRPC code, the reason, and the facts that the metadata has. A failed access
is the status of a unary call, and data on a stream; both say the same.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
from google.rpc import code_pb2, error_details_pb2
from grpc_status import rpc_status

from daemonlab import Lab, refused, serving, wait_until
from devicehost.v1 import io_service_pb2 as io_pb
from devicehost.v1 import resource_pb2
from devicehost.v1.io_service_pb2_grpc import IoServiceStub
from devicehost_client import DeviceHost
from devicehost_client.errors import from_failure
from devicehost_server.allocation import PoolConfig
from testdevices import FAULT, Blocker, Caller
from wire import (
    CALL_S,
    RawStream,
    irq_constraint,
    mmio_constraint,
    mmio_read,
    pio_constraint,
    pio_read,
)

Code = grpc.StatusCode
BASE = 0xD000_0000


@pytest.fixture
def host(lab: Lab) -> DeviceHost:
    """A client of a server with register "r" at BASE."""
    result = lab.host()
    result.hotplug.plug("register", {"base": str(BASE)}, device_id="r")
    return result


# Accesses.


@dataclass(frozen=True, slots=True)
class Bad:
    """An access that fails, and how."""

    access: io_pb.Access
    code: grpc.StatusCode
    reason: str
    metadata: dict[str, str] = field(default_factory=dict)


UNKNOWN_SPACE = io_pb.Access(space=7, operation=io_pb.OPERATION_READ, size=1)  # type: ignore[arg-type] # unknown on purpose
UNKNOWN_OPERATION = io_pb.Access(space=io_pb.SPACE_MMIO, operation=9, size=1)  # type: ignore[arg-type] # likewise

BAD = {
    "no-device-mmio": Bad(
        mmio_read(0, BASE - 1, 2),
        Code.NOT_FOUND,
        "NO_DEVICE",
        {"space": "mmio", "address": "0xcfffffff", "size": "2"},
    ),
    "no-device-pio": Bad(
        pio_read(0, 0x3F8, 1),
        Code.NOT_FOUND,
        "NO_DEVICE",
        {"space": "pio", "address": "0x3f8", "size": "1"},
    ),
    "out-of-range": Bad(
        mmio_read(0, BASE + 0xFFE, 4),
        Code.OUT_OF_RANGE,
        "ACCESS_OUT_OF_RANGE",
        {
            "space": "mmio",
            "address": "0xd0000ffe",
            "size": "4",
            "range": "0xd0000000-0xd0000fff",
            "device": "r",
        },
    ),
    "bad-size": Bad(
        pio_read(0, 0x3F8, 3),
        Code.INVALID_ARGUMENT,
        "BAD_ACCESS_SIZE",
        {"space": "pio", "address": "0x3f8", "length": "3", "size": "3", "allowed": "1, 2, 4"},
    ),
    "empty": Bad(
        mmio_read(0, BASE, 0),
        Code.INVALID_ARGUMENT,
        "BAD_ACCESS_SIZE",
        {"space": "mmio", "address": "0xd0000000", "size": "0", "allowed": "1 and up"},
    ),
    "too-long": Bad(
        mmio_read(0, BASE, 1 << 21),
        Code.INVALID_ARGUMENT,
        "BAD_ACCESS_SIZE",
        {"address": "0xd0000000", "size": str(1 << 21), "allowed": str(1 << 20)},
    ),
    "unknown-space": Bad(UNKNOWN_SPACE, Code.INVALID_ARGUMENT, "BAD_ACCESS", {"space": "7"}),
    "unknown-operation": Bad(
        UNKNOWN_OPERATION, Code.INVALID_ARGUMENT, "BAD_ACCESS", {"operation": "9"}
    ),
    "device-fault": Bad(
        mmio_read(0, BASE + FAULT, 1),
        Code.INTERNAL,
        "DEVICE_FAULT",
        {"device": "r", "exception": "ValueError", "address": hex(BASE + FAULT)},
    ),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_a_failed_access_is_the_status_of_a_call(lab: Lab, host: DeviceHost, bad: Bad) -> None:
    del host
    request = io_pb.AccessRequest(access=bad.access)
    with refused(bad.code, bad.reason) as metadata:
        IoServiceStub(lab.channel()).Access(request, timeout=CALL_S)
    assert metadata == bad.metadata


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_a_failed_access_is_data_on_a_stream(lab: Lab, host: DeviceHost, bad: Bad) -> None:
    del host
    with RawStream(lab.channel()) as stream:
        stream.send(bad.access)
        error = from_failure(stream.completion().failure)
        assert (error.code, error.reason, error.metadata) == (bad.code, bad.reason, bad.metadata)
        stream.send(mmio_read(1, BASE, 1))
        assert stream.completion().data == b"\0"


def test_a_device_that_takes_too_long_times_out(tmp_path: Path) -> None:
    with serving(tmp_path, access_timeout_s=0.05) as lab:
        host = lab.host()
        caller = host.hotplug.plug("caller", device_id="c")
        device = lab.server.devices.device("c")
        assert isinstance(device, Caller)
        entered, go_on = threading.Event(), threading.Event()

        def wait() -> None:
            entered.set()
            go_on.wait(CALL_S)

        device.on_write = wait
        base = caller.resources[0].mmio.base
        with RawStream(lab.channel()) as stream, RawStream(lab.channel()) as other:
            write = mmio_read(1, base, 1)
            write.operation, write.data = io_pb.OPERATION_WRITE, b"\1"
            stream.send(write)
            assert entered.wait(CALL_S)
            # A device that one vCPU is in: another one is turned away, in time.
            other.send(mmio_read(2, base, 1))
            waited = from_failure(other.completion().failure)
            with refused(Code.DEADLINE_EXCEEDED, "DEVICE_TIMEOUT") as metadata:
                request = io_pb.AccessRequest(access=mmio_read(0, base, 1))
                IoServiceStub(lab.channel()).Access(request, timeout=CALL_S)
            go_on.set()
            # And the first one hears that it took too long.
            late = from_failure(stream.completion().failure)
        assert (waited.code, waited.reason) == (Code.DEADLINE_EXCEEDED, "DEVICE_TIMEOUT")
        assert waited.metadata == metadata == {"device": "c", "timeout_s": "0.05"}
        assert (late.code, late.reason) == (Code.DEADLINE_EXCEEDED, "DEVICE_TIMEOUT")
        assert late.metadata["address"] == hex(base)
        assert float(late.metadata["took_s"]) > 0.05


def test_a_server_that_stops_refuses_what_is_new(tmp_path: Path) -> None:
    with serving(tmp_path, access_timeout_s=CALL_S, drain_timeout_s=CALL_S) as lab:
        host = lab.host()
        host.hotplug.plug("register", {"base": str(BASE)}, device_id="r")
        base = host.hotplug.plug("blocker", device_id="b").resources[0].mmio.base
        device = lab.server.devices.device("b")
        assert isinstance(device, Blocker)
        with RawStream(lab.channel()) as stream, RawStream(lab.channel()) as other:
            stream.send(mmio_read(1, base, 1))
            assert device.entered.wait(CALL_S)
            stopping = threading.Thread(target=lab.server.stop)
            stopping.start()
            wait_until(lambda: lab.server._gate.draining)
            other.send(mmio_read(1, BASE, 1))
            error = from_failure(other.completion().failure)
            assert (error.code, error.reason) == (Code.UNAVAILABLE, "DRAINING")
            request = io_pb.AccessRequest(access=mmio_read(0, BASE, 1))
            for call in (
                lambda: IoServiceStub(lab.channel()).Access(request, timeout=CALL_S),
                lambda: host.hotplug.plug("register"),
                lambda: host.hotplug.unplug("r"),
                lambda: host.resources.allocate("vmm", []),
                lambda: host.resources.release("vmm", []),
                lambda: next(host.hotplug.watch()),
                lambda: RawStream(lab.channel()),
            ):
                with refused(Code.UNAVAILABLE, "DRAINING"):
                    call()
            device.release.set()
            # What was in flight ends as if nothing were.
            assert stream.completion().data == b"\x5a"
            stopping.join()


# Everything else.

Call = Callable[[DeviceHost], object]


def msi(size: int, **fields: int) -> Any:
    kind = resource_pb2.MSI_TYPE_PCI_MSI
    return resource_pb2.ResourceConstraint(
        msi=resource_pb2.MsiConstraint(type=kind, size=size, **fields)
    )


def slots(size: int) -> Any:
    return resource_pb2.ResourceConstraint(
        kvm_mem_slot=resource_pb2.KvmMemSlotConstraint(size=size)
    )


def allocating(constraint: Any, times: int = 1) -> Call:
    return lambda host: host.resources.allocate("vmm", [constraint] * times)


REFUSALS: dict[str, tuple[Call, grpc.StatusCode, str, dict[str, str]]] = {
    "range-overlap": (
        lambda host: host.hotplug.plug("trespasser", {"base": str(BASE + 8)}, device_id="t"),
        Code.ALREADY_EXISTS,
        "RANGE_OVERLAP",
        {"step": "register"},
    ),
    "bad-constraint-empty": (
        allocating(mmio_constraint(0)),
        Code.INVALID_ARGUMENT,
        "BAD_CONSTRAINT",
        {"field": "size", "value": "0x0"},
    ),
    "bad-constraint-align": (
        allocating(pio_constraint(8, align=3)),
        Code.INVALID_ARGUMENT,
        "BAD_CONSTRAINT",
        {"field": "align", "value": "0x3"},
    ),
    "bad-constraint-upside-down": (
        allocating(pio_constraint(8, min=0x100, max=0xFF)),
        Code.INVALID_ARGUMENT,
        "BAD_CONSTRAINT",
        {"field": "max", "value": "0xff"},
    ),
    "bad-constraint-kind": (
        allocating(resource_pb2.ResourceConstraint()),
        Code.INVALID_ARGUMENT,
        "BAD_CONSTRAINT",
        {"field": "constraints"},
    ),
    "no-space": (
        allocating(pio_constraint(0x8000), 3),
        Code.RESOURCE_EXHAUSTED,
        "NO_SPACE",
        {"requested": "0x8000", "pool": "pio"},
    ),
    "no-irq": (
        allocating(irq_constraint(), 11),
        Code.RESOURCE_EXHAUSTED,
        "NO_IRQ",
        {"requested": "1"},
    ),
    "no-msi": (
        allocating(msi(1001)),
        Code.RESOURCE_EXHAUSTED,
        "NO_MSI",
        {"requested": "1001", "largest_free": "1000"},
    ),
    "no-slot": (
        allocating(slots(1000)),
        Code.RESOURCE_EXHAUSTED,
        "NO_SLOT",
        {"requested": "1000", "largest_free": str(PoolConfig().kvm_slot_count)},
    ),
    "range-taken": (
        allocating(mmio_constraint(0x10, BASE + 0x10)),
        Code.FAILED_PRECONDITION,
        "RANGE_TAKEN",
        {"holder": "device/r", "range": "0xd0000010-0xd000001f", "held": "0xd0000000-0xd0000fff"},
    ),
    "not-allocated": (
        lambda host: host.resources.release("vmm", [resource_pb2.Resource(legacy_irq=9)]),
        Code.NOT_FOUND,
        "NOT_ALLOCATED",
        {"owner": "vmm", "failed": "1", "released": "0"},
    ),
    "unknown-device-type": (
        lambda host: host.hotplug.plug("teapot"),
        Code.INVALID_ARGUMENT,
        "UNKNOWN_DEVICE_TYPE",
        {"type": "teapot", "step": "create"},
    ),
    "bad-config-key": (
        lambda host: host.hotplug.plug("register", {"colour": "red"}),
        Code.INVALID_ARGUMENT,
        "BAD_CONFIG",
        {"field": "colour", "step": "create"},
    ),
    "bad-config-value": (
        lambda host: host.hotplug.plug("register", {"size": "many"}),
        Code.INVALID_ARGUMENT,
        "BAD_CONFIG",
        {"field": "size", "step": "create"},
    ),
    "device-exists": (
        lambda host: host.hotplug.plug("register", device_id="r"),
        Code.ALREADY_EXISTS,
        "DEVICE_EXISTS",
        {"device": "r", "step": "create"},
    ),
    "no-such-device": (
        lambda host: host.hotplug.unplug("nobody"),
        Code.NOT_FOUND,
        "NO_SUCH_DEVICE",
        {"device": "nobody"},
    ),
    "generation-mismatch": (
        lambda host: host.hotplug.unplug("r", expected_generation=99),
        Code.ABORTED,
        "GENERATION_MISMATCH",
        {"generation": "1", "expected": "99"},
    ),
    "device-fault": (
        lambda host: host.hotplug.plug("raiser", {"step": "assign"}, device_id="x"),
        Code.INTERNAL,
        "DEVICE_FAULT",
        {"device": "x", "exception": "RuntimeError", "step": "assign"},
    ),
    "bad-range": (
        lambda host: host.resources.release(
            "vmm", [resource_pb2.Resource(pio=resource_pb2.AddressRange(base=0x10000, size=1))]
        ),
        Code.INVALID_ARGUMENT,
        "BAD_RANGE",
        {"base": "0x10000", "size": "0x1"},
    ),
}


@pytest.mark.parametrize("case", REFUSALS.values(), ids=REFUSALS)
def test_a_request_is_refused_with_code_reason_and_facts(
    lab: Lab, host: DeviceHost, case: tuple[Call, grpc.StatusCode, str, dict[str, str]]
) -> None:
    call, code, reason, facts = case
    before = lab.leftovers()
    with refused(code, reason) as metadata:
        call(host)
    assert metadata.items() >= facts.items()
    assert lab.leftovers() == before


# REQUEST_ID_REUSED, DEVICE_BUSY, TOO_MANY_STREAMS and WATCH_TOO_SLOW are in the tests of
# the methods that they belong to, PEER_DENIED is in test_tcp.py.


def test_an_overlap_names_both_ranges_and_the_other_device(host: DeviceHost) -> None:
    with refused(Code.ALREADY_EXISTS, "RANGE_OVERLAP") as metadata:
        host.hotplug.plug("trespasser", {"base": str(BASE + 8)}, device_id="t")
    facts = " ".join(metadata.values())
    assert "0xd0000008-0xd0000017" in facts
    assert "0xd0000000-0xd0000fff" in facts
    assert "r" in metadata.values()


def test_others_read_the_details_as_google_defines_them(lab: Lab) -> None:
    request = io_pb.AccessRequest(access=mmio_read(0, 0x1000, 4))
    with pytest.raises(grpc.RpcError) as caught:
        IoServiceStub(lab.channel()).Access(request, timeout=CALL_S)
    status = rpc_status.from_call(cast("grpc.Call", caught.value))
    assert status is not None
    assert (status.code, status.message) == (code_pb2.NOT_FOUND, "no device at mmio 0x1000")
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (info.reason, info.domain) == ("NO_DEVICE", "devicehost")
    assert info.metadata == {"space": "mmio", "address": "0x1000", "size": "4"}


@pytest.mark.parametrize("name", ["x" * 100_000, "\u6f22" * 30_000, "\0" * 9000])
def test_a_message_that_quotes_a_long_name_still_arrives(host: DeviceHost, name: str) -> None:
    with refused(Code.INVALID_ARGUMENT, "UNKNOWN_DEVICE_TYPE") as metadata:
        host.hotplug.plug(name)
    assert 0 < len(metadata["type"].encode()) <= 256
    with refused(Code.INVALID_ARGUMENT, "BAD_REQUEST"):
        host.hotplug.plug("register", device_id=name)


@pytest.mark.parametrize("said", ["x" * 100_000, "\udcff is no text", "", "\u6f22" * 9000])
def test_whatever_a_device_says_as_it_fails_arrives(lab: Lab, said: str) -> None:
    host = lab.host()
    base = host.hotplug.plug("caller", device_id="c").resources[0].mmio.base
    device = lab.server.devices.device("c")
    assert isinstance(device, Caller)

    def fail() -> None:
        raise ValueError(said)

    device.on_write = fail
    write = io_pb.Access(
        space=io_pb.SPACE_MMIO, operation=io_pb.OPERATION_WRITE, address=base, data=b"\1"
    )
    with RawStream(lab.channel()) as stream:
        stream.send(write)
        assert stream.completion().failure.info.reason == "DEVICE_FAULT"
    with refused(Code.INTERNAL, "DEVICE_FAULT"):
        IoServiceStub(lab.channel()).Access(io_pb.AccessRequest(access=write), timeout=CALL_S)
