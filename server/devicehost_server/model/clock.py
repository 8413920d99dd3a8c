"""Time for devices: a clock that they are given, so that tests and replays own it.

`SystemClock` is the machine's. `ManualClock` stands still until it is told to advance,
and then runs the timers that fall due, in order, on the caller's thread.

    >>> clock = ManualClock()
    >>> fired = []
    >>> timer = clock.call_at(clock.now_ns() + 5, lambda: fired.append("late"))
    >>> clock.advance(10)
    >>> fired
    ['late']

Times are integers, in nanoseconds. `now_ns` is monotonic, from an arbitrary start;
`wall_ns` is the time since 1970-01-01 00:00:00 UTC.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypeAlias

Callback: TypeAlias = Callable[[], None]
"""Runs on the clock's thread; it must not block for long, and takes its device's lock."""

_FIRST_SWEEP = 64
_LONGEST_WAIT_NS = 3600 * 10**9  # a guest may set an alarm further ahead than Python can wait


class Timer:
    """A call that is due at `deadline_ns`. `cancel` it to keep it from being made."""

    __slots__ = ("callback", "deadline_ns")

    def __init__(self, deadline_ns: int, callback: Callback) -> None:
        self.deadline_ns = deadline_ns
        self.callback: Callback | None = callback

    def cancel(self) -> None:
        """Don't call. A call that has begun on the clock's thread still ends by itself."""
        self.callback = None


class Clock(ABC):
    """What a device sees of time."""

    @abstractmethod
    def now_ns(self) -> int:
        """Monotonic time in nanoseconds."""

    @abstractmethod
    def wall_ns(self) -> int:
        """Nanoseconds since 1970-01-01 00:00:00 UTC."""

    @abstractmethod
    def call_at(self, deadline_ns: int, callback: Callback) -> Timer:
        """Call `callback` once, when `now_ns` reaches `deadline_ns`, or soon after."""


class _TimerQueue:
    """Timers by deadline, and in the order of their making where deadlines are equal.

    A cancelled timer stays until it comes up, or until the queue has doubled since it was
    last swept: a guest that sets an alarm again and again must not fill the memory.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Timer]] = []
        self._order = itertools.count()
        self._sweep_at = _FIRST_SWEEP

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, timer: Timer) -> bool:
        """Add `timer`; return whether it is now the first that is due."""
        if len(self._heap) >= self._sweep_at:
            self._heap = [entry for entry in self._heap if entry[2].callback is not None]
            heapq.heapify(self._heap)
            self._sweep_at = max(_FIRST_SWEEP, 2 * len(self._heap))
        entry = (timer.deadline_ns, next(self._order), timer)
        heapq.heappush(self._heap, entry)
        return self._heap[0] is entry

    def next_deadline_ns(self) -> int | None:
        """When the first timer that wasn't cancelled is due, or None."""
        while self._heap and self._heap[0][2].callback is None:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def pop(self) -> Callback | None:
        """Take the first timer away and return what it calls."""
        return heapq.heappop(self._heap)[2].callback


class SystemClock(Clock):
    """The machine's clocks, and one thread that runs the timers of all devices.

    Args:
        on_error: told of an exception that a callback raised. The clock goes on.
    """

    def __init__(self, on_error: Callable[[BaseException], None]) -> None:
        self._on_error = on_error
        self._timers = _TimerQueue()
        self._changed = threading.Condition()
        self._closed = False
        self._thread: threading.Thread | None = None

    def now_ns(self) -> int:
        """Monotonic time in nanoseconds."""
        return time.monotonic_ns()

    def wall_ns(self) -> int:
        """Nanoseconds since 1970-01-01 00:00:00 UTC."""
        return time.time_ns()

    def call_at(self, deadline_ns: int, callback: Callback) -> Timer:
        """Call `callback` once on the clock's thread, when `deadline_ns` is reached."""
        timer = Timer(deadline_ns, callback)
        with self._changed:
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._run, name="clock", daemon=True)
                self._thread.start()
            if self._timers.add(timer):
                self._changed.notify()
        return timer

    def close(self) -> None:
        """Stop the thread; timers that are still due are dropped."""
        with self._changed:
            self._closed = True
            self._changed.notify()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _run(self) -> None:
        while (callback := self._wait_for_next()) is not None:
            try:
                callback()
            except BaseException as error:  # noqa: BLE001 # a device can't stop the clock
                self._on_error(error)

    def _wait_for_next(self) -> Callback | None:
        """Wait until a timer is due and return what it calls; None when closed."""
        with self._changed:
            while not self._closed:
                deadline_ns = self._timers.next_deadline_ns()
                if deadline_ns is None:
                    self._changed.wait()
                    continue
                remaining_ns = deadline_ns - time.monotonic_ns()
                if remaining_ns > 0:
                    self._changed.wait(min(remaining_ns, _LONGEST_WAIT_NS) / 1e9)
                elif (callback := self._timers.pop()) is not None:
                    return callback
            return None


class ManualClock(Clock):
    """A clock that its owner moves. Not for use from several threads at once.

    Args:
        wall_ns: the wall time to start at; it advances with the monotonic one.
    """

    def __init__(self, wall_ns: int = 0) -> None:
        self._now_ns = 0
        self._wall_offset_ns = wall_ns
        self._timers = _TimerQueue()

    def now_ns(self) -> int:
        """Nanoseconds by which the clock was advanced so far."""
        return self._now_ns

    def wall_ns(self) -> int:
        """Nanoseconds since 1970-01-01 00:00:00 UTC."""
        return self._wall_offset_ns + self._now_ns

    def call_at(self, deadline_ns: int, callback: Callback) -> Timer:
        """Call `callback` from `advance`, once `deadline_ns` is reached."""
        timer = Timer(deadline_ns, callback)
        self._timers.add(timer)
        return timer

    def advance(self, duration_ns: int) -> None:
        """Move on by `duration_ns`, running each timer at the moment that it is due.

        Raises:
            ValueError: `duration_ns` is negative; the clock stands as it did.
        """
        if duration_ns < 0:
            raise ValueError(f"a clock can't advance by {duration_ns} ns; allowed: 0 and up")
        end_ns = self._now_ns + duration_ns
        while (deadline_ns := self._timers.next_deadline_ns()) is not None:
            if deadline_ns > end_ns:
                break
            callback = self._timers.pop()
            self._now_ns = max(self._now_ns, deadline_ns)
            if callback is not None:
                callback()
        self._now_ns = end_ns
