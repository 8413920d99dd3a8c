"""The open watches of all services, so that they end when the server does."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc

from devicehost_server.model.errors import Draining
from devicehost_server.services.feed import Feed


class Feeds:
    """Knows each open feed. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: set[Feed[Any]] = set()
        self._draining = False

    @contextmanager
    def open(self, feed: Feed[Any], context: grpc.ServicerContext) -> Iterator[None]:
        """Keep `feed` for as long as the block runs; it ends when its client goes.

        Raises:
            Draining: the server is stopping.
        """
        with self._lock:
            if self._draining:
                raise _stopping()
            self._open.add(feed)
        try:
            context.add_callback(feed.close)
            yield
        finally:
            with self._lock:
                self._open.discard(feed)

    def drain(self) -> None:
        """End all feeds; their watchers are told that the server stops."""
        with self._lock:
            self._draining = True
            for feed in self._open:
                feed.fail(_stopping())


def _stopping() -> Draining:
    return Draining("the server is stopping")
