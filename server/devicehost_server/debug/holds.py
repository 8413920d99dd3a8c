"""Accesses that are held: who is told of them, and how each goes on.

The thread that makes an access waits in `HeldAccesses.hold`, with no lock, until somebody
lets it go or its time is up. Watchers are told each hit and each end of a hold, in the
order in which they happened, and begin with what is held at that moment.
"""

from __future__ import annotations

import enum
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TypeAlias

from devicehost.access_status import AccessStatus
from devicehost.recording.events import Access, Interrupt, Operation
from devicehost_server.debug.pending import PendingAccess
from devicehost_server.model.errors import BadRequest, NoSuchHit
from devicehost_server.model.holds import Holds

_NS_PER_MS = 1_000_000


class HoldEnd(enum.Enum):
    """Why a hold has ended."""

    RESUMED = "resumed"
    """Somebody resumed it, or removed the breakpoint."""
    LIMIT = "limit"
    DRAINING = "draining"
    """The server stops."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A breakpoint was hit, or a step has ended.

    Attributes:
        id: its number, from 1 on.
        breakpoint_id: the breakpoint; 0 after a step.
        event: what it stopped at. Before the device was asked, an access took no time, and
            a read has no data.
        device: whose the access or the interrupt is; empty if it is nobody's.
        range: which of the device's trapped ranges an access is in, by their order.
        offset: of the access, from the base of that range, in bytes.
        held: whether an access is held.
        after: whether the device was asked already.
        remaining_ms: how long it will be held from now on if nobody resumes it.
        states: the states of all devices as text, if the breakpoint asks for that.
    """

    id: int
    breakpoint_id: int
    event: Access | Interrupt
    device: str
    range: int
    offset: int
    held: bool
    after: bool
    remaining_ms: int = 0
    states: str = ""


def hit_at_access(breakpoint_id: int, access: PendingAccess, *, after: bool, took_ns: int) -> Hit:
    """Return a hit at an access as it is now. It has no number, and holds nothing, yet."""
    event = Access(
        time_ns=access.time_ns,
        took_ns=took_ns,
        vcpu=access.vcpu,
        space=access.space,
        operation=access.operation,
        address=access.address,
        size=access.size,
        data=access.data,
        status=access.status,
    )
    where = (access.device, access.range, access.offset)
    return Hit(0, breakpoint_id, event, *where, held=False, after=after)


def hit_at_interrupt(breakpoint_id: int, event: Interrupt, *, after: bool) -> Hit:
    """Return a hit at an interrupt, likewise."""
    return Hit(0, breakpoint_id, event, event.device, 0, 0, held=False, after=after)


@dataclass(frozen=True, slots=True)
class HoldEnded:
    """A hold has ended: which hit's, and why."""

    hit_id: int
    why: HoldEnd


HitListener: TypeAlias = Callable[[Hit | HoldEnded], None]
"""Called under a lock: it must return at once, not raise, and not call back."""


class Held:
    """An access that is held.

    Attributes:
        access: the access. Its thread waits, so others may read it.
        hit: what was told of it.
        limit_ms: the longest that it is held.
    """

    def __init__(self, access: PendingAccess, hit: Hit, limit_ms: int) -> None:
        self.access = access
        self.hit = hit
        self.limit_ms = limit_ms
        self._ends_ns = time.monotonic_ns() + limit_ms * _NS_PER_MS
        self._data: bytes | None = None
        self._gone_on = threading.Event()

    def wait(self) -> None:
        """Wait until it may go on, or its time is up."""
        self._gone_on.wait(self.limit_ms / 1000)

    def finish(self) -> None:
        """Wait for the one who lets it go, and take over the data that it is to have."""
        self._gone_on.wait()
        if self._data is not None:
            self.access.data = self._data

    def change(self, data: bytes) -> None:
        """Let it go on with other data, once it goes.

        Raises:
            BadRequest: there is nothing to change, or not to this.
        """
        access, after = self.access, self.hit.after
        if after and access.operation is Operation.WRITE:
            raise _bad_data("the device has got what was written; allowed: none")
        if after and access.status is not AccessStatus.OK:
            raise _bad_data("the read has failed; allowed: none")
        if not after and access.operation is Operation.READ:
            raise _bad_data("the device hasn't been read yet; allowed: none, or to hold it after")
        if len(data) != access.length:
            raise _bad_data(f"it has {len(data)} bytes; allowed: {access.length}")
        self._data = data

    def go_on(self) -> None:
        """Let it go."""
        self._gone_on.set()

    def hit_now(self) -> Hit:
        """The hit, with the time that remains now."""
        remaining_ns = max(0, self._ends_ns - time.monotonic_ns())
        return replace(self.hit, remaining_ms=remaining_ns // _NS_PER_MS)


class HeldAccesses:
    """The accesses that are held, and the numbers of all hits. Safe to use from any thread.

    Args:
        holds: told how many are held, and how long each was.
    """

    def __init__(self, holds: Holds) -> None:
        self._holds = holds
        self._lock = threading.Lock()
        self._held: dict[int, Held] = {}
        self._last_id = 0
        self._listeners: list[HitListener] = []
        self._draining = False

    def subscribe(self, listener: HitListener) -> tuple[Hit, ...]:
        """Tell `listener` each hit, and each end of a hold, from now on.

        Returns:
            What is held at this moment, which the listener's first event follows without
            a gap.
        """
        with self._lock:
            self._listeners.append(listener)
            return tuple(held.hit_now() for held in self._held.values())

    def unsubscribe(self, listener: HitListener) -> None:
        """Tell `listener` nothing more. No call to it begins after this returns."""
        with self._lock:
            self._listeners.remove(listener)

    def report(self, hit: Hit) -> None:
        """Tell of a hit that holds nothing, and number it."""
        with self._lock:
            self._tell(replace(hit, id=self._next_id(), held=False))

    def hold(
        self, access: PendingAccess, hit: Hit, limit_ms: int, is_wanted: Callable[[], bool]
    ) -> bool:
        """Hold an access of the calling thread, until it may go on.

        Args:
            access: the access; its data may be others afterwards.
            hit: why; it is numbered here.
            limit_ms: the longest to hold it.
            is_wanted: asked once more, when nobody can let go of what isn't held yet.

        Returns:
            Whether it was held.
        """
        with self._lock:
            if not is_wanted():
                return False
            hit = replace(hit, id=self._next_id(), held=not self._draining)
            if not hit.held:
                self._tell(hit)
                return False
            held = Held(access, replace(hit, remaining_ms=limit_ms), limit_ms)
            self._held[hit.id] = held
            self._holds.set(len(self._held))
            self._tell(held.hit)
        begun_ns = time.monotonic_ns()
        try:
            held.wait()
        finally:
            self._give_up(held)  # also if the thread is interrupted: what runs isn't held
            held.finish()
            self._holds.add_held_ns(time.monotonic_ns() - begun_ns)
        return True

    @contextmanager
    def letting_go(self, hit_id: int, data: bytes | None) -> Iterator[Held]:
        """End a hold. The access goes on when the block ends, with `data` if there is any.

        Raises:
            NoSuchHit: nothing is held by this number.
            BadRequest: the access can't have such data; it is held on.
        """
        with self._lock:
            held = self._held.get(hit_id)
            if held is None:
                raise NoSuchHit(f"no access is held by hit {hit_id}", hit=hit_id)
            if data is not None:
                held.change(data)
            self._end(held, HoldEnd.RESUMED)
        try:
            yield held
        finally:
            held.go_on()

    def let_go_of(self, breakpoint_id: int) -> None:
        """End all holds of one breakpoint."""
        with self._lock:
            for held in list(self._held.values()):
                if held.hit.breakpoint_id == breakpoint_id:
                    self._end(held, HoldEnd.RESUMED)
                    held.go_on()

    def drain(self) -> None:
        """End all holds, and hold nothing more."""
        with self._lock:
            self._draining = True
            for held in list(self._held.values()):
                self._end(held, HoldEnd.DRAINING)
                held.go_on()

    def _give_up(self, held: Held) -> None:
        """End a hold that nobody has ended: its time is up."""
        with self._lock:
            if held.hit.id in self._held:
                self._end(held, HoldEnd.LIMIT)
                held.go_on()

    # Under the lock.

    def _end(self, held: Held, why: HoldEnd) -> None:
        del self._held[held.hit.id]
        self._holds.set(len(self._held))
        self._tell(HoldEnded(held.hit.id, why))

    def _next_id(self) -> int:
        self._last_id += 1
        return self._last_id

    def _tell(self, event: Hit | HoldEnded) -> None:
        for listener in self._listeners:
            listener(event)


def _bad_data(why: str) -> BadRequest:
    return BadRequest(f"the data of the access can't be changed: {why}", field="data")
