"""Which accesses are in flight, told by the threads themselves, without a lock.

Before a device is destroyed, the accesses that still run in it must end. A lock or a
shared counter on the path of each access would make all vCPUs pay for that rare moment.
Instead each thread has a `Cell` of its own, in which it leaves what it is doing:

    None        no access
    LOOKING_UP  it is about to read the map; which device it will find isn't known yet
    a Trap      it is in that trap's device
    a Nested    one of the two above, inside of another access on the same thread

The thread stores LOOKING_UP before it reads the map. Whoever removes a trap publishes the
new map first, and looks at the cells afterwards. So a thread whose cell shows None then
can only find the new map, and one that found the trap in the old map shows the trap, or
LOOKING_UP, which is gone in a moment. It is the idea of read-copy-update: readers mark
where they are, and the writer waits until each has been seen elsewhere.

An access may cause another on the same thread (a device that reads another one). Inner
and outer stand together in one immutable value, so that one look at a cell tells all that
its thread was doing at that moment.

The order "store LOOKING_UP, then read the map" is what the global interpreter lock makes
of it. An interpreter without that lock needs a store-load barrier between the two.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple, TypeAlias

from devicehost_server.model.address_map import Trap


class LookingUp:
    """The type of `LOOKING_UP`."""

    __slots__ = ()


LOOKING_UP = LookingUp()

_FIRST_PAUSE_S = 20e-6
_LONGEST_PAUSE_S = 1e-3


class Nested(NamedTuple):
    """An access from inside of another one: `inner` is what goes on, `outer` waits for it."""

    inner: Trap | LookingUp
    outer: Trap | LookingUp | Nested


Doing: TypeAlias = Trap | LookingUp | Nested | None


class Cell:
    """What one thread is doing. Only that thread writes it."""

    __slots__ = ("__weakref__", "now")

    def __init__(self) -> None:
        self.now: Doing = None

    def __iter__(self) -> Iterator[Trap | LookingUp]:
        """What the thread is in, at one moment, innermost first."""
        doing = self.now  # once: the thread moves on
        while isinstance(doing, Nested):
            yield doing.inner
            doing = doing.outer
        if doing is not None:
            yield doing

    def traps(self) -> list[Trap]:
        """The traps that the thread is in, innermost first."""
        return [doing for doing in self if isinstance(doing, Trap)]

    def may_be_in(self, traps: Collection[Trap]) -> bool:
        """Whether the thread is, or is about to be, in one of `traps`."""
        return any(not isinstance(doing, Trap) or doing in traps for doing in self)


class InFlight(threading.local):
    """The calling thread's cell, as `cell`, and through `cells` everybody's."""

    def __init__(self, cells: Cells) -> None:
        self.cell = Cell()
        cells.add(self.cell)


class Cells:
    """The cells of all threads that ever made an access and still live."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cells: weakref.WeakSet[Cell] = weakref.WeakSet()

    def add(self, cell: Cell) -> None:
        """Add a thread's cell. It goes when the thread does."""
        with self._lock:
            self._cells.add(cell)

    def wait_until_out_of(
        self, removed: Sequence[Trap], *, but: Cell, timeout_s: float
    ) -> Trap | None:
        """Wait until each thread was seen outside of `removed`.

        Call it after a map without them is published: then nobody can enter them.

        Args:
            removed: the traps, at least one.
            but: the caller's own cell, which isn't waited for.
            timeout_s: how long to wait, in seconds.

        Returns:
            None when all are out; a trap that is, or may be, in use when the time is up.
        """
        traps = frozenset(removed)
        with self._lock:
            waiting = [cell for cell in self._cells if cell is not but]
        deadline = time.monotonic() + timeout_s
        pause_s = _FIRST_PAUSE_S
        while waiting := [cell for cell in waiting if cell.may_be_in(traps)]:
            if time.monotonic() >= deadline:
                used = (trap for cell in waiting for trap in cell.traps())
                # A thread that is still looking up may find any of them.
                return next((trap for trap in used if trap in traps), removed[0])
            # Accesses announce their end to nobody, so that they cost nothing: look again.
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        return None
