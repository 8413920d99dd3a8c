"""Eventfds that a client handed over, by the number of what each of them is signalled for.

The client shares the eventfds, and can make one block and fill it. Whoever signals it then
waits, with the lock of all interrupts. That harms nobody but the client's own VM, and ends
when the client does: `close` empties what is full.
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from errno import EINVAL
from pathlib import Path

from devicehost_server.endpoints.refused import Refused

_EVENTFD = Path("anon_inode:[eventfd]")
_PATIENCE_S = 0.1


class EventFds:
    """The eventfds of one client. Safe to use from any thread.

    Args:
        settle: returns when nobody signals any more who began before it was called. It is
            called under our lock.
    """

    def __init__(self, settle: Callable[[], object]) -> None:
        self._settle = settle
        self._fds: dict[int, int] = {}  # replaced as a whole
        self._lock = threading.Lock()
        self._closed = False

    def __contains__(self, number: int) -> bool:
        """Whether an eventfd is connected."""
        return number in self._fds

    def connect(self, fds: Mapping[int, int]) -> None:
        """Take eventfds, in place of those of the same numbers. They are ours to close then.

        Raises:
            Refused: a descriptor isn't that of an eventfd, or the client is gone. None was
                taken.
        """
        for fd in fds.values():
            check(fd)
        with self._lock:
            if self._closed:
                raise Refused(EINVAL, "the client is gone")
            self._replace({**self._fds, **fds})

    def disconnect(self, numbers: Collection[int]) -> None:
        """Close the eventfds of these numbers."""
        with self._lock:
            self._disconnect(numbers)

    def disconnect_all(self) -> None:
        """Close all eventfds."""
        with self._lock:
            self._disconnect(self._fds)

    def signal(self, number: int) -> None:
        """Signal an eventfd, if it is connected. Only for whom `settle` waits."""
        fd = self._fds.get(number)
        if fd is not None and has_room(fd):
            with suppress(BlockingIOError):  # a counter that is full says enough
                os.eventfd_write(fd, 1)

    def signal_here(self, number: int) -> None:
        """Signal an eventfd, if it is connected, whoever calls."""
        with self._lock:
            self.signal(number)

    def close(self) -> bool:
        """Close all eventfds, and take none any more; return whether that wasn't done before."""
        while not self._lock.acquire(timeout=_PATIENCE_S):
            _empty(self._fds.values())
        try:
            was_open, self._closed = not self._closed, True
            _empty(self._fds.values())
            self._disconnect(self._fds)
            return was_open
        finally:
            self._lock.release()

    def _disconnect(self, numbers: Collection[int]) -> None:
        """Under the lock."""
        kept = {number: fd for number, fd in self._fds.items() if number not in numbers}
        if len(kept) < len(self._fds):
            self._replace(kept)

    def _replace(self, fds: dict[int, int]) -> None:
        """Have other eventfds from now on; close those that aren't among them. Under the lock."""
        before, self._fds = self._fds, fds
        gone = [fd for number, fd in before.items() if fds.get(number) != fd]
        if gone:
            # Whoever signals one has looked it up before: a number that is closed is nobody's
            # any more.
            _empty(gone)
            self._settle()
            for fd in gone:
                os.close(fd)


def check(fd: int) -> None:
    """Check that a descriptor is that of an eventfd, and let it not block.

    Raises:
        Refused: it isn't. It might block, or harm somebody: our write could be a file's.
    """
    if Path(f"/proc/self/fd/{fd}").readlink() != _EVENTFD:
        raise Refused(EINVAL, "an interrupt's descriptor is not that of an eventfd")
    os.set_blocking(fd, False)


def has_room(eventfd: int) -> bool:
    """Whether a signal doesn't block, though the client may have made the eventfd block."""
    room = select.poll()
    room.register(eventfd, select.POLLOUT)
    return bool(room.poll(0))


def _empty(eventfds: Iterable[int]) -> None:
    """Let go whoever waits until there is room in one of them."""
    for fd in eventfds:
        with suppress(OSError):
            os.set_blocking(fd, False)
            if not has_room(fd):
                os.eventfd_read(fd)
