"""What can go wrong for a client, as one tree, and the one place where statuses become it.

    ClientError
    ├── ConnectionLost     there is no server, or it went away
    ├── AccessTimeout      the server didn't answer within the deadline
    ├── NotLocal           only the local socket carries descriptors, and we aren't on it
    └── RemoteError        the server said no: it has a code, a reason and metadata

`RemoteError.reason` is stable and for programs: NO_DEVICE, RANGE_TAKEN, … Each RPC's
comment in `proto/devicehost/v1` lists its reasons.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import cast

import grpc

from devicehost.access_status import AccessStatus
from devicehost.v1 import error_pb2

_DETAILS_KEY = "grpc-status-details-bin"
_ERROR_INFO_URL = "type.googleapis.com/google.rpc.ErrorInfo"

_CODES = {code.value[0]: code for code in grpc.StatusCode}

_STATUS_CODES = {
    AccessStatus.OK: grpc.StatusCode.OK,
    AccessStatus.NO_DEVICE: grpc.StatusCode.NOT_FOUND,
    AccessStatus.ACCESS_OUT_OF_RANGE: grpc.StatusCode.OUT_OF_RANGE,
    AccessStatus.BAD_ACCESS_SIZE: grpc.StatusCode.INVALID_ARGUMENT,
    AccessStatus.BAD_ACCESS: grpc.StatusCode.INVALID_ARGUMENT,
    AccessStatus.DEVICE_FAULT: grpc.StatusCode.INTERNAL,
    AccessStatus.DEVICE_TIMEOUT: grpc.StatusCode.DEADLINE_EXCEEDED,
    AccessStatus.DRAINING: grpc.StatusCode.UNAVAILABLE,
}
_WORDS = {
    AccessStatus.OK: "done",
    AccessStatus.NO_DEVICE: "no device is there",
    AccessStatus.ACCESS_OUT_OF_RANGE: "it runs past the end of the device",
    AccessStatus.BAD_ACCESS_SIZE: "it isn't of an allowed size",
    AccessStatus.BAD_ACCESS: "it isn't an access that the server knows",
    AccessStatus.DEVICE_FAULT: "the device raised",
    AccessStatus.DEVICE_TIMEOUT: "the device was in use for too long",
    AccessStatus.DRAINING: "the server is stopping",
}


class ClientError(Exception):
    """The root."""


class ConnectionLost(ClientError):
    """There is no server at the endpoint, or it went away."""


class AccessTimeout(ClientError):
    """The server didn't answer an access, or a call, within its deadline."""


class NotLocal(ClientError):
    """Memory and eventfds are handed over by the local socket, and accesses take another way."""


class RemoteError(ClientError):
    """The server refused, or failed.

    Attributes:
        code: the gRPC status code.
        reason: a stable name, such as NO_DEVICE; "" if the server gave none.
        metadata: the facts, by name.
    """

    def __init__(
        self,
        message: str,
        code: grpc.StatusCode,
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.metadata = dict(metadata or {})


def from_failure(failure: error_pb2.Failure) -> RemoteError:
    """Turn the failure of an access on a stream into its error."""
    code = _CODES.get(failure.code, grpc.StatusCode.UNKNOWN)
    return RemoteError(failure.message, code, failure.info.reason, failure.info.metadata)


def from_access_status(status: AccessStatus, what: str, **facts: str) -> RemoteError:
    """Turn how an access by a local way ended into its error.

    Those ways carry no more than a number: what a device raised is in the server's log.
    """
    return RemoteError(f"{what}: {_WORDS[status]}", _STATUS_CODES[status], status.name, facts)


def from_rpc_error(error: grpc.RpcError) -> ClientError:
    """Turn the failure of a call into its error."""
    code: grpc.StatusCode = error.code()
    message: str = error.details() or code.name
    info = _error_info(error)
    if info is not None:
        return RemoteError(message, code, info.reason, info.metadata)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:  # ours: the server's has a reason
        return AccessTimeout(message)
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
        return ConnectionLost(message)
    return RemoteError(message, code)


def _error_info(error: grpc.RpcError) -> error_pb2.ErrorInfo | None:
    """The `ErrorInfo` in a call's trailers, if it has one."""
    # Binary metadata is bytes; the stubs can't tell.
    trailers = cast("Iterable[tuple[str, bytes]]", error.trailing_metadata() or ())
    for key, value in trailers:
        if key == _DETAILS_KEY:
            status = error_pb2.ErrorStatus.FromString(value)
            for detail in status.details:
                if detail.type_url == _ERROR_INFO_URL:
                    return error_pb2.ErrorInfo.FromString(detail.value)
    return None
