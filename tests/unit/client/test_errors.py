"""Statuses and failures become errors of the client's tree."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from devicehost.v1 import error_pb2
from devicehost_client.errors import ConnectionLost, RemoteError, from_failure, from_rpc_error
from devicehost_server.model.errors import DeviceOverlap
from devicehost_server.services.errors import to_status


class Failed(grpc.RpcError):
    """What gRPC raises for a call that failed."""

    def __init__(
        self, code: grpc.StatusCode, details: str | None, trailers: Any = (("x", "y"),)
    ) -> None:
        super().__init__()
        self._status = code, details, trailers

    def code(self) -> grpc.StatusCode:
        return self._status[0]

    def details(self) -> str | None:
        return self._status[1]

    def trailing_metadata(self) -> Any:
        return self._status[2]


def test_a_failure_keeps_all_that_it_says() -> None:
    info = error_pb2.ErrorInfo(reason="NO_DEVICE", domain="devicehost", metadata={"size": "4"})
    error = from_failure(error_pb2.Failure(code=5, message="no device", info=info))
    assert (str(error), error.code, error.reason) == (
        "no device",
        grpc.StatusCode.NOT_FOUND,
        "NO_DEVICE",
    )
    assert error.metadata == {"size": "4"}


@pytest.mark.parametrize("number", [-1, 17, 99, 1 << 30])
def test_a_code_that_is_unknown_is_unknown(number: int) -> None:
    assert from_failure(error_pb2.Failure(code=number)).code is grpc.StatusCode.UNKNOWN


def test_a_status_of_the_server_keeps_all_that_it_says() -> None:
    status = to_status(DeviceOverlap("they overlap", range="0x0-0x7", device="uart0"))
    error = from_rpc_error(Failed(status.code, status.details, status.trailing_metadata))
    assert isinstance(error, RemoteError)
    assert (str(error), error.code) == ("they overlap", grpc.StatusCode.ALREADY_EXISTS)
    assert (error.reason, error.metadata) == (
        "RANGE_OVERLAP",
        {"range": "0x0-0x7", "device": "uart0"},
    )


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED])
@pytest.mark.parametrize("trailers", [None, (), (("x", "y"),)])
def test_a_call_that_nobody_answered_is_a_lost_connection(
    code: grpc.StatusCode, trailers: Any
) -> None:
    error = from_rpc_error(Failed(code, "nobody there", trailers))
    assert isinstance(error, ConnectionLost)
    assert str(error) == "nobody there"


def test_a_status_without_a_reason_has_none() -> None:
    error = from_rpc_error(Failed(grpc.StatusCode.UNIMPLEMENTED, None))
    assert isinstance(error, RemoteError)
    assert (str(error), error.reason, error.metadata) == ("UNIMPLEMENTED", "", {})


def test_details_of_others_are_passed_over() -> None:
    status = error_pb2.ErrorStatus(code=5, message="x")
    status.details.add(type_url="type.googleapis.com/other.Thing", value=b"\xff")
    trailers = (("grpc-status-details-bin", status.SerializeToString()),)
    error = from_rpc_error(Failed(grpc.StatusCode.NOT_FOUND, "x", trailers))
    assert isinstance(error, RemoteError)
    assert error.reason == ""
