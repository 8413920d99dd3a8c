from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial

import pytest

from devicehost_server.devices.virtio.blk.workers import DETOURS, SLOW_NS, Pace, Workers

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


def test_all_jobs_are_done(workers: Workers) -> None:
    done: list[int] = []
    all_done = threading.Event()
    for number in range(500):
        workers.submit(lambda number=number: done.append(number))  # type: ignore[misc]
    workers.submit(all_done.set)
    assert all_done.wait(WAIT_S)
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


def test_drain_waits_for_what_is_being_done_and_drops_the_rest(workers: Workers) -> None:
    begun, release, drained = threading.Semaphore(0), threading.Event(), threading.Event()
    done: list[int] = []

    def job(number: int) -> None:
        begun.release()
        release.wait(WAIT_S)
        done.append(number)

    def drain() -> None:
        workers.drain()
        drained.set()

    for number in range(10):
        workers.submit(partial(job, number))
    for _ in range(3):
        assert begun.acquire(timeout=WAIT_S)
    waiting = threading.Thread(target=drain)
    waiting.start()
    assert not drained.wait(0.05)
    release.set()
    assert drained.wait(WAIT_S)
    waiting.join()
    assert sorted(done) == [0, 1, 2]
    workers.submit(partial(job, 10))  # it goes on
    assert begun.acquire(timeout=WAIT_S)


def test_after_a_slow_request_others_take_the_detour_for_a_while() -> None:
    pace = Pace()
    pace.note(SLOW_NS)
    assert pace.is_quick()
    pace.note(SLOW_NS + 1)
    assert not any(pace.is_quick() for _ in range(DETOURS))
    assert pace.is_quick()
