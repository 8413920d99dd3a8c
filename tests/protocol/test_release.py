"""ResourceService.Release: back to the pools, as it was allocated."""

from __future__ import annotations

import uuid

import grpc

from daemonlab import Lab, refused
from devicehost.v1 import resource_pb2
from devicehost.v1 import resource_service_pb2 as pb
from devicehost.v1.resource_service_pb2_grpc import ResourceServiceStub
from devicehost_client import DeviceHost
from wire import CALL_S, irq_constraint, mmio_constraint, pio_constraint


def test_what_was_allocated_is_free_again(lab: Lab, host: DeviceHost) -> None:
    before = host.resources.capacity()
    wishes = [
        pio_constraint(8, 0x3F8),
        mmio_constraint(0x1000),
        irq_constraint(),
        irq_constraint(5),  # shared
        resource_pb2.ResourceConstraint(
            msi=resource_pb2.MsiConstraint(type=resource_pb2.MSI_TYPE_GENERIC_MSI, size=3)
        ),
        resource_pb2.ResourceConstraint(
            kvm_mem_slot=resource_pb2.KvmMemSlotConstraint(slot=500, size=1)
        ),
        resource_pb2.ResourceConstraint(mem=resource_pb2.AddressConstraint(size=0x1000)),
    ]
    resources = host.resources.allocate("vmm", wishes)
    assert host.resources.capacity() != before
    host.resources.release("vmm", resources)
    assert host.resources.capacity() == before
    assert lab.server.resources.allocations() == []
    assert host.resources.allocate("vmm", wishes) == resources


def test_what_is_not_allocated_is_refused_and_the_rest_is_freed(host: DeviceHost) -> None:
    first, second = host.resources.allocate("vmm", [pio_constraint(8), irq_constraint()])
    host.resources.release("vmm", [first])
    with refused(grpc.StatusCode.NOT_FOUND, "NOT_ALLOCATED") as metadata:
        host.resources.release("vmm", [first, second])
    assert (metadata["failed"], metadata["released"]) == ("1", "1")
    assert host.resources.allocations() == []


def test_another_shape_or_owner_is_refused(host: DeviceHost) -> None:
    (given,) = host.resources.allocate("vmm", [pio_constraint(8, 0x700)])
    part = resource_pb2.Resource(pio=resource_pb2.AddressRange(base=0x700, size=4))
    for owner, resource in (("vmm", part), ("other", given)):
        with refused(grpc.StatusCode.NOT_FOUND, "NOT_ALLOCATED"):
            host.resources.release(owner, [resource])
    assert [each.owner for each in host.resources.allocations()] == ["vmm"]


def test_what_a_device_has_is_its_own(host: DeviceHost) -> None:
    device = host.hotplug.plug("register", device_id="r")
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "BAD_REQUEST"):
        host.resources.release("device/r", device.resources)
    with refused(grpc.StatusCode.NOT_FOUND, "NOT_ALLOCATED"):
        host.resources.release("r", device.resources)


def test_what_is_no_resource_is_refused(host: DeviceHost) -> None:
    def range_of(base: int, size: int) -> resource_pb2.AddressRange:
        return resource_pb2.AddressRange(base=base, size=size)

    for nonsense, reason in (
        (resource_pb2.Resource(), "BAD_REQUEST"),
        (resource_pb2.Resource(msi=resource_pb2.MsiRange(size=1)), "BAD_REQUEST"),
        (resource_pb2.Resource(pio=range_of(0, 0)), "BAD_RANGE"),
        (resource_pb2.Resource(pio=range_of(0xFFFF, 2)), "BAD_RANGE"),
        (resource_pb2.Resource(mmio=range_of((1 << 64) - 1, 2)), "BAD_RANGE"),
    ):
        with refused(grpc.StatusCode.INVALID_ARGUMENT, reason):
            host.resources.release("vmm", [nonsense])


def test_a_message_about_very_many_failures_still_arrives(host: DeviceHost) -> None:
    ranges = (resource_pb2.AddressRange(base=base, size=1) for base in range(2000))
    resources = [resource_pb2.Resource(pio=each) for each in ranges]
    with refused(grpc.StatusCode.NOT_FOUND, "NOT_ALLOCATED") as metadata:
        host.resources.release("vmm", resources)
    assert metadata["failed"] == "2000"


def test_the_same_request_again_is_the_same_release(lab: Lab, host: DeviceHost) -> None:
    stub = ResourceServiceStub(lab.channel())
    resources = host.resources.allocate("vmm", [pio_constraint(8, 0x700)])
    request = pb.ReleaseRequest(request_id=str(uuid.uuid4()), owner="vmm", resources=resources)
    stub.Release(request, timeout=CALL_S)
    host.resources.allocate("vmm", [pio_constraint(8, 0x700)])  # another one
    stub.Release(request, timeout=CALL_S)
    assert len(host.resources.allocations()) == 1
