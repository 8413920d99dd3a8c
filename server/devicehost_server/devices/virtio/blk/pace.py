"""Whether what may have to wait is done at once, or handed to another thread.

To hand a request over costs more than to read or write a page that is in the cache, but a
queue mustn't stand still behind a slow disk. Linux tells beforehand only of reads, and not
on every file system. So the rest is done at once for as long as that is quick:

    if pace.is_quick():
        started = ...
        write()
        pace.note(now - started)
    else:
        hand over
"""

from __future__ import annotations

SLOW_NS = 1_000_000
"""What takes longer has waited for something."""

DETOURS = 32
"""How many requests are handed over after a slow one, before one is tried again."""


class Pace:
    """For one thread."""

    __slots__ = ("_detours",)

    def __init__(self) -> None:
        self._detours = 0

    def is_quick(self) -> bool:
        """Return whether the next request should be done at once."""
        if self._detours:
            self._detours -= 1
            return False
        return True

    def note(self, taken_ns: int) -> None:
        """Learn how long one took that was done at once."""
        if taken_ns > SLOW_NS:
            self._detours = DETOURS
