"""The watchdog: cancels what is overdue, and nothing else."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from daemonlab import wait_until
from devicehost_client.transports.watchdog import Watchdog

TIMEOUT_S = 0.05
WAIT_S = 30.0


@pytest.fixture
def watchdog() -> Iterator[Watchdog]:
    result = Watchdog(TIMEOUT_S)
    yield result
    result.close()


def test_what_is_overdue_is_cancelled_once(watchdog: Watchdog) -> None:
    cancelled: list[float] = []
    deadline = watchdog.watch(lambda: cancelled.append(time.monotonic()))
    started = time.monotonic()
    watchdog.start(deadline)
    wait_until(lambda: cancelled)
    assert cancelled[0] - started >= TIMEOUT_S
    assert deadline.expired
    assert deadline.at is None
    # Another one takes its time as well; meanwhile nothing more happened to the first.
    other = threading.Event()
    watchdog.start(watchdog.watch(other.set))
    assert other.wait(WAIT_S)
    assert len(cancelled) == 1


def test_what_ended_in_time_is_left_alone(watchdog: Watchdog) -> None:
    cancelled: list[str] = []
    deadline = watchdog.watch(lambda: cancelled.append("early"))
    ended = time.monotonic() + 2 * TIMEOUT_S
    while time.monotonic() < ended:
        watchdog.start(deadline)
        deadline.at = None
    late = threading.Event()
    watchdog.start(watchdog.watch(late.set))
    assert late.wait(WAIT_S)
    assert cancelled == []
    assert not deadline.expired


def test_it_wakes_up_for_each_however_long_it_slept(watchdog: Watchdog) -> None:
    for _ in range(10):
        cancelled = threading.Event()
        deadline = watchdog.watch(cancelled.set)
        watchdog.start(deadline)
        assert cancelled.wait(WAIT_S)
        watchdog.forget(deadline)


def test_many_are_watched_at_once(watchdog: Watchdog) -> None:
    events = [threading.Event() for _ in range(50)]
    for event in events:
        watchdog.start(watchdog.watch(event.set))
    assert all(event.wait(WAIT_S) for event in events)


def test_what_is_forgotten_is_never_cancelled(watchdog: Watchdog) -> None:
    cancelled: list[str] = []
    deadline = watchdog.watch(lambda: cancelled.append("forgotten"))
    watchdog.start(deadline)
    watchdog.forget(deadline)
    watchdog.forget(deadline)  # and again
    other = threading.Event()
    watchdog.start(watchdog.watch(other.set))
    assert other.wait(WAIT_S)
    assert cancelled == []


def test_it_can_be_closed_while_something_is_in_flight() -> None:
    watchdog = Watchdog(WAIT_S)
    watchdog.start(watchdog.watch(lambda: None))
    started = time.monotonic()
    watchdog.close()
    watchdog.close()
    assert time.monotonic() - started < WAIT_S / 2


def test_it_can_be_closed_by_what_it_calls() -> None:
    watchdog = Watchdog(TIMEOUT_S)
    closed = threading.Event()

    def close() -> None:
        watchdog.close()
        closed.set()

    watchdog.start(watchdog.watch(close))
    assert closed.wait(WAIT_S)
