"""What every call passes on its way in, and every error on its way out.

In this order: is the peer allowed, does the server take new work, is a worker left for a
stream. Then the service's method runs. A `DeviceHostError` that leaves it becomes a
status; any other exception is a bug of ours: it is logged, and the peer is told no more
than that.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any, NoReturn, cast

import grpc
import structlog

from devicehost_server.model.errors import (
    DeviceHostError,
    Draining,
    PeerDenied,
    TooManyStreams,
)
from devicehost_server.services.errors import to_status

_log = structlog.get_logger(__name__)

# Calls that go into a device.
_ENTERING = ("/devicehost.v1.IoService/Access", "/devicehost.v1.DebugService/")

# But these don't, and must find a worker: a stream may have to wait until they are called.
_LETTING_GO = ("/Resume", "/DeleteBreakpoint", "/DeleteFault")

# What tells about the server but changes nothing goes on while it drains.
_ALWAYS_SERVED = ("Get", "List", "Check", "Watch", "ServerReflectionInfo")


class Gate(grpc.ServerInterceptor):
    """The interceptor of all calls.

    Args:
        allowed_names: the names (certificate subject's common name, or a subject
            alternative name) of the peers that may call; None for everybody who gets
            through. Peers without a certificate (a Unix socket's) always may.
        of_service: likewise for single services, by their full names, in addition.
        streams_max: how many streams may be open, and accesses made, at once. Each holds a
            worker.

    Attributes:
        draining: whether it takes no new work.
        streams: how many streams are open, and accesses made.
    """

    def __init__(
        self,
        allowed_names: frozenset[str] | None,
        streams_max: int,
        of_service: Mapping[str, frozenset[str]] | None = None,
    ) -> None:
        self._allowed_names = allowed_names
        self._of_service = dict(of_service or {})
        self._streams_max = streams_max
        self._streams = threading.BoundedSemaphore(streams_max)
        self.streams = 0
        self.draining = False
        self._gated: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}

    def drain(self) -> None:
        """Take no new work from here on."""
        self.draining = True

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler[Any, Any] | None],
        details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Put the gate in front of a method; gRPC asks for each call, so once is enough."""
        method = details.method
        gated = self._gated.get(method)
        if gated is None and (handler := continuation(details)) is not None:
            gated = self._gated[method] = self._put_in_front(method, handler)
        return gated

    def _put_in_front(self, method: str, handler: Any) -> grpc.RpcMethodHandler[Any, Any]:
        codec = {
            "request_deserializer": handler.request_deserializer,
            "response_serializer": handler.response_serializer,
        }
        if handler.unary_unary:
            return grpc.unary_unary_rpc_method_handler(
                self._unary(method, handler.unary_unary), **codec
            )
        if handler.unary_stream:
            return grpc.unary_stream_rpc_method_handler(
                self._stream(method, handler.unary_stream), **codec
            )
        return grpc.stream_stream_rpc_method_handler(
            self._stream(method, handler.stream_stream), **codec
        )

    def _unary(self, method: str, behavior: Callable[..., Any]) -> Callable[..., Any]:
        works = _is_work(method)
        # A device that hangs may hold it as long as a stream does.
        enters = method.startswith(_ENTERING) and not method.endswith(_LETTING_GO)
        slot = self._stream_slot if enters else nullcontext

        def gated(request: Any, context: grpc.ServicerContext) -> Any:
            try:
                self._admit(context, method, works=works)
                with slot():
                    return behavior(request, context)
            except DeviceHostError as error:
                _abort(context, error)
            except Exception as error:  # noqa: BLE001 # a bug of ours ends the call only
                _abort_bug(context, method, error)

        return gated

    def _stream(self, method: str, behavior: Callable[..., Any]) -> Callable[..., Any]:
        works = _is_work(method)

        def gated(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            try:
                self._admit(context, method, works=works)
                with self._stream_slot():
                    yield from behavior(request, context)
            except DeviceHostError as error:
                _abort(context, error)
            except Exception as error:  # noqa: BLE001 # a bug of ours ends the call only
                if context.is_active():
                    _abort_bug(context, method, error)

        return gated

    def _admit(self, context: grpc.ServicerContext, method: str, *, works: bool) -> None:
        if self._allowed_names is not None:
            self._check_peer(context, self._allowed_names)
        if (of_service := self._of_service.get(method.split("/")[1])) is not None:
            self._check_peer(context, of_service)
        if works and self.draining:
            raise Draining("the server is stopping and takes no new work")

    def _check_peer(self, context: grpc.ServicerContext, allowed: frozenset[str]) -> None:
        # The stubs have it wrong: a property can have several values.
        identity = cast("Mapping[str, Iterable[bytes]]", context.auth_context())
        if b"ssl" not in identity.get("transport_security_type", ()):
            return
        names = {
            name.decode(errors="replace")
            for key in ("x509_common_name", "x509_subject_alternative_name")
            for name in identity.get(key, ())
        }
        if not names & allowed:
            shown = ", ".join(sorted(names)) or "none"
            raise PeerDenied(f"the peer's names ({shown}) are not allowed", names=shown)

    @contextmanager
    def _stream_slot(self) -> Iterator[None]:
        """Hold one of the streams."""
        if not self._streams.acquire(blocking=False):
            raise TooManyStreams(
                f"{self._streams_max} streams are open, which is all that this server's"
                " workers allow; close one, or raise --streams-max",
                allowed=self._streams_max,
            )
        self.streams += 1
        try:
            yield
        finally:
            self.streams -= 1
            self._streams.release()


def _is_work(method: str) -> bool:
    """Whether `/package.Service/Method` does something that a draining server won't begin."""
    return not method.rpartition("/")[2].startswith(_ALWAYS_SERVED)


def _abort(context: grpc.ServicerContext, error: DeviceHostError) -> NoReturn:
    context.abort_with_status(to_status(error))
    raise AssertionError("abort_with_status raises")


def _abort_bug(context: grpc.ServicerContext, method: str, error: Exception) -> NoReturn:
    _log.error("rpc_failed", method=method, exc_info=error)
    _abort(context, DeviceHostError(f"internal error: {type(error).__qualname__}"))
