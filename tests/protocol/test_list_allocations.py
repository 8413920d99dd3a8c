"""ResourceService.ListAllocations: what belongs to whom."""

from __future__ import annotations

import grpc
import pytest

from daemonlab import Lab, refused
from devicehost.v1 import resource_service_pb2 as pb
from devicehost.v1.resource_service_pb2_grpc import ResourceServiceStub
from devicehost_client import DeviceHost
from wire import CALL_S, irq_constraint, mmio_constraint, pio_constraint


def listed(host: DeviceHost) -> list[tuple[str, str | None]]:
    return [(each.owner, each.resource.WhichOneof("kind")) for each in host.resources.allocations()]


def test_allocations_go_by_kind_and_number(host: DeviceHost) -> None:
    assert listed(host) == []
    host.resources.allocate("vmm", [irq_constraint(), mmio_constraint(16), pio_constraint(1)])
    host.hotplug.plug("register", {"port": "0x700", "base": "0xd0000000"}, device_id="r")
    assert listed(host) == [
        ("vmm", "pio"),
        ("device/r", "pio"),
        ("vmm", "mmio"),
        ("device/r", "mmio"),
        ("vmm", "legacy_irq"),
    ]


@pytest.mark.parametrize("size", [1, 2, 5, 100])
def test_a_shared_irq_is_listed_once_for_each_use_in_pages_of_any_size(
    lab: Lab, host: DeviceHost, size: int
) -> None:
    for owner in ("a", "b", "b", "c"):
        host.resources.allocate(owner, [irq_constraint(5)])
    host.resources.allocate("d", [pio_constraint(8)])
    stub = ResourceServiceStub(lab.channel())
    request = pb.ListAllocationsRequest(page_size=size)
    owners: list[str] = []
    while True:
        response = stub.ListAllocations(request, timeout=CALL_S)
        assert len(response.allocations) <= size
        owners += [each.owner for each in response.allocations]
        if not response.next_page_token:
            break
        request.page_token = response.next_page_token
    assert owners == ["d", "a", "b", "b", "c"]


def test_a_token_that_is_none_is_refused(lab: Lab) -> None:
    stub = ResourceServiceStub(lab.channel())
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "BAD_REQUEST") as metadata:
        stub.ListAllocations(pb.ListAllocationsRequest(page_token="x"), timeout=CALL_S)
    assert metadata == {"field": "page_token"}
