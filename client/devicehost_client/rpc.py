"""Unary calls: with a deadline, and with errors of our tree."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import grpc

from devicehost_client.errors import from_rpc_error

CALL_TIMEOUT_S = 10.0


def call(method: Any, request: Any, timeout_s: float = CALL_TIMEOUT_S) -> Any:
    """Call a stub's method; return the response.

    Raises:
        ConnectionLost: there is no server.
        AccessTimeout: it took longer than `timeout_s`.
        RemoteError: it refused.
    """
    try:
        return method(request, timeout=timeout_s)
    except grpc.RpcError as error:
        raise from_rpc_error(error) from error


def pages(method: Any, request: Any) -> Iterator[Any]:
    """Call a stub's method for each page of a list, and yield the responses."""
    while True:
        response = call(method, request)
        yield response
        if not response.next_page_token:
            return
        request.page_token = response.next_page_token


def new_request_id() -> str:
    """An id that no other request has."""
    return str(uuid.uuid4())
