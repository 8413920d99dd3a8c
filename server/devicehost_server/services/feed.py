"""A bounded queue between something that happens and a watcher on the wire.

What happens never waits for a watcher: one that falls too far behind loses its watch,
and is told so, instead of a change.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Generic, TypeVar

from devicehost_server.model.errors import DeviceHostError, WatchTooSlow

BACKLOG_MAX = 8192
"""How many items may wait for a watcher."""

_T = TypeVar("_T")


class Feed(Generic[_T]):
    """Items for one watcher, in order."""

    def __init__(self, backlog_max: int = BACKLOG_MAX) -> None:
        self._backlog_max = backlog_max
        self._changed = threading.Condition(threading.Lock())
        self._items: list[_T] = []
        self._closed = False
        self._error: DeviceHostError | None = None

    def push(self, item: _T) -> None:
        """Add an item; never waits. After the feed has failed nothing is added any more."""
        with self._changed:
            if self._error is not None:
                return  # an item now would follow the one that was dropped, after a gap
            if len(self._items) >= self._backlog_max:
                self._fail(
                    WatchTooSlow(
                        f"the watcher fell {self._backlog_max} changes behind: watch again",
                        backlog=self._backlog_max,
                    )
                )
            else:
                self._items.append(item)
                self._changed.notify()

    def close(self) -> None:
        """End the feed: the watcher is gone."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def fail(self, error: DeviceHostError) -> None:
        """End the feed with an error, which the watcher gets after what is queued."""
        with self._changed:
            self._fail(error)

    def batches(self) -> Iterator[list[_T]]:
        """Yield what has come since the last time, until the feed ends.

        Raises:
            DeviceHostError: the feed failed.
        """
        while True:
            with self._changed:
                while not (self._items or self._closed or self._error):
                    self._changed.wait()
                batch, self._items = self._items, []
                if self._closed or (not batch and self._error is None):
                    return
                error = self._error
            if batch:
                yield batch
            elif error is not None:
                raise error

    def _fail(self, error: DeviceHostError) -> None:
        if self._error is None:
            self._error = error
        self._changed.notify()
