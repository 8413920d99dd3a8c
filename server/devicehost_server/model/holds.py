"""Which accesses are held for somebody who debugs, for whom else that concerns.

A client that waits for an access which is held must not take its server for lost.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeAlias

HoldListener: TypeAlias = Callable[[int], None]
"""Told how many are held. It must return at once, and not call back."""


class _OfThread(threading.local):
    held_ns = 0


class Holds:
    """The accesses that are held. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0
        self._listeners: list[HoldListener] = []
        self._of_thread = _OfThread()

    def held_ns(self) -> int:
        """How long accesses of the calling thread were held in all, in nanoseconds."""
        return self._of_thread.held_ns

    def add_held_ns(self, duration_ns: int) -> None:
        """Say how long an access of the calling thread was held."""
        self._of_thread.held_ns += duration_ns

    @property
    def count(self) -> int:
        """How many are held."""
        return self._count

    def set(self, count: int) -> None:
        """Say how many are held now."""
        with self._lock:
            self._count = count
            for listener in self._listeners:
                listener(count)

    def subscribe(self, listener: HoldListener) -> None:
        """Tell `listener` the number, now and whenever it changes."""
        with self._lock:
            self._listeners.append(listener)
            listener(self._count)

    def unsubscribe(self, listener: HoldListener) -> None:
        """Tell `listener` nothing more. No call to it begins after this returns."""
        with self._lock:
            self._listeners.remove(listener)
