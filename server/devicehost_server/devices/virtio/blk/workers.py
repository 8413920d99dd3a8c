"""Threads for what may take a while.

    workers = Workers("disk0", 4)
    workers.submit(job)         # starts a thread if all that there are have work
    workers.drain()             # drops what isn't begun, and waits for what is
    workers.close()

A disk that is never asked for anything slow has no thread. A job must not raise.

To hand a request over costs more than to read or write a page that is in the cache, but a
queue mustn't stand still behind a slow disk. Linux tells beforehand only of reads, and not
on every file system. So the rest is done at once for as long as that is quick:

    if pace.is_quick():
        write()
        pace.note(taken_ns)
    else:
        workers.submit(write)
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue

SLOW_NS = 1_000_000
"""What takes longer has waited for something."""

DETOURS = 32
"""How many requests are handed over after a slow one, before one is tried again."""


class Workers:
    """At most `limit` threads, called after `name`. Safe to use from any thread."""

    def __init__(self, name: str, limit: int) -> None:
        self._name = name
        self._limit = limit
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._unfinished = 0
        self._changed = threading.Condition()

    @property
    def unfinished(self) -> int:
        """How many jobs have been submitted, and aren't done."""
        return self._unfinished

    def submit(self, job: Callable[[], None]) -> None:
        """Have `job` called by one of the threads, after those submitted before."""
        with self._changed:
            if len(self._threads) < min(self._unfinished + 1, self._limit):
                name = f"{self._name}-worker-{len(self._threads)}"
                thread = threading.Thread(target=self._run, name=name, daemon=True)
                thread.start()
                self._threads.append(thread)
            self._unfinished += 1
        self._jobs.put(job)

    def drain(self) -> None:
        """Drop what isn't begun, and return when the rest is done. Call it where nobody submits."""
        dropped = 0
        with suppress(Empty):
            while True:
                self._jobs.get_nowait()
                dropped += 1
        with self._changed:
            self._unfinished -= dropped
            self._changed.wait_for(lambda: not self._unfinished)

    def close(self) -> None:
        """Drain, and end the threads."""
        self.drain()
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()
        self._threads.clear()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job()
            finally:
                with self._changed:
                    self._unfinished -= 1
                    if not self._unfinished:
                        self._changed.notify_all()


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
