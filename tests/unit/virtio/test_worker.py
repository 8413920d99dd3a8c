"""The thread that serves queues: kicks, delayed ones, and who has to wait for whom."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from devicehost_server.devices.virtio.worker import Worker

DEADLINE_S = 20.0


class Bench:
    """A worker, and what it has served."""

    def __init__(self) -> None:
        self.served: list[int] = []
        self.delivered = 0
        self.on_serve: Callable[[int], None] = lambda _: None
        self.changed = threading.Condition()
        self.worker = Worker("bench", self._serve, self._deliver)
        self.worker.resume()

    def wait_until(self, condition: Callable[[], bool]) -> None:
        with self.changed:
            assert self.changed.wait_for(condition, DEADLINE_S)

    def _serve(self, index: int) -> None:
        self.on_serve(index)
        with self.changed:
            self.served.append(index)
            self.changed.notify_all()

    def _deliver(self) -> None:
        with self.changed:
            self.delivered += 1
            self.changed.notify_all()


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.worker.pause()
    bench.worker.close()


def test_kicks_of_a_queue_that_waits_already_are_one(bench: Bench) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def wait(index: int) -> None:
        if index == 0:
            entered.set()
            assert go_on.wait(DEADLINE_S)

    bench.on_serve = wait
    bench.worker.kick(0)
    assert entered.wait(DEADLINE_S)
    for index in (1, 2, 1, 2, 1):
        bench.worker.kick(index)
    go_on.set()
    bench.wait_until(lambda: len(bench.served) == 3)
    bench.worker.kick(3)
    bench.wait_until(lambda: 3 in bench.served)
    assert bench.served == [0, 1, 2, 3]


def test_a_kick_while_a_queue_is_served_is_not_lost(bench: Bench) -> None:
    bench.on_serve = lambda _: bench.worker.kick(0) if len(bench.served) < 5 else None
    bench.worker.kick(0)
    bench.wait_until(lambda: len(bench.served) == 6)


def test_a_delayed_kick_comes_after_its_time_and_once(bench: Bench) -> None:
    begin = time.monotonic()
    for _ in range(100):
        bench.worker.kick_after(0, 0.05)
    bench.wait_until(lambda: bool(bench.served))
    assert time.monotonic() - begin >= 0.05
    bench.worker.kick_after(1, 0.05)
    bench.wait_until(lambda: 1 in bench.served)
    assert bench.served == [0, 1]


def test_the_earlier_of_two_delayed_kicks_counts(bench: Bench) -> None:
    bench.worker.kick_after(0, 1000)
    bench.worker.kick_after(0, 0.001)
    bench.worker.kick_after(0, 1000)
    bench.wait_until(lambda: bench.served == [0])


def test_a_queue_that_asks_again_and_again_does_not_pile_up_kicks(bench: Bench) -> None:
    """As one does whose source has nothing, while its driver kicks."""
    bench.on_serve = lambda index: bench.worker.kick_after(index, 0.01)
    for _ in range(200):
        before = len(bench.served)
        bench.worker.kick(0)
        bench.wait_until(lambda: len(bench.served) > before)  # noqa: B023 # called in this round
    before, begin = len(bench.served), time.monotonic()
    bench.wait_until(lambda: len(bench.served) >= before + 10)
    assert time.monotonic() - begin > 0.05  # not 200 at a time


def test_a_busy_queue_does_not_keep_a_delayed_kick_away(bench: Bench) -> None:
    bench.on_serve = lambda _: bench.worker.kick(0) if 1 not in bench.served else None
    bench.worker.kick(0)
    bench.worker.kick_after(1, 0.01)
    bench.wait_until(lambda: 1 in bench.served)


def test_delayed_kicks_do_not_keep_others_away(bench: Bench) -> None:
    bench.on_serve = lambda _: bench.worker.kick_after(0, 0) if 1 not in bench.served else None
    bench.worker.kick_after(0, 0)
    bench.wait_until(lambda: len(bench.served) > 3)
    bench.worker.kick(1)
    bench.wait_until(lambda: 1 in bench.served)


def test_nothing_is_served_while_it_is_paused(bench: Bench) -> None:
    bench.worker.pause()
    bench.worker.kick(0)
    bench.worker.post()
    bench.wait_until(lambda: bench.delivered >= 2)
    bench.worker.resume()
    bench.worker.kick(1)
    bench.wait_until(lambda: bool(bench.served))
    assert bench.served == [1]


def test_a_pause_waits_for_what_is_being_served(bench: Bench) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def wait(_: int) -> None:
        entered.set()
        assert go_on.wait(DEADLINE_S)

    bench.on_serve = wait
    bench.worker.kick(0)
    assert entered.wait(DEADLINE_S)
    pausing = threading.Thread(target=bench.worker.pause)
    pausing.start()
    pausing.join(0.05)
    assert pausing.is_alive()
    go_on.set()
    pausing.join(DEADLINE_S)
    assert bench.served == [0]
