"""The gate, in front of methods of a real server that do what a test tells them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from daemonlab import refused, wait_until
from devicehost_server.model.errors import BadRequest
from devicehost_server.services.gate import Gate
from wire import CALL_S


class Service:
    """Methods by name, behind a gate.

    Attributes:
        gate: the gate.
        does: what each method does, with its request.
    """

    def __init__(self, streams_max: int, path: Path) -> None:
        self.gate = Gate(None, streams_max)
        self.does: Callable[[bytes], Any] = lambda request: request
        self._server = grpc.server(ThreadPoolExecutor(8), interceptors=[self.gate])
        names = ("Do", "GetIt", "ListThem", "WatchThem", "Stream")
        handlers = {name: self._handler(name) for name in names}
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("test.Service", handlers),)
        )
        self._server.add_insecure_port(f"unix:{path}")
        self._server.start()
        self.channel = grpc.insecure_channel(f"unix:{path}")

    def call(self, name: str, request: bytes = b"") -> bytes:
        method: Any = self.channel.unary_unary(f"/test.Service/{name}")
        response: bytes = method(request, timeout=CALL_S)
        return response

    def stream(self, name: str) -> Any:
        method: Any = self.channel.unary_stream(f"/test.Service/{name}")
        return method(b"", timeout=CALL_S)

    def close(self) -> None:
        self.channel.close()
        self._server.stop(0).wait()

    def _handler(self, name: str) -> grpc.RpcMethodHandler[Any, Any]:
        if name in ("WatchThem", "Stream"):
            return grpc.unary_stream_rpc_method_handler(self._stream)
        return grpc.unary_unary_rpc_method_handler(lambda request, _: self.does(request))

    def _stream(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        del context
        yield b"first"
        yield from self.does(request)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    result = Service(2, tmp_path / "test.sock")
    yield result
    result.close()


def test_a_call_gets_through(service: Service) -> None:
    assert service.call("Do", b"it") == b"it"


def test_an_error_of_ours_is_a_status(service: Service) -> None:
    def refuse(_: bytes) -> None:
        raise BadRequest("not like this", field="x")

    service.does = refuse
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "BAD_REQUEST") as metadata:
        service.call("Do")
    assert metadata == {"field": "x"}
    stream = service.stream("Stream")
    assert next(stream) == b"first"
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "BAD_REQUEST"):
        next(stream)


def test_a_bug_of_ours_tells_the_peer_nothing_and_the_next_call_works(
    service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: bytes) -> None:
        raise KeyError("a secret")

    service.does = fail
    with refused(grpc.StatusCode.INTERNAL, "UNKNOWN") as metadata:
        service.call("Do")
    stream = service.stream("Stream")
    next(stream)
    with refused(grpc.StatusCode.INTERNAL, "UNKNOWN"):
        next(stream)
    assert metadata == {}
    with pytest.raises(grpc.RpcError, match="internal error: KeyError"):
        service.call("Do")
    assert "a secret" in capsys.readouterr().out  # but it is in the log
    service.does = lambda request: request
    assert service.call("Do", b"it") == b"it"


def test_a_server_that_drains_does_nothing_new_but_tells_how_it_is(service: Service) -> None:
    service.does = lambda _: b"said"
    service.gate.drain()
    assert service.gate.draining
    for name in ("GetIt", "ListThem"):
        assert service.call(name) == b"said"
    assert next(service.stream("WatchThem")) == b"first"
    with refused(grpc.StatusCode.UNAVAILABLE, "DRAINING"):
        service.call("Do")
    with refused(grpc.StatusCode.UNAVAILABLE, "DRAINING"):
        next(service.stream("Stream"))


def test_places_of_streams_come_back_however_a_stream_ends(service: Service) -> None:
    def fail(_: bytes) -> None:
        raise KeyError("x")

    def opens() -> bool:
        try:
            stream = service.stream("Stream")
            return bool(next(stream) == b"first")
        except grpc.RpcError:
            return False
        finally:
            stream.cancel()

    for does in (lambda _: [], lambda _: [b"more"] * 1000, fail):
        service.does = does
        for _ in range(5):
            wait_until(opens, "a place")
