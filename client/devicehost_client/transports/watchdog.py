"""Deadlines for calls that can only be cancelled: one thread watches over all queues.

To have a deadline an access leaves the time at which it is overdue where the watchdog
sees it, and takes it away afterwards: two stores, no timer to arm. The watchdog looks
several times within a deadline while accesses are in flight, and sleeps while none is.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Deadline:
    """The deadline of whatever one queue is waiting for.

    Attributes:
        at: when it is overdue (`time.monotonic`), or None while nothing is in flight.
        expired: whether the watchdog had to cancel; the queue resets it.
    """

    __slots__ = ("at", "cancel", "expired")

    def __init__(self, cancel: Callable[[], None]) -> None:
        self.at: float | None = None
        self.expired = False
        self.cancel = cancel


class Watchdog:
    """Cancels what is overdue.

    Args:
        timeout_s: how long an access may take, in seconds.
    """

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._tick_s = min(timeout_s / 8, 0.1)
        self._deadlines: list[Deadline] = []
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._asleep = False
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="access deadlines", daemon=True)
        self._thread.start()

    def watch(self, cancel: Callable[[], None]) -> Deadline:
        """Return a deadline, after which `cancel` is called on the watchdog's thread."""
        deadline = Deadline(cancel)
        with self._lock:
            self._deadlines.append(deadline)
        return deadline

    def forget(self, deadline: Deadline) -> None:
        """Stop watching `deadline`, if it still is watched."""
        with self._lock:
            if deadline in self._deadlines:
                self._deadlines.remove(deadline)

    def start(self, deadline: Deadline) -> None:
        """Start the time of an access; `deadline.at = None` ends it."""
        deadline.at = time.monotonic() + self.timeout_s
        # The watchdog says that it sleeps before it looks for the last time: whichever
        # came first, it sees this deadline or is woken.
        if self._asleep:
            self._wake.set()

    def close(self) -> None:
        """Stop the thread."""
        self._closed.set()
        self._wake.set()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        while not self._closed.is_set():
            self._asleep = True
            if not any(deadline.at is not None for deadline in self._watched()):
                self._wake.wait()
            self._asleep = False
            self._wake.clear()
            while not self._closed.is_set() and self._cancel_overdue():
                if self._wake.wait(self._tick_s):
                    break

    def _cancel_overdue(self) -> bool:
        """Cancel what is overdue; return whether anything is in flight."""
        now = time.monotonic()
        in_flight = False
        for deadline in self._watched():
            at = deadline.at
            if at is None:
                continue
            in_flight = True
            if now >= at:
                deadline.at = None
                deadline.expired = True
                deadline.cancel()
        return in_flight

    def _watched(self) -> list[Deadline]:
        with self._lock:
            return list(self._deadlines)
