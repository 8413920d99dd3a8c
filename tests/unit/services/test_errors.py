"""Errors as they go out: every class has a code, and any text fits."""

from __future__ import annotations

import inspect

import pytest
from google.rpc import code_pb2
from hypothesis import given
from hypothesis import strategies as st

from devicehost_server.model import errors
from devicehost_server.services.errors import FACT_MAX, MESSAGE_MAX, code, to_failure, to_status

CLASSES = [
    cls
    for _, cls in inspect.getmembers(errors, inspect.isclass)
    if issubclass(cls, errors.DeviceHostError)
]


def make(cls: type[errors.DeviceHostError]) -> errors.DeviceHostError:
    if issubclass(cls, errors.DeviceFault):
        return cls("uart0", "in a test", ValueError("x"))
    if issubclass(cls, errors.NotPeekable):
        return cls("uart0", "THR")
    return cls("it failed", address="0x10")


@pytest.mark.parametrize("cls", CLASSES)
def test_every_error_has_a_code(cls: type[errors.DeviceHostError]) -> None:
    error = make(cls)
    assert code(error) in code_pb2.Code.values()
    assert code(error) != code_pb2.OK
    failure = to_failure(error)
    assert (failure.code, failure.message) == (code(error), str(error))
    assert failure.info.reason == cls.reason
    assert failure.info.metadata == error.metadata


def test_only_what_is_our_fault_or_a_devices_is_internal() -> None:
    internal = {cls.__name__ for cls in CLASSES if code(make(cls)) == code_pb2.INTERNAL}
    abstract = {cls.__name__ for cls in CLASSES if cls.reason == "UNKNOWN"}
    assert internal - abstract == {"DeviceFault"}


def test_a_class_without_a_row_has_the_code_of_its_parent() -> None:
    class Special(errors.NoDevice):
        reason = "SPECIAL"

    assert code(Special("gone")) == code_pb2.NOT_FOUND


@given(st.text(alphabet=st.characters(), max_size=3000))
def test_any_text_is_sent_whole_or_clipped(text: str) -> None:
    failure = to_failure(errors.NoDevice(text, fact=text))
    for sent, size_max in (
        (failure.message, MESSAGE_MAX),
        (failure.info.metadata["fact"], FACT_MAX),
    ):
        whole = text.encode(errors="replace").decode()
        assert len(sent.encode()) <= size_max
        assert sent == whole or (sent.endswith("…") and whole.startswith(sent[:-1]))


def test_the_status_of_a_call_stays_below_what_a_peer_takes() -> None:
    facts = {f"fact{n}": "\U0001f4a3" * 10_000 for n in range(8)}
    status = to_status(errors.NoDevice("\U0001f4a3" * 10_000, **facts))
    details = dict(status.trailing_metadata)["grpc-status-details-bin"]
    percent_encoded = 3 * len(status.details.encode())
    assert percent_encoded + 4 * len(details) / 3 < 8192
