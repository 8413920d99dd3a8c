"""A thread that works beside the accesses of guests takes only so much of the time.

    pace = Pace()
    for part in pace.parts(events):
        ...                             # a fraction of a millisecond

All threads share one interpreter with those that make the accesses. A thread that never
waits, as one that decodes a busy trace, would take half of it. So it works in short parts,
and after each it rests for a multiple of the time that this took: accesses have the
interpreter for three quarters of the time at least.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from typing import TypeVar

SHARE = 0.25
"""How much of the time is worked at most."""

PART = 32
"""How many items are a part."""

_REST_MAX_S = 0.25
"""The longest rest: what is worked at a time may be more than was thought."""

_T = TypeVar("_T")


class Pace:
    """The pace of one thread, which makes it and calls it.

    Only the processor's time of this thread counts: to wait for something is no work.
    """

    def __init__(self) -> None:
        self._over = threading.Event()
        self._worked_until_s = time.thread_time()

    def end(self) -> None:
        """Rest no more. Called from any thread."""
        self._over.set()

    def rest(self, at_least_s: float = 0.0) -> None:
        """Rest for what was worked since the last time, and for `at_least_s` seconds."""
        now_s = time.thread_time()
        earned_s = (now_s - self._worked_until_s) * (1 / SHARE - 1)
        self._over.wait(max(min(earned_s, _REST_MAX_S), at_least_s))
        self._worked_until_s = time.thread_time()

    def parts(self, items: Sequence[_T]) -> Iterator[Sequence[_T]]:
        """Yield items in parts, with a rest after each."""
        for at in range(0, len(items), PART):
            yield items[at : at + PART]
            self.rest()
