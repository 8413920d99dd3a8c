"""The pace of a thread beside the accesses: a share of the time, in short parts."""

from __future__ import annotations

import threading
import time

from devicehost_server.services.pace import PART, SHARE, Pace


def work(duration_s: float) -> None:
    """Keep the processor busy, for as long as this thread has it."""
    until = time.thread_time() + duration_s
    while time.thread_time() < until:
        pass


def test_a_thread_that_always_has_work_takes_no_more_than_its_share() -> None:
    pace = Pace()
    items = range(PART * 40)
    begun, worked = time.monotonic(), time.thread_time()
    parts = []
    for part in pace.parts(items):
        parts.append(part)
        work(0.002)
    share = (time.thread_time() - worked) / (time.monotonic() - begun)
    assert [item for part in parts for item in part] == list(items)
    assert {len(part) for part in parts} == {PART}
    assert share <= SHARE * 1.1


def test_to_wait_is_no_work_that_needs_a_rest() -> None:
    pace = Pace()
    time.sleep(0.2)
    begun = time.monotonic()
    pace.rest()
    assert time.monotonic() - begun < 0.1


def test_a_rest_is_as_long_as_is_asked_for_at_least() -> None:
    pace = Pace()
    begun = time.monotonic()
    pace.rest(at_least_s=0.05)
    assert time.monotonic() - begun >= 0.05


def test_when_it_is_over_nobody_rests_any_more() -> None:
    pace = Pace()
    threading.Timer(0.02, pace.end).start()
    begun = time.monotonic()
    pace.rest(at_least_s=60)
    pace.rest(at_least_s=60)
    assert time.monotonic() - begun < 30
