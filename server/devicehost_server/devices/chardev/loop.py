"""The one thread that moves the bytes of all streams of a process.

The loop knows no streams, only members: it calls `pump` of a member when a descriptor
that the member watches is ready, when its time `due` has come, or when another thread has
kicked it. `pump` looks for itself what there is to do and does it without blocking, so a
call too many does no harm, and calls can be merged.

Merging is what keeps a chatty guest cheap: a kick after silence wakes the thread, which
then stays up for another `LINGER_S` and looks again, so that the kicks meanwhile cost no
system call, and the bytes that they announce go out together.

The thread and its descriptors exist while there are members.
"""

from __future__ import annotations

import os
import selectors
import threading
import time
from collections import deque
from typing import Protocol

import structlog

LINGER_S = 0.002
"""How long the loop looks again by itself after a kick, in seconds."""

READABLE = selectors.EVENT_READ
WRITABLE = selectors.EVENT_WRITE

_log = structlog.get_logger(__name__)


class Member(Protocol):
    """What the loop drives. It calls both methods on its thread, one at a time."""

    due: float | None
    """The `time.monotonic()` at which to call `pump` in any case. For `pump` to set."""

    def pump(self) -> None:
        """Do what can be done now."""

    def finish(self) -> None:
        """`pump` raised: stop, unwatch and free everything, and leave the loop."""


class Loop:
    """An event loop on a thread of its own. `add` and `kick` may be called by any thread.

    Args:
        name: what the thread is called.
    """

    def __init__(self, name: str = "chardev") -> None:
        self._name = name
        self._lock = threading.Lock()  # for members, the thread and the waking of it
        self._members: tuple[Member, ...] = ()  # replaced as a whole
        self._kicked: deque[Member] = deque()
        self._asleep = False
        self._thread: threading.Thread | None = None
        self._selector: selectors.BaseSelector
        self._doorbell: int
        self._watched: dict[int, int] = {}

    def add(self, member: Member) -> None:
        """Make `member` one of the loop's, and call its `pump` soon."""
        with self._lock:
            self._members = (*self._members, member)
            if self._thread is None:
                self._selector = selectors.DefaultSelector()
                self._doorbell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
                self._selector.register(self._doorbell, READABLE, None)
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
        self.kick(member)

    def kick(self, member: Member) -> None:
        """Call `pump` of `member` soon."""
        self._kicked.append(member)
        if self._asleep:  # it looks at the kicks once more after it has set this
            with self._lock:
                if self._asleep:
                    self._asleep = False
                    os.eventfd_write(self._doorbell, 1)

    # For members, on the loop's thread.

    def remove(self, member: Member) -> None:
        """Forget `member`. It has unwatched its descriptors."""
        with self._lock:
            self._members = tuple(other for other in self._members if other is not member)

    def watch(self, fd: int, events: int, member: Member) -> None:
        """Call `pump` of `member` while `fd` is ready for `events`; for no events, no more.

        A descriptor that can't be waited for, such as a file's, isn't: it is always ready.
        """
        before = self._watched.get(fd, 0)
        if events == before:
            return
        try:
            if not events:
                del self._watched[fd]
                self._selector.unregister(fd)
                return
            if before:
                self._selector.modify(fd, events, member)
            else:
                self._selector.register(fd, events, member)
            self._watched[fd] = events
        except PermissionError:  # what epoll has for files
            pass

    def _run(self) -> None:
        lingering = False
        while self._has_members():
            ready: dict[Member, None] = {}
            for key, _ in self._selector.select(self._timeout_s(lingering=lingering)):
                if key.data is None:
                    os.eventfd_read(self._doorbell)
                else:
                    ready[key.data] = None
            self._asleep = False
            now = time.monotonic()
            for member in self._members:
                if member.due is not None and member.due <= now:
                    ready[member] = None
            kicks = len(self._kicked)
            lingering = kicks > 0
            for _ in range(kicks):
                ready[self._kicked.popleft()] = None
            for member in ready:
                self._pump(member)

    def _has_members(self) -> bool:
        """Whether to go on. If not, the thread's things are gone when this returns."""
        with self._lock:
            if self._members:
                return True
            self._thread = None
            self._asleep = False
            self._kicked.clear()
            self._selector.close()
            os.close(self._doorbell)
            return False

    def _timeout_s(self, *, lingering: bool) -> float | None:
        """How long to wait for events: None for as long as it takes."""
        dues = [member.due for member in self._members if member.due is not None]
        until_due = max(0.0, min(dues) - time.monotonic()) if dues else None
        if lingering:
            return LINGER_S if until_due is None else min(LINGER_S, until_due)
        self._asleep = True
        return 0.0 if self._kicked else until_due

    def _pump(self, member: Member) -> None:
        """Call `pump`; one member's bug must not stop the others."""
        try:
            member.pump()
        except Exception:  # noqa: BLE001 # as said
            _log.exception("chardev_failed", loop=self._name)
            self._expel(member)

    def _expel(self, member: Member) -> None:
        try:
            member.finish()
        except Exception:  # noqa: BLE001 # likewise
            _log.exception("chardev_failed_again", loop=self._name)
            self.remove(member)


LOOP = Loop()
"""The loop of this process."""
