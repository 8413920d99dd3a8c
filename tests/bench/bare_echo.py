"""The floors of gRPC: servers that do nothing but echo bytes, and their clients.

Run as a program, it is the server: `bare_echo.py SOCKET`.
"""

from __future__ import annotations

import queue
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc

_SERVICE = "bench.Echo"


def serve(path: str) -> None:
    """Echo until standard input ends."""
    server = grpc.server(ThreadPoolExecutor(8))
    handlers = {
        "Unary": grpc.unary_unary_rpc_method_handler(lambda request, _context: request),
        "Stream": grpc.stream_stream_rpc_method_handler(lambda requests, _context: requests),
    }
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(_SERVICE, handlers)])
    server.add_insecure_port(f"unix:{path}")
    server.start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.read()
    server.stop(None).wait()


@contextmanager
def bare_echo(folder: Path) -> Iterator[grpc.Channel]:
    """A channel to an echo server in another process."""
    path = folder / "echo.sock"
    process = subprocess.Popen(
        [sys.executable, __file__, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdout.readline()
    with grpc.insecure_channel(f"unix:{path}") as channel:
        yield channel
    process.stdin.close()
    process.wait()


def unary(channel: grpc.Channel, message: bytes) -> Callable[[], object]:
    """A call that sends `message` and gets it back."""
    method = channel.unary_unary(f"/{_SERVICE}/Unary")
    return lambda: method(message)


def stream(
    channel: grpc.Channel, message: bytes
) -> tuple[Callable[[], object], Callable[[], None]]:
    """A call that sends `message` on an open stream and gets it back; and one to end it."""
    outgoing: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()

    def requests() -> Iterator[bytes]:
        while (request := outgoing.get()) is not None:
            yield request

    responses: Any = channel.stream_stream(f"/{_SERVICE}/Stream")(requests())

    def echo() -> object:
        outgoing.put(message)
        return next(responses)

    return echo, lambda: outgoing.put(None)


if __name__ == "__main__":
    serve(sys.argv[1])
