"""ResourceService.Allocate: a resource for each constraint, or none."""

from __future__ import annotations

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from daemonlab import Lab, refused
from devicehost.v1 import resource_pb2
from devicehost.v1 import resource_service_pb2 as pb
from devicehost.v1.resource_service_pb2_grpc import ResourceServiceStub
from devicehost_client import DeviceHost
from wire import CALL_S, irq_constraint, mmio_constraint, pio_constraint

Constraint = resource_pb2.ResourceConstraint


def test_resources_come_in_the_order_of_their_constraints(host: DeviceHost) -> None:
    mmio, irq, pio, memory, msi, slot = host.resources.allocate(
        "vmm",
        [
            mmio_constraint(0x1000),
            irq_constraint(),
            pio_constraint(8, 0x3F8),
            Constraint(mem=resource_pb2.AddressConstraint(size=0x2000)),
            Constraint(
                msi=resource_pb2.MsiConstraint(type=resource_pb2.MSI_TYPE_PCI_MSIX, size=4, align=4)
            ),
            Constraint(kvm_mem_slot=resource_pb2.KvmMemSlotConstraint(slot=5, size=1)),
        ],
    )
    assert (mmio.mmio.base, mmio.mmio.size) == (0xC000_0000, 0x1000)
    assert irq.legacy_irq == 6
    assert (pio.pio.base, pio.pio.size) == (0x3F8, 8)
    assert (memory.mem.base, memory.mem.size) == (0, 0x2000)
    assert (msi.msi.type, msi.msi.base, msi.msi.size) == (resource_pb2.MSI_TYPE_PCI_MSIX, 24, 4)
    assert slot.kvm_mem_slot == 5


def test_several_slots_are_a_resource_each(host: DeviceHost) -> None:
    wish = Constraint(kvm_mem_slot=resource_pb2.KvmMemSlotConstraint(size=3))
    slots = host.resources.allocate("vmm", [wish])
    assert [slot.kvm_mem_slot for slot in slots] == [0, 1, 2]


def test_bounds_and_alignment_are_kept(host: DeviceHost) -> None:
    wish = mmio_constraint(0x100, min=0xC000_1234, max=0xC001_0000, align=0x100)
    (resource,) = host.resources.allocate("vmm", [wish])
    assert resource.mmio.base == 0xC000_1300


def test_nothing_wished_is_nothing_given(host: DeviceHost) -> None:
    assert host.resources.allocate("vmm", []) == []


def test_a_device_does_not_get_what_the_vmm_has(host: DeviceHost) -> None:
    host.resources.allocate("vmm", [mmio_constraint(0x1000, 0xD000_0000)])
    with refused(grpc.StatusCode.FAILED_PRECONDITION, "RANGE_TAKEN") as metadata:
        host.hotplug.plug("register", {"base": "0xd0000000"})
    assert metadata["holder"] == "vmm"
    assert metadata["step"] == "allocate"


def test_the_vmm_does_not_get_what_a_device_has(host: DeviceHost) -> None:
    host.hotplug.plug("register", {"base": "0xd0000000"}, device_id="r")
    with refused(grpc.StatusCode.FAILED_PRECONDITION, "RANGE_TAKEN") as metadata:
        host.resources.allocate("vmm", [mmio_constraint(0x10, 0xD000_0FF0)])
    assert metadata["holder"] == "device/r"


@pytest.mark.parametrize(
    "last",
    [
        pio_constraint(1 << 16),
        pio_constraint(8, 0x700),  # the first of the list has it
        irq_constraint(9),  # likewise
        pio_constraint(0),
        Constraint(),
    ],
    ids=["no-space", "range-taken", "irq-taken", "nonsense", "no-kind"],
)
def test_if_one_fails_none_is_given(lab: Lab, host: DeviceHost, last: Constraint) -> None:
    before = lab.leftovers()
    wishes = [pio_constraint(8, 0x700), irq_constraint(9), mmio_constraint(0x1000), last]
    with pytest.raises(Exception, match=r"."):
        host.resources.allocate("vmm", wishes)
    assert lab.leftovers() == before
    assert len(host.resources.allocate("vmm", wishes[:3])) == 3


@pytest.mark.parametrize("owner", ["", "device/x", "a b", "x" * 65])
def test_an_owner_that_is_no_name_is_refused(host: DeviceHost, owner: str) -> None:
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "BAD_REQUEST") as metadata:
        host.resources.allocate(owner, [pio_constraint(8)])
    assert metadata["field"] == "owner"


def test_the_same_request_again_returns_the_same_resources(lab: Lab) -> None:
    request = pb.AllocateRequest(
        request_id=str(uuid.uuid4()), owner="vmm", constraints=[pio_constraint(8)]
    )
    stubs = [ResourceServiceStub(lab.channel()) for _ in range(6)]
    barrier = threading.Barrier(len(stubs))

    def run(stub: ResourceServiceStub) -> pb.AllocateResponse:
        barrier.wait(CALL_S)
        response: pb.AllocateResponse = stub.Allocate(request, timeout=CALL_S)
        return response

    with ThreadPoolExecutor(len(stubs)) as threads:
        answers = list(threads.map(run, stubs))
    assert all(answer == answers[0] for answer in answers)
    assert len(lab.server.resources.allocations()) == 1


def test_an_id_of_another_request_is_refused(lab: Lab) -> None:
    stub = ResourceServiceStub(lab.channel())
    request = pb.AllocateRequest(request_id="once", owner="vmm", constraints=[pio_constraint(8)])
    stub.Allocate(request, timeout=CALL_S)
    request.owner = "other"
    with refused(grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED"):
        stub.Allocate(request, timeout=CALL_S)
    assert len(lab.server.resources.allocations()) == 1


def test_many_owners_at_once_share_nothing(lab: Lab) -> None:
    hosts = [lab.host() for _ in range(4)]

    def run(number: int) -> list[int]:
        allocate = hosts[number].resources.allocate
        given = [allocate(f"vmm{number}", [pio_constraint(4)]) for _ in range(25)]
        return [resource.pio.base for (resource,) in given]

    with ThreadPoolExecutor(len(hosts)) as threads:
        bases = [base for each in threads.map(run, range(4)) for base in each]
    assert len(set(bases)) == 100
    assert all(abs(a - b) >= 4 for a, b in zip(sorted(bases), sorted(bases)[1:], strict=False))
