"""Both clocks: one that a test moves, and the machine's."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from devicehost_server.model.clock import Clock, ManualClock, SystemClock

WAIT_S = 30.0
MS = 1_000_000
HOUR = 3_600 * 10**9


# ManualClock.


@pytest.fixture
def manual() -> ManualClock:
    return ManualClock()


def test_a_manual_clock_stands_until_it_is_advanced() -> None:
    clock = ManualClock(wall_ns=1_000)
    assert (clock.now_ns(), clock.wall_ns()) == (0, 1_000)
    clock.advance(5)
    clock.advance(0)
    assert (clock.now_ns(), clock.wall_ns()) == (5, 1_005)


def test_a_clock_is_not_turned_back(manual: ManualClock) -> None:
    manual.advance(10)
    with pytest.raises(ValueError, match="can't advance by -1 ns"):
        manual.advance(-1)
    assert manual.now_ns() == 10


def test_a_timer_runs_once_at_the_moment_that_it_is_due(manual: ManualClock) -> None:
    moments: list[int] = []
    manual.call_at(10, lambda: moments.append(manual.now_ns()))
    manual.advance(9)
    assert moments == []
    manual.advance(1)
    assert moments == [10]
    manual.advance(100)
    assert moments == [10]
    assert manual.now_ns() == 110


def test_timers_run_by_deadline_and_those_of_one_deadline_as_they_were_made(
    manual: ManualClock,
) -> None:
    ran: list[str] = []
    for name, deadline_ns in (("c", 20), ("a", 10), ("d", 20), ("b", 10)):
        manual.call_at(deadline_ns, partial(ran.append, name))
    manual.advance(20)
    assert ran == ["a", "b", "c", "d"]


def test_a_cancelled_timer_does_not_run(manual: ManualClock) -> None:
    ran: list[str] = []
    timer = manual.call_at(10, lambda: ran.append("cancelled"))
    manual.call_at(10, lambda: ran.append("other"))
    timer.cancel()
    timer.cancel()
    manual.advance(20)
    assert ran == ["other"]
    timer.cancel()


def test_a_timer_can_cancel_another_that_is_due_at_the_same_moment(manual: ManualClock) -> None:
    ran: list[str] = []
    manual.call_at(10, lambda: second.cancel())  # noqa: PLW0108 # it doesn't exist yet
    second = manual.call_at(10, lambda: ran.append("second"))
    manual.advance(10)
    assert ran == []


def test_a_timer_that_sets_itself_again_runs_as_often_as_it_is_due(manual: ManualClock) -> None:
    moments: list[int] = []

    def tick() -> None:
        moments.append(manual.now_ns())
        manual.call_at(manual.now_ns() + 10, tick)

    manual.call_at(10, tick)
    manual.advance(35)
    assert moments == [10, 20, 30]


def test_a_deadline_in_the_past_is_due_now_and_does_not_turn_the_clock_back(
    manual: ManualClock,
) -> None:
    manual.advance(100)
    moments: list[int] = []
    manual.call_at(10, lambda: moments.append(manual.now_ns()))
    manual.advance(0)
    assert moments == [100]


# SystemClock.


class Calls:
    """Remembers in which order its callbacks ran, and where."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.threads: set[str] = set()
        self._changed = threading.Condition()

    def to(self, name: str) -> Callable[[], None]:
        def called() -> None:
            with self._changed:
                self.names.append(name)
                self.threads.add(threading.current_thread().name)
                self._changed.notify_all()

        return called

    def wait_for(self, number: int) -> list[str]:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.names) >= number, WAIT_S)
            return list(self.names)


@pytest.fixture
def errors() -> list[BaseException]:
    return []


@pytest.fixture
def system(errors: list[BaseException]) -> Iterator[SystemClock]:
    clock = SystemClock(errors.append)
    yield clock
    clock.close()


@pytest.fixture
def calls() -> Calls:
    return Calls()


def test_the_system_clock_is_the_machines(system: SystemClock) -> None:
    before = (time.monotonic_ns(), time.time_ns())
    now = (system.now_ns(), system.wall_ns())
    after = (time.monotonic_ns(), time.time_ns())
    for earliest, between, latest in zip(before, now, after, strict=True):
        assert earliest <= between <= latest


def test_a_callback_runs_on_the_clocks_thread_and_not_before_its_deadline(
    system: SystemClock,
) -> None:
    ran_at: list[tuple[int, str]] = []
    ran = threading.Event()

    def callback() -> None:
        ran_at.append((time.monotonic_ns(), threading.current_thread().name))
        ran.set()

    deadline_ns = system.now_ns() + 20 * MS
    system.call_at(deadline_ns, callback)
    assert ran.wait(WAIT_S)
    [(moment_ns, thread)] = ran_at
    assert moment_ns >= deadline_ns
    assert thread == "clock"


def test_timers_run_by_deadline_whatever_order_they_were_made_in(
    system: SystemClock, calls: Calls
) -> None:
    start_ns = system.now_ns() + 20 * MS
    for name, delay_ns in (("c", 2), ("a", 0), ("d", 2), ("b", 1)):
        system.call_at(start_ns + delay_ns * MS, calls.to(name))
    assert calls.wait_for(4) == ["a", "b", "c", "d"]


def test_a_timer_that_is_due_earlier_than_those_waited_for_is_not_kept_waiting(
    system: SystemClock, calls: Calls
) -> None:
    system.call_at(system.now_ns() + HOUR, calls.to("in an hour"))
    system.call_at(system.now_ns() + MS, calls.to("soon"))
    system.call_at(0, calls.to("long ago"))
    assert sorted(calls.wait_for(2)) == ["long ago", "soon"]


def test_a_timer_that_was_cancelled_does_not_run(system: SystemClock, calls: Calls) -> None:
    cancelled = system.call_at(system.now_ns() + 20 * MS, calls.to("cancelled"))
    cancelled.cancel()
    system.call_at(cancelled.deadline_ns, calls.to("other"))
    system.call_at(cancelled.deadline_ns + MS, calls.to("later"))
    assert calls.wait_for(2) == ["other", "later"]


@pytest.mark.parametrize("error", [ValueError, SystemExit])
def test_a_callback_that_raises_is_reported_and_the_clock_goes_on(
    system: SystemClock, calls: Calls, errors: list[BaseException], error: type[BaseException]
) -> None:
    def fail() -> None:
        raise error

    system.call_at(0, fail)
    system.call_at(1, calls.to("next"))
    assert calls.wait_for(1) == ["next"]
    assert [type(reported) for reported in errors] == [error]


def test_a_deadline_further_ahead_than_python_can_wait_does_not_stop_the_clock(
    system: SystemClock, calls: Calls
) -> None:
    system.call_at(system.now_ns() + (1 << 64), calls.to("in 584 years"))
    system.call_at(system.now_ns() + 20 * MS, calls.to("soon"))
    assert calls.wait_for(1) == ["soon"]
    system.call_at(system.now_ns() + 20 * MS, calls.to("after a wait for the far one"))
    assert calls.wait_for(2) == ["soon", "after a wait for the far one"]


def test_a_clock_without_timers_has_no_thread(system: SystemClock) -> None:
    assert system._thread is None
    system.call_at(0, lambda: None)
    assert system._thread is not None


def test_close_ends_the_thread_and_drops_what_is_still_due(
    system: SystemClock, calls: Calls
) -> None:
    system.call_at(system.now_ns() + HOUR, calls.to("never"))
    thread = system._thread
    assert thread is not None
    system.close()
    assert not thread.is_alive()
    system.close()
    system.call_at(0, calls.to("too late"))
    assert not thread.is_alive()
    assert calls.names == []


def test_close_waits_for_the_callback_that_is_running(system: SystemClock) -> None:
    entered, leave, ended = threading.Event(), threading.Event(), threading.Event()

    def callback() -> None:
        entered.set()
        assert leave.wait(WAIT_S)
        ended.set()

    system.call_at(0, callback)
    assert entered.wait(WAIT_S)
    closing = threading.Thread(target=system.close)
    closing.start()
    leave.set()
    closing.join(WAIT_S)
    assert not closing.is_alive()
    assert ended.is_set()


def test_a_callback_can_close_the_clock(system: SystemClock, calls: Calls) -> None:
    system.call_at(0, system.close)
    system.call_at(system.now_ns() + HOUR, calls.to("never"))
    thread = system._thread
    assert thread is not None
    thread.join(WAIT_S)
    assert not thread.is_alive()


def test_timers_can_be_set_and_cancelled_from_many_threads(system: SystemClock) -> None:
    threads, timers = 4, 200
    calls = Calls()
    together = threading.Barrier(threads)

    def set_many() -> None:
        together.wait(WAIT_S)
        for _ in range(timers):
            system.call_at(system.now_ns() + 5 * HOUR, calls.to("cancelled")).cancel()
            system.call_at(system.now_ns(), calls.to("run"))

    setters = [threading.Thread(target=set_many) for _ in range(threads)]
    for setter in setters:
        setter.start()
    for setter in setters:
        setter.join(WAIT_S)
    assert calls.wait_for(threads * timers) == ["run"] * threads * timers


# Both.


@pytest.mark.parametrize("kind", ["manual", "system"])
def test_an_alarm_that_is_set_again_and_again_does_not_fill_the_memory(
    kind: str, request: pytest.FixtureRequest
) -> None:
    clock: Clock = request.getfixturevalue(kind)
    kept = [clock.call_at(clock.now_ns() + HOUR, lambda: None) for _ in range(100)]
    for _ in range(10_000):
        clock.call_at(clock.now_ns() + HOUR, lambda: None).cancel()
    assert isinstance(clock, ManualClock | SystemClock)
    assert len(kept) <= len(clock._timers) < 1_000


def test_sweeping_cancelled_timers_keeps_the_others_and_their_order(manual: ManualClock) -> None:
    ran: list[int] = []
    for number in range(500):
        manual.call_at(1_000 - number // 10, partial(ran.append, number))
        manual.call_at(number, partial(ran.append, -1)).cancel()
    manual.advance(2_000)
    assert ran == sorted(range(500), key=lambda number: (-(number // 10), number))
