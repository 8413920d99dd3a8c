"""gRPC, unary and stream, each beside a bare echo of the same bytes, taking turns.

All run between two processes over a Unix socket.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import bare_echo
import grpc
from measure import Result, result, time_each

from devicehost.v1 import io_service_pb2 as pb
from devicehost.v1.io_service_pb2_grpc import IoServiceStub
from devicehost_client import connect
from devicehost_client.demo.server_process import device_server

_ADDRESS = 0xD000_0000


def results(*, quick: bool) -> Iterator[Result]:
    """Measure reads of 4 bytes."""
    rounds, count = (8, 100) if quick else (40, 250)
    request = pb.AccessRequest(
        access=pb.Access(
            sequence=1000,
            space=pb.SPACE_MMIO,
            operation=pb.OPERATION_READ,
            address=_ADDRESS,
            size=4,
        )
    )
    unary_bytes = request.SerializeToString()
    stream_bytes = pb.StreamRequest(accesses=[request.access]).SerializeToString()
    with (
        tempfile.TemporaryDirectory(prefix="devicehost-bench-") as folder,
        device_server(Path(folder)) as endpoint,
        connect(endpoint) as host,
        grpc.insecure_channel(endpoint) as channel,
        bare_echo.bare_echo(Path(folder)) as echo_channel,
    ):
        host.hotplug.plug("scratch", {"base": str(_ADDRESS), "size": "0x1000"})
        access = IoServiceStub(channel).Access
        vcpu = host.vcpu(0)
        data = bytearray(4)
        echo_stream, end_stream = bare_echo.stream(echo_channel, stream_bytes)
        calls: dict[str, Callable[[], object]] = {
            "floor.grpc.unary": bare_echo.unary(echo_channel, unary_bytes),
            "grpc.unary.read4": lambda: access(request),
            "floor.grpc.stream": echo_stream,
            "grpc.stream.read4": lambda: vcpu.mmio_read_into(_ADDRESS, data),
        }
        samples: dict[str, list[float]] = {name: [] for name in calls}
        for warm_up in calls.values():
            time_each(warm_up, count)
        for _ in range(rounds):
            for way, call in calls.items():
                samples[way] += time_each(call, count)
        end_stream()
        assert vcpu.failures == 0
    for way in ("unary", "stream"):
        floor = result(f"floor.grpc.{way}", samples[f"floor.grpc.{way}"], f"bare grpcio {way} echo")
        yield floor
        name = f"grpc.{way}.read4"
        yield result(name, samples[name], f"a 4-byte MMIO read by gRPC {way}", floor)
