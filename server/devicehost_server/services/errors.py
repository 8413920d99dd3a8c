"""The one place where errors become gRPC statuses, and failures of a stream.

A status travels in HTTP/2 headers, of which a peer takes about 8 KiB; one that is larger
arrives as another error altogether. A message may quote what a client sent, or what a
device raised, which can be of any length and hold anything. So all text is clipped.
"""

from __future__ import annotations

import grpc
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from devicehost.v1 import error_pb2
from devicehost_server.model import errors

DOMAIN = "devicehost"

MESSAGE_MAX = 1024
"""The length of a message, in bytes."""
FACT_MAX = 256
"""The length of a value of the metadata, in bytes."""

# The first class of an error's ancestry that stands here decides: a class without a row
# of its own has its parent's code.
_CODES: dict[type[errors.DeviceHostError], int] = {
    errors.DeviceHostError: code_pb2.INTERNAL,
    errors.NoDevice: code_pb2.NOT_FOUND,
    errors.DeviceOverlap: code_pb2.ALREADY_EXISTS,
    errors.AccessOutOfRange: code_pb2.OUT_OF_RANGE,
    errors.BadAccessSize: code_pb2.INVALID_ARGUMENT,
    errors.BadAccess: code_pb2.INVALID_ARGUMENT,
    errors.BadRange: code_pb2.INVALID_ARGUMENT,
    errors.BadTransaction: code_pb2.FAILED_PRECONDITION,
    errors.DeviceBusy: code_pb2.ABORTED,
    errors.DeviceFault: code_pb2.INTERNAL,
    errors.DeviceTimeout: code_pb2.DEADLINE_EXCEEDED,
    errors.MemoryMapped: code_pb2.ALREADY_EXISTS,
    errors.MemoryNotMapped: code_pb2.NOT_FOUND,
    errors.BadConstraint: code_pb2.INVALID_ARGUMENT,
    errors.NothingLeft: code_pb2.RESOURCE_EXHAUSTED,
    errors.RangeTaken: code_pb2.FAILED_PRECONDITION,
    errors.NotAllocated: code_pb2.NOT_FOUND,
    errors.UnknownDeviceType: code_pb2.INVALID_ARGUMENT,
    errors.BadConfig: code_pb2.INVALID_ARGUMENT,
    errors.BadState: code_pb2.INVALID_ARGUMENT,
    errors.DeviceExists: code_pb2.ALREADY_EXISTS,
    errors.NoSuchDevice: code_pb2.NOT_FOUND,
    errors.NoRegisterMap: code_pb2.NOT_FOUND,
    errors.NoSuchRegister: code_pb2.NOT_FOUND,
    errors.NotPeekable: code_pb2.FAILED_PRECONDITION,
    errors.NoSuchBreakpoint: code_pb2.NOT_FOUND,
    errors.NoSuchHit: code_pb2.NOT_FOUND,
    errors.NoSuchFault: code_pb2.NOT_FOUND,
    errors.NoSuchPath: code_pb2.NOT_FOUND,
    errors.NotArmed: code_pb2.FAILED_PRECONDITION,
    errors.RecordingTooSlow: code_pb2.RESOURCE_EXHAUSTED,
    errors.BadRequest: code_pb2.INVALID_ARGUMENT,
    errors.RequestIdReused: code_pb2.ALREADY_EXISTS,
    errors.GenerationMismatch: code_pb2.ABORTED,
    errors.TooManyStreams: code_pb2.RESOURCE_EXHAUSTED,
    errors.WatchTooSlow: code_pb2.RESOURCE_EXHAUSTED,
    errors.Draining: code_pb2.UNAVAILABLE,
    errors.PeerDenied: code_pb2.PERMISSION_DENIED,
}


def code(error: errors.DeviceHostError) -> int:
    """The gRPC status code of an error, as a number."""
    return next(_CODES[cls] for cls in type(error).__mro__ if cls in _CODES)


def to_failure(error: errors.DeviceHostError) -> error_pb2.Failure:
    """An error as data, for an access of a stream."""
    info = error_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=_facts(error))
    return error_pb2.Failure(code=code(error), message=_clip(str(error), MESSAGE_MAX), info=info)


def to_status(error: errors.DeviceHostError) -> grpc.Status:
    """An error as the status of a call, with its reason and metadata as `ErrorInfo`."""
    detail = any_pb2.Any()
    detail.Pack(
        error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=_facts(error))
    )
    message = _clip(str(error), MESSAGE_MAX)
    status = status_pb2.Status(code=code(error), message=message, details=[detail])
    return rpc_status.to_status(status)


def _facts(error: errors.DeviceHostError) -> dict[str, str]:
    return {name: _clip(fact, FACT_MAX) for name, fact in error.metadata.items()}


def _clip(text: str, size_max: int) -> str:
    """Return `text` as at most `size_max` bytes of valid UTF-8."""
    # A device may quote a file name that isn't text, which Python keeps as surrogates.
    encoded = text.encode(errors="replace")
    if len(encoded) <= size_max:
        return encoded.decode()
    ellipsis = "…"
    kept = encoded[: size_max - len(ellipsis.encode())]
    return kept.decode(errors="ignore") + ellipsis
