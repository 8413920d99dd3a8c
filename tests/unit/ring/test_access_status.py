"""Statuses: the same names as the server's reasons, and an error number for each."""

from __future__ import annotations

import doctest
import errno

import pytest

from devicehost import access_status
from devicehost.access_status import AccessStatus
from devicehost_server.model import errors
from devicehost_server.model.errors import DeviceHostError

FAILURES = [status for status in AccessStatus if status is not AccessStatus.OK]


def test_each_failure_is_a_reason_of_the_server() -> None:
    reasons = {
        kind.reason
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, DeviceHostError)
    }
    assert {status.name for status in FAILURES} <= reasons


@pytest.mark.parametrize("status", AccessStatus)
def test_an_error_number_stands_for_one_status(status: AccessStatus) -> None:
    assert AccessStatus.from_errno(status.errno) is status


def test_ok_is_no_error() -> None:
    assert AccessStatus.OK.errno == 0
    assert all(status.errno in errno.errorcode for status in FAILURES)


@pytest.mark.parametrize("number", [errno.EPERM, -1, 9999])
def test_an_error_number_of_nothing_we_know_is_a_fault(number: int) -> None:
    assert AccessStatus.from_errno(number) is AccessStatus.DEVICE_FAULT


def test_the_example_does_what_it_shows() -> None:
    assert doctest.testmod(access_status) == (0, 1)
