"""The request log: one effect and one answer for each id."""

from __future__ import annotations

import threading

import pytest

from devicehost.v1 import hotplug_service_pb2 as pb
from devicehost_server.model.errors import BadRequest, NoSuchDevice, RequestIdReused
from devicehost_server.services import idempotency
from devicehost_server.services.idempotency import ID_MAX, RequestLog

WAIT_S = 30.0


class Counter:
    """An action that counts how often it is done."""

    def __init__(self) -> None:
        self.done = 0

    def __call__(self) -> pb.UnplugDeviceResponse:
        self.done += 1
        return pb.UnplugDeviceResponse(generation=self.done)


def request(request_id: str, device_id: str = "r") -> pb.UnplugDeviceRequest:
    return pb.UnplugDeviceRequest(request_id=request_id, device_id=device_id)


def test_the_same_request_is_done_once_and_answered_alike() -> None:
    log, action = RequestLog(), Counter()
    answers = [log.run(request("a"), action) for _ in range(3)]
    assert action.done == 1
    assert [answer.generation for answer in answers] == [1, 1, 1]


def test_a_request_without_an_id_is_done_each_time() -> None:
    log, action = RequestLog(), Counter()
    assert [log.run(request(""), action).generation for _ in range(3)] == [1, 2, 3]


def test_another_request_of_the_same_id_is_refused() -> None:
    log, action = RequestLog(), Counter()
    log.run(request("a"), action)
    with pytest.raises(RequestIdReused, match="request_id 'a' was used for another request"):
        log.run(request("a", "other"), action)
    with pytest.raises(RequestIdReused):  # the same fields, but of another message
        log.run(pb.PlugDeviceRequest(request_id="a", type="r"), action)
    assert action.done == 1


def test_a_request_that_failed_is_done_again() -> None:
    log, action = RequestLog(), Counter()

    def fail() -> pb.UnplugDeviceResponse:
        raise NoSuchDevice("there is none")

    for _ in range(2):
        with pytest.raises(NoSuchDevice):
            log.run(request("a"), fail)
    assert log.run(request("a"), action).generation == 1
    assert log.run(request("a"), action).generation == 1


def test_of_two_at_once_the_second_waits_for_the_first() -> None:
    log = RequestLog()
    entered, go_on = threading.Event(), threading.Event()
    action = Counter()
    answers: list[int] = []

    def slowly() -> pb.UnplugDeviceResponse:
        entered.set()
        assert go_on.wait(WAIT_S)
        return action()

    def run() -> None:
        answers.append(log.run(request("a"), slowly).generation)

    threads = [threading.Thread(target=run) for _ in range(5)]
    for thread in threads:
        thread.start()
    assert entered.wait(WAIT_S)
    assert log.run(request("b"), action).generation == 1  # others don't wait
    go_on.set()
    for thread in threads:
        thread.join()
    assert answers == [2] * 5
    assert action.done == 2


def test_the_oldest_answers_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idempotency, "ENTRIES_MAX", 3)
    log, action = RequestLog(), Counter()
    for request_id in "abcd":
        log.run(request(request_id), action)
    assert log.run(request("d"), action).generation == 4
    assert log.run(request("b"), action).generation == 2
    assert log.run(request("a"), action).generation == 5  # forgotten, and done again


def test_an_id_is_not_of_any_length() -> None:
    log, action = RequestLog(), Counter()
    log.run(request("\u00e4" * ID_MAX), action)
    with pytest.raises(BadRequest, match="request_id has 129 characters; allowed: at most 128"):
        log.run(request("\u00e4" * (ID_MAX + 1)), action)
    assert action.done == 1


def test_the_id_of_a_request_that_failed_is_free_for_another() -> None:
    log, action = RequestLog(), Counter()

    def fail() -> pb.UnplugDeviceResponse:
        raise NoSuchDevice("there is none")

    with pytest.raises(NoSuchDevice):
        log.run(request("a"), fail)
    other = pb.UnplugDeviceRequest(request_id="a", device_id="another")
    assert log.run(other, action).generation == 1


def test_a_request_that_is_being_done_is_not_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idempotency, "ENTRIES_MAX", 1)
    log, action = RequestLog(), Counter()

    def meanwhile() -> pb.UnplugDeviceResponse:
        for request_id in "bcd":
            log.run(request(request_id), action)
        return action()

    assert log.run(request("a"), meanwhile).generation == 4
    assert log.run(request("a"), action).generation == 4
