"""The policy: which failure gets which answer."""

from __future__ import annotations

import grpc
import pytest

from devicehost_client import AccessTimeout, Answer, ConnectionLost, Policy, RemoteError
from devicehost_client.errors import ClientError

POLICY = Policy(no_device=Answer.ONES, failed=Answer.ZEROS, no_server=Answer.RAISE)


def remote(reason: str, code: grpc.StatusCode = grpc.StatusCode.INTERNAL) -> RemoteError:
    return RemoteError("it failed", code, reason)


@pytest.mark.parametrize(
    ("error", "answer"),
    [
        (remote("NO_DEVICE", grpc.StatusCode.NOT_FOUND), Answer.ONES),
        (remote("DEVICE_FAULT"), Answer.ZEROS),
        (remote("DEVICE_TIMEOUT"), Answer.ZEROS),
        (remote("BAD_ACCESS_SIZE"), Answer.ZEROS),
        (remote("ACCESS_OUT_OF_RANGE"), Answer.ZEROS),
        (remote(""), Answer.ZEROS),
        (remote("DRAINING", grpc.StatusCode.UNAVAILABLE), Answer.RAISE),
        (ConnectionLost("gone"), Answer.RAISE),
        (AccessTimeout("late"), Answer.RAISE),
        (ClientError("?"), Answer.ZEROS),
    ],
)
def test_each_failure_has_the_answer_of_its_kind(error: ClientError, answer: Answer) -> None:
    assert POLICY.answer(error) is answer


def test_by_default_lines_float() -> None:
    assert Policy() == Policy(Answer.ONES, Answer.ONES, Answer.ONES)
