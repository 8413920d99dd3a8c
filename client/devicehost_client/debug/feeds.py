"""Streams of the server's, as iterators that can be closed.

with host.debug.trace() as trace:
    for event in trace:
        ...
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import grpc

from devicehost_client.debug.calls import translated

_T = TypeVar("_T")


class Feed(Iterator[_T], Generic[_T]):
    """What a stream brings, one by one. One thread reads; any may close.

    The stream has begun when there is a feed: what happens from then on is in it.

    Args:
        method: a stub's method.
        request: what to call it with.
        read: takes a response apart.
        has_first: whether the server sends a first response at once. It is waited for.

    Raises:
        ConnectionLost: there is no server; likewise from the iterator, when it is gone.
        RemoteError: it refused; likewise from the iterator, when the server ends it.
    """

    def __init__(
        self,
        method: Any,
        request: Any,
        read: Callable[[Any], Iterable[_T]],
        *,
        has_first: bool = True,
    ) -> None:
        self._read = read
        self._items: deque[_T] = deque()
        self._is_closed = False
        self._call = method(request)
        if has_first:
            try:
                self._receive()
            except StopIteration:
                pass  # it is empty
            except BaseException:
                self.close()
                raise

    def __next__(self) -> _T:
        """Wait for the next. There is none when the feed is closed, or the server is done.

        Raises:
            ConnectionLost: the server is gone.
            RemoteError: the server ended it; see the RPC for the reasons.
        """
        if self._is_closed:
            raise StopIteration
        while not self._items:
            self._receive()
        return self._items.popleft()

    def close(self) -> None:
        """End it. A thread that waits for the next finds that there is none."""
        self._is_closed = True
        self._call.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _receive(self) -> None:
        if self._is_closed:
            raise StopIteration
        try:
            response = next(self._call)
        except grpc.RpcError as error:
            if self._is_closed:
                raise StopIteration from None
            raise translated(error) from error
        self._items.extend(self._read(response))


class FinishableFeed(Feed[_T]):
    """What a stream brings that the server ends well when one has enough.

    Args: as those of `Feed`.
    """

    def __init__(
        self,
        method: Any,
        request: Any,
        read: Callable[[Any], Iterable[_T]],
    ) -> None:
        self._finished = threading.Event()
        super().__init__(method, _until(self._finished, request), read)
        # However it ends, gRPC's thread isn't to wait any more.
        if not self._call.add_callback(self._finished.set):
            self._finished.set()

    def finish(self) -> None:
        """Have enough: what is left still comes, and then there is no next."""
        self._finished.set()

    def close(self) -> None:
        """End it at once. A thread that waits for the next finds that there is none."""
        self._finished.set()
        super().close()


def _until(finished: threading.Event, request: Any) -> Iterator[Any]:
    """Go through the one request, and end when it is finished.

    gRPC reads it on a thread. It doesn't hold the feed: one that is dropped ends its call.
    """
    yield request
    finished.wait()
