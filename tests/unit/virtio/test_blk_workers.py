from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from devicehost_server.devices.virtio.blk.pace import DETOURS, SLOW_NS, Pace
from devicehost_server.devices.virtio.blk.workers import Workers

WAIT_S = 30.0


@pytest.fixture
def workers() -> Iterator[Workers]:
    pool = Workers("test-blk", 3)
    yield pool
    pool.close()
    assert not threads()


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("test-blk")]


def test_without_work_there_are_no_threads(workers: Workers) -> None:
    workers.drain()
    assert not threads()


def test_all_jobs_are_done_when_drained(workers: Workers) -> None:
    done: list[int] = []
    for number in range(500):
        workers.submit(lambda number=number: done.append(number))  # type: ignore[misc]
    workers.drain()
    assert sorted(done) == list(range(500))
    assert workers.unfinished == 0


def test_there_are_as_many_threads_as_jobs_at_a_time_up_to_the_limit(workers: Workers) -> None:
    together, release = threading.Barrier(4), threading.Event()

    def job() -> None:
        together.wait(WAIT_S)
        release.wait(WAIT_S)

    for count in (1, 2, 3):
        workers.submit(job)
        assert len(threads()) == count
    together.wait(WAIT_S)  # all three are in a job
    workers.submit(release.set)  # must wait for one of them
    assert len(threads()) == 3
    assert workers.unfinished == 4
    assert not release.wait(0.02)
    release.set()
    workers.drain()


def test_drain_waits_for_what_is_being_done(workers: Workers) -> None:
    release, drained = threading.Event(), threading.Event()

    def job() -> None:
        release.wait(WAIT_S)

    def drain() -> None:
        workers.drain()
        drained.set()

    workers.submit(job)
    waiting = threading.Thread(target=drain)
    waiting.start()
    assert not drained.wait(0.05)
    release.set()
    assert drained.wait(WAIT_S)
    waiting.join()


def test_what_is_left_is_done_before_the_threads_end() -> None:
    done: list[int] = []
    pool = Workers("test-blk", 2)
    for number in range(100):
        pool.submit(lambda number=number: done.append(number))  # type: ignore[misc]
    pool.close()
    assert len(done) == 100
    assert not threads()


def test_after_a_slow_request_others_take_the_detour_for_a_while() -> None:
    pace = Pace()
    pace.note(SLOW_NS)
    assert pace.is_quick()
    pace.note(SLOW_NS + 1)
    assert not any(pace.is_quick() for _ in range(DETOURS))
    assert pace.is_quick()
