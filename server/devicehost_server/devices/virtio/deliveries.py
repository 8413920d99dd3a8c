"""Interrupts on their way from a device's threads to its registers.

A thread that works on queues must never wait for the device's lock: who holds that may be
waiting for the thread, to reset the device. So what is to be told the driver is noted first.
Then it is delivered by whoever gets the lock: the thread itself, if that takes no time to
speak of, else the worker.

Invariant: what is noted is delivered, unless `clear` comes first. What is delivered goes
through an entrance, so that a replay has it, too. There it comes before the access that it
was delivered in. Where that would make a difference, `held` has it come after.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

POST_S = 0.001
"""How long a thread waits for the device's lock before it leaves the delivery to the worker."""


class Deliveries:
    """What is to be told the driver of one device. Safe to use from any thread.

    Args:
        lock: the device's.
        leave: has the worker call `deliver` soon.
    """

    def __init__(self, lock: threading.RLock, leave: Callable[[], None]) -> None:
        self._lock = lock
        self._leave = leave
        self._noted: set[int] = set()
        self._held = False
        self._ways_in: dict[int, Callable[[], None]] = {}

    def add(self, cause: int, way_in: Callable[[], None]) -> None:
        """Deliver `cause`, a small number, by calling `way_in`."""
        self._ways_in[cause] = way_in

    def post(self, cause: int) -> None:
        """Deliver soon."""
        self._noted.add(cause)
        if self._held:
            return
        if self._lock.acquire(timeout=POST_S):
            try:
                self.deliver()
            finally:
                self._lock.release()
        else:
            self._leave()

    def deliver(self) -> None:
        """Deliver all that is noted. This may wait for the lock."""
        while self._noted:
            with self._lock:
                if self._noted:
                    self._ways_in[self._noted.pop()]()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Leave what is posted meanwhile to the worker. Entered under the lock."""
        self._held = True
        try:
            yield
        finally:
            self._held = False
            if self._noted:
                self._leave()

    @property
    def causes(self) -> int:
        """What is noted, as bits."""
        return sum(1 << cause for cause in tuple(self._noted))  # others may note more just now

    def note(self, causes: int) -> None:
        """Note all of some bits, to be delivered by who calls `deliver` next."""
        self._noted.update(cause for cause in self._ways_in if causes >> cause & 1)

    @property
    def known(self) -> int:
        """All causes that there are, as bits."""
        return sum(1 << cause for cause in self._ways_in)

    def clear(self) -> None:
        """Forget what is noted. Called under the lock."""
        self._noted.clear()
