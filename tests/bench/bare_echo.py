"""The floors of gRPC: servers that do nothing but echo bytes, and their clients.

Run as a program, it is the server: `bare_echo.py SOCKET`.
"""

from __future__ import annotations

import queue
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
from children import child, say
from measure import Case

_SERVICE = "bench.Echo"


@contextmanager
def grpc_floors(folder: Path, unary_message: bytes, stream_message: bytes) -> Iterator[list[Case]]:
    """The cases `floor.grpc.unary` and `floor.grpc.stream`, each with a message to echo."""
    path = folder / "echo.sock"
    with child("bare_echo.py", path), grpc.insecure_channel(f"unix:{path}") as channel:
        method: Any = channel.unary_unary(f"/{_SERVICE}/Unary")
        outgoing: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        echo: Any = channel.stream_stream(f"/{_SERVICE}/Stream")
        responses = echo(iter(outgoing.get, None))

        def unary(times: int) -> None:
            for _ in range(times):
                method(unary_message)

        def stream(times: int) -> None:
            for _ in range(times):
                outgoing.put(stream_message)
                next(responses)

        yield [
            Case("floor.grpc.unary", "bare grpcio unary echo", unary),
            Case("floor.grpc.stream", "bare grpcio stream echo", stream),
        ]
        outgoing.put(None)


def serve(path: str) -> None:
    """Echo until standard input ends."""
    server = grpc.server(ThreadPoolExecutor(8))
    handlers: dict[str, Any] = {
        "Unary": grpc.unary_unary_rpc_method_handler(lambda request, _context: request),
        "Stream": grpc.stream_stream_rpc_method_handler(lambda requests, _context: requests),
    }
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(_SERVICE, handlers)])
    server.add_insecure_port(f"unix:{path}")
    server.start()
    say("ready")
    sys.stdin.read()
    server.stop(None).wait()


if __name__ == "__main__":
    serve(sys.argv[1])
