"""gRPC, unary and stream, each beside a bare echo of the bytes of a 4-byte read.

All run between two processes over a Unix socket.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import bare_echo
import grpc
import lab
from measure import Case, Effort, Result, measure
from posted import posted

from devicehost.v1 import io_service_pb2 as pb
from devicehost.v1.io_service_pb2_grpc import IoServiceStub


def results(effort: Effort) -> Iterator[Result]:
    """Measure reads, writes and posted writes of all sizes."""
    read = _request(pb.OPERATION_READ, 4)
    stream_bytes = pb.StreamRequest(accesses=[read.access]).SerializeToString()
    with (
        lab.server() as running,
        running.client("grpc-stream") as host,
        grpc.insecure_channel(running.endpoint) as channel,
        bare_echo.grpc_floors(running.folder, read.SerializeToString(), stream_bytes) as floors,
    ):
        stream = lab.accesses(
            "grpc.stream", host.vcpu(0), "by gRPC stream", beside="floor.grpc.stream"
        )
        yield from measure([*floors, *_unary(channel), *stream], effort).results()
        yield from posted("grpc.stream", host.vcpu(0), "by gRPC stream", effort)


def unary_read(channel: grpc.Channel, size: int) -> Callable[[int], None]:
    """Reads by unary calls."""
    return _calls(channel, _request(pb.OPERATION_READ, size))


def _unary(channel: grpc.Channel) -> list[Case]:
    return [
        Case(
            f"grpc.unary.{name}{size}",
            f"{size}-byte {name} by gRPC unary",
            _calls(channel, _request(operation, size)),
            beside="floor.grpc.unary",
        )
        for name, operation in (("read", pb.OPERATION_READ), ("write", pb.OPERATION_WRITE))
        for size in (*lab.SIZES, lab.LONG)
    ]


def _request(operation: pb.Operation.ValueType, size: int) -> pb.AccessRequest:
    return pb.AccessRequest(
        access=pb.Access(
            sequence=1000,
            space=pb.SPACE_MMIO,
            operation=operation,
            address=lab.ADDRESS,
            size=size,
            data=bytes(size) if operation == pb.OPERATION_WRITE else b"",
        )
    )


def _calls(channel: grpc.Channel, request: pb.AccessRequest) -> Callable[[int], None]:
    access = IoServiceStub(channel).Access

    def call(times: int) -> None:
        for _ in range(times):
            access(request)

    return call
