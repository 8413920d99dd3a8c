"""Threads for what may take a while.

    workers = Workers("disk0", 4)
    workers.submit(job)         # starts a thread if all that there are have work
    workers.drain()             # returns when all that was submitted is done
    workers.close()

A disk that is never asked for anything slow has no thread. A job must not raise.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue


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
        """Return when nothing is left to do. Call it where nobody submits."""
        with self._changed:
            self._changed.wait_for(lambda: not self._unfinished)

    def close(self) -> None:
        """Do what is left, and end the threads."""
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
