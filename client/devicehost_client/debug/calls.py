"""Calls of DebugService: a server that has none says so in words."""

from __future__ import annotations

from typing import Any

import grpc

from devicehost_client.errors import ClientError, RemoteError, from_rpc_error
from devicehost_client.rpc import CALL_TIMEOUT_S

NOT_OFFERED = "NOT_OFFERED"
"""The reason of the `RemoteError` for a server without DebugService."""


def debug_call(method: Any, request: Any) -> Any:
    """Call a stub's method; return the response.

    Raises:
        ConnectionLost: there is no server.
        AccessTimeout: it took too long.
        RemoteError: it refused; or it has no DebugService, with the reason NOT_OFFERED.
    """
    try:
        return method(request, timeout=CALL_TIMEOUT_S)
    except grpc.RpcError as error:
        raise translated(error) from error


def translated(error: grpc.RpcError) -> ClientError:
    """Turn the failure of a call into its error."""
    result = from_rpc_error(error)
    is_remote = isinstance(result, RemoteError) and not result.reason
    if is_remote and error.code() is grpc.StatusCode.UNIMPLEMENTED:
        message = (
            "the server offers no remote debugging: it was told to leave it out, or is older"
            " than that"
        )
        return RemoteError(message, grpc.StatusCode.UNIMPLEMENTED, NOT_OFFERED)
    return result
