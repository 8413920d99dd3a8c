"""ResourceService: the pools, for whoever needs something of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import grpc

from devicehost.v1 import resource_service_pb2 as pb
from devicehost.v1.resource_service_pb2_grpc import ResourceServiceServicer
from devicehost_server.allocation import Allocation, ResourceManager
from devicehost_server.model import resources as model
from devicehost_server.model.names import check_name
from devicehost_server.services.convert import (
    constraint_from_message,
    resource_from_message,
    resource_to_message,
    resources_to_messages,
)
from devicehost_server.services.idempotency import RequestLog
from devicehost_server.services.pages import Key, page


class ResourceService(ResourceServiceServicer):
    """Allocates and releases.

    Args:
        resources: the pools.
        requests: the requests that came before.
    """

    def __init__(self, resources: ResourceManager, requests: RequestLog) -> None:
        self._resources = resources
        self._requests = requests

    def Allocate(
        self, request: pb.AllocateRequest, context: grpc.ServicerContext
    ) -> pb.AllocateResponse:
        """Allocate a resource for each constraint."""
        del context
        check_name("owner", request.owner)
        constraints = [constraint_from_message(message) for message in request.constraints]

        def allocate() -> pb.AllocateResponse:
            resources = self._resources.allocate(constraints, request.owner)
            return pb.AllocateResponse(resources=resources_to_messages(resources))

        return self._requests.run(request, allocate)

    def Release(
        self, request: pb.ReleaseRequest, context: grpc.ServicerContext
    ) -> pb.ReleaseResponse:
        """Release resources of one owner."""
        del context
        check_name("owner", request.owner)
        resources = model.DeviceResources(map(resource_from_message, request.resources))

        def release() -> pb.ReleaseResponse:
            self._resources.release(resources, request.owner)
            return pb.ReleaseResponse()

        return self._requests.run(request, release)

    def ListAllocations(
        self, request: pb.ListAllocationsRequest, context: grpc.ServicerContext
    ) -> pb.ListAllocationsResponse:
        """List what belongs to whom."""
        del context
        keyed = _by_key(self._resources.allocations())
        of_page, token = page(request, "allocations", keyed, lambda each: each[0])
        messages = (
            pb.ListAllocationsResponse.Allocation(
                resource=resource_to_message(allocation.resource), owner=allocation.owner
            )
            for _, allocation in of_page
        )
        return pb.ListAllocationsResponse(allocations=messages, next_page_token=token)

    def GetCapacity(
        self, request: pb.GetCapacityRequest, context: grpc.ServicerContext
    ) -> pb.GetCapacityResponse:
        """Say what each pool has left."""
        del request, context
        pools = (
            pb.GetCapacityResponse.Pool(
                name=pool.name, total=pool.total, free=pool.free, largest_free=pool.largest_free
            )
            for pool in self._resources.capacity()
        )
        return pb.GetCapacityResponse(pools=pools)


def _by_key(allocations: Iterable[Allocation]) -> list[tuple[Key, Allocation]]:
    """Give each allocation its place in the order, for pages.

    A shared interrupt is there once for each of its users: they are counted.
    """
    counted: Counter[Key] = Counter()
    keyed: list[tuple[Key, Allocation]] = []
    for allocation in allocations:
        kind, number = _place(allocation.resource)
        counted[kind, number] += 1
        keyed.append(((kind, number, counted[kind, number]), allocation))
    return keyed


def _place(resource: model.Resource) -> tuple[int, int]:
    """The order of the kinds in a list, and the number within a kind."""
    match resource:
        case model.PioAddressRange(base):
            return 0, base
        case model.MmioAddressRange(base):
            return 1, base
        case model.MemAddressRange(base):
            return 2, base
        case model.LegacyIrq(irq):
            return 3, irq
        case model.MsiIrq(_, base):
            return 4, base
        case model.KvmMemSlot(slot):
            return 5, slot
    raise TypeError(f"{resource!r} is never allocated")
