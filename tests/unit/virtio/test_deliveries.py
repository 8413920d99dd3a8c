"""Interrupts on their way to the registers: none is lost, whoever holds the lock."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator

import pytest

from devicehost_server.devices.virtio.deliveries import Deliveries


class Bench:
    """Two causes, and what was delivered."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.delivered: list[int] = []
        self.left = 0
        self.deliveries = Deliveries(self.lock, self._leave)
        for cause in (0, 1):
            self.deliveries.add(cause, lambda cause=cause: self.delivered.append(cause))  # type: ignore[misc]

    def _leave(self) -> None:
        self.left += 1


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def hasty() -> Iterator[None]:
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_what_is_posted_is_delivered_at_once(bench: Bench) -> None:
    bench.deliveries.post(1)
    with bench.lock:
        bench.deliveries.post(0)
    assert (bench.delivered, bench.left) == ([1, 0], 0)


def test_it_is_left_to_the_worker_if_another_thread_is_in_the_device(bench: Bench) -> None:
    with bench.lock:
        posting = threading.Thread(target=bench.deliveries.post, args=(1,))
        posting.start()
        posting.join(20)
        assert (bench.delivered, bench.left) == ([], 1)
        assert bench.deliveries.causes == 0b10
    bench.deliveries.deliver()
    assert (bench.delivered, bench.deliveries.causes) == ([1], 0)


def test_what_is_held_is_left_to_the_worker(bench: Bench) -> None:
    with bench.lock, bench.deliveries.held():
        bench.deliveries.post(0)
        assert (bench.delivered, bench.left) == ([], 0)
    assert (bench.delivered, bench.left) == ([], 1)
    with bench.lock, bench.deliveries.held():
        bench.deliveries.clear()
    assert bench.left == 1


def test_what_is_noted_comes_beside_what_is_noted_already(bench: Bench) -> None:
    with bench.lock, bench.deliveries.held():
        bench.deliveries.post(0)
        bench.deliveries.note(0b1110)  # of which only one is known
    assert bench.deliveries.causes == 0b11
    bench.deliveries.deliver()
    assert sorted(bench.delivered) == [0, 1]
    assert bench.deliveries.known == 0b11


@pytest.mark.usefixtures("hasty")
def test_others_may_post_while_it_is_told_what_is_noted(bench: Bench) -> None:
    for cause in range(2, 300):
        bench.deliveries.add(cause, lambda: None)
    over = threading.Event()

    def post() -> None:
        while not over.is_set():
            for cause in range(300):
                bench.deliveries.note(1 << cause)
            bench.deliveries.clear()

    posting = threading.Thread(target=post)
    posting.start()
    try:
        for _ in range(2000):
            assert bench.deliveries.causes <= bench.deliveries.known
    finally:
        over.set()
        posting.join(20)
