"""Several things at once: streams of a server's, lines that are typed, signals, a clock.

All of them end up in one queue, which the main thread reads. So a command is a loop with
one place where it waits, and its end is a turn of that loop like any other: it tidies up
after Ctrl-C, and nothing is torn apart (see `watching` for why that matters).

    with Mailbox() as mailbox:
        mailbox.take(TRACE, host.debug.trace())
        while not isinstance(mail := mailbox.get(), Stop):
            ...
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from types import FrameType, TracebackType
from typing import Any, Self, TypeAlias

from devicehost_client import ClientError

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

CAPACITY = 4096
"""How many items may wait. A source that has more waits itself."""


@dataclass(frozen=True, slots=True)
class Item:
    """Something that a source gave."""

    source: str
    value: Any


@dataclass(frozen=True, slots=True)
class Ended:
    """A source has no more; because of `error`, if that isn't None."""

    source: str
    error: ClientError | OSError | None


@dataclass(frozen=True, slots=True)
class Stop:
    """A signal came that asks to end, or nobody reads stdout any more."""


Mail: TypeAlias = Item | Ended | Stop


class Mailbox:
    """Collects from several sources for one reader, the main thread.

    From `with` on, SIGINT, SIGTERM and SIGHUP become a `Stop`, unless they are ignored; a
    second one kills the process, should the end take too long.
    """

    def __init__(self) -> None:
        self._queue: SimpleQueue[Mail] = SimpleQueue()
        self._room = threading.Semaphore(CAPACITY)
        self._handlers: dict[signal.Signals, Any] = {}

    def take(self, name: str, source: Iterable[Any]) -> None:
        """Read a source, from here on, on a thread of its own."""
        threading.Thread(target=self._read, args=(name, source), name=name, daemon=True).start()

    def get(self, timeout_s: float | None = None) -> Mail | None:
        """Wait for what comes next; None if nothing does in time."""
        try:
            mail = self._queue.get(timeout=timeout_s)
        except Empty:
            return None
        if isinstance(mail, Item):
            self._room.release()
        return mail

    def __enter__(self) -> Self:
        for number in _SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:
                self._handlers[number] = signal.signal(number, self._on_signal)
        # There may be nothing to write for hours, and so nothing to learn of the pipe.
        threading.Thread(target=self._watch_stdout, name="reader", daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _read(self, name: str, source: Iterable[Any]) -> None:
        failure: ClientError | OSError | None = None
        try:
            for value in source:
                self._room.acquire()
                self._queue.put(Item(name, value))
        except (ClientError, OSError) as error:
            failure = error
        self._queue.put(Ended(name, failure))

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        self._queue.put(Stop())  # which is safe here, in the midst of a `get` too

    def _watch_stdout(self) -> None:
        hung_up = select.poll()
        hung_up.register(sys.stdout.fileno(), 0)  # errors and hang-ups are always told
        hung_up.poll()
        self._queue.put(Stop())


class Lines:
    """The lines of stdin, each read only when it is asked for. An iterator for a `Mailbox`.

    It reads the descriptor itself: a thread that waits in `sys.stdin` has its lock, which
    Python wants for itself at the end of the process.
    """

    def __init__(self, descriptor: int = 0) -> None:
        self._descriptor = descriptor
        self._asked = threading.Semaphore(0)
        self._rest = b""

    def ask(self) -> None:
        """Ask for one more line."""
        self._asked.release()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        self._asked.acquire()
        while b"\n" not in self._rest:
            more = os.read(self._descriptor, 4096)
            if not more:
                if not self._rest:
                    raise StopIteration
                break
            self._rest += more
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode(errors="replace").strip()
