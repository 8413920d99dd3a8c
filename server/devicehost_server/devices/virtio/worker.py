"""The thread on which a device serves its queues.

A kick costs its sender a word in an inbox: the work is done here. A queue that was kicked
is served once, however often that was, and other queues come in between.

No kick is lost. It is noted before the worker is woken, and the note is taken away before
the queue is looked at; so a kick that finds a note is of something that will be seen. That
the driver kicks at all when the worker doesn't look, is the queue's concern: see
`VirtQueue.ask_for_kicks`.

    worker = Worker("virtio disk0", serve, deliver)
    worker.kick(0)
    worker.pause()          # from here on nothing is served
    worker.resume()
    ...
    worker.pause()
    worker.close()
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from operator import itemgetter
from typing import Final

FOREVER: Final = -1.0
"""The time that somebody has who waits until it is so."""

_CLOSE: Final = -1
_DELIVER: Final = -2
"""What may be in the inbox besides the numbers of queues."""


class Worker:
    """One thread that serves queues, by their numbers. Its methods are safe for any thread.

    Args:
        name: of the thread.
        serve: serves a queue. It must not raise, nor wait for who may call `pause`.
        deliver: called after `serve`, and for each `post`. It may wait for who calls `pause`.
    """

    def __init__(
        self, name: str, serve: Callable[[int], None], deliver: Callable[[], None]
    ) -> None:
        self._serve = serve
        self._deliver = deliver
        self._inbox: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._noted: set[int] = set()
        self._serving = threading.Lock()
        self._paused = True
        self._later: dict[int, float] = {}  # queues, and when to kick them
        self._later_lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def kick(self, index: int) -> None:
        """Have a queue served soon."""
        if index not in self._noted:
            self._noted.add(index)
            self._inbox.put(index)

    def kick_after(self, index: int, delay_s: float) -> None:
        """Have a queue served once some time has passed; once, however often this is called."""
        due = time.monotonic() + delay_s
        with self._later_lock:
            self._later[index] = min(due, self._later.get(index, due))
        self.post()  # so that it waits no longer than that

    def is_awaited(self) -> bool:
        """Whether there is something to do besides what is being done."""
        return not self._inbox.empty()

    def post(self) -> None:
        """Have `deliver` called soon."""
        if _DELIVER not in self._noted:
            self._noted.add(_DELIVER)
            self._inbox.put(_DELIVER)

    def pause(self, timeout_s: float = FOREVER) -> bool:
        """Serve nothing until `resume`. When this returns True, nothing is being served.

        Args:
            timeout_s: how long what is being served may take to end.

        Returns:
            Whether it did. If not, nothing has changed.
        """
        if not self._serving.acquire(timeout=timeout_s):
            return False
        self._paused = True
        self._serving.release()
        return True

    def resume(self) -> None:
        """Serve what is kicked from here on. Kicks that came meanwhile are lost."""
        with self._serving:
            self._paused = False

    def close(self) -> None:
        """End the thread. If it isn't paused, it ends when it can."""
        self._inbox.put(_CLOSE)
        if self._paused:
            self._thread.join()

    def _run(self) -> None:
        while (index := self._next()) != _CLOSE:
            self._noted.discard(index)
            if index != _DELIVER:
                with self._serving:
                    if not self._paused:
                        self._serve(index)
            self._deliver()

    def _next(self) -> int:
        """Wait for what is to be done."""
        while self._later:
            with self._later_lock:
                index, due = min(self._later.items(), key=itemgetter(1))
                left_s = due - time.monotonic()
                if left_s <= 0:
                    del self._later[index]
            if left_s <= 0:
                self.kick(index)  # behind those who wait already
                continue
            with suppress(queue.Empty):
                return self._inbox.get(timeout=left_s)
        return self._inbox.get()
