"""Resources for a VMM's own use, and the state of the pools: `DeviceHost.resources`."""

from __future__ import annotations

from collections.abc import Iterable

import grpc

from devicehost.v1 import resource_pb2
from devicehost.v1 import resource_service_pb2 as pb
from devicehost.v1.resource_service_pb2_grpc import ResourceServiceStub
from devicehost_client.rpc import call, new_request_id, pages


class Resources:
    """Allocates and releases. Safe to use from any thread.

    All methods raise `RemoteError` with a reason of theirs, and `ConnectionLost`.
    """

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = ResourceServiceStub(channel)

    def allocate(
        self, owner: str, constraints: Iterable[resource_pb2.ResourceConstraint]
    ) -> list[resource_pb2.Resource]:
        """Allocate a resource for each constraint; all or nothing.

        Args:
            owner: who will own them.
            constraints: what is needed.

        Raises:
            RemoteError: see ResourceService.Allocate for the reasons.
        """
        request = pb.AllocateRequest(
            request_id=new_request_id(), owner=owner, constraints=constraints
        )
        response: pb.AllocateResponse = call(self._stub.Allocate, request)
        return list(response.resources)

    def release(self, owner: str, resources: Iterable[resource_pb2.Resource]) -> None:
        """Release resources, each as it was allocated; all that can be.

        Raises:
            RemoteError: NOT_ALLOCATED, if the owner doesn't have one of them.
        """
        request = pb.ReleaseRequest(request_id=new_request_id(), owner=owner, resources=resources)
        call(self._stub.Release, request)

    def allocations(self) -> list[pb.ListAllocationsResponse.Allocation]:
        """Return what belongs to whom, devices included."""
        found = pages(self._stub.ListAllocations, pb.ListAllocationsRequest())
        return [allocation for page in found for allocation in page.allocations]

    def capacity(self) -> list[pb.GetCapacityResponse.Pool]:
        """Return what each pool has left."""
        response: pb.GetCapacityResponse = call(self._stub.GetCapacity, pb.GetCapacityRequest())
        return list(response.pools)
