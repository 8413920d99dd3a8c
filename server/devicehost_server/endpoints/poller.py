"""The threads that serve the queues of a ring: one on duty, and one to take its place.

The poller looks at all open queues in turn. While accesses come it spins. A short time
after the last one it has the ring sleep; how short is adapted to how often that helps
(`devicehost.ring.spin`), so that a client whose accesses come one by one, far apart, costs
little. Between its looks it lets other threads have the interpreter.

A device may hang in an access, and with it the poller. The guest's other vCPUs must not
wait for that. So where there is more than one queue, a watch looks from time to time
whether entries wait that nobody takes. If so, a new poller is put on duty, with all queues
but the one that the old one is in; when that comes back, it hands its queue over and ends.

Who serves which queue is never in doubt: the old poller says which queue it turns to, or
that it will sleep, before it looks whether it is relieved, and whoever relieves it says so
before looking at that.
"""

from __future__ import annotations

import threading
import time
from typing import Protocol

from devicehost.ring.consumer import Consumer
from devicehost.ring.layout import LOOK_AGAIN_S
from devicehost.ring.spin import Spin

TICK_S = 0.01
"""How often the watch looks while accesses are made; else every `LOOK_AGAIN_S`."""

_LOOKS = 300  # at an empty queue, before others have their turn: about 9 microseconds
_LOOK_S = 30e-9


class Served(Protocol):
    """A ring, as its poller has it."""

    @property
    def is_closed(self) -> bool:
        """Whether to stop."""

    def let_others(self) -> None:
        """Let other threads have the interpreter, if they want it."""

    def sleep(self) -> None:
        """Sleep until entries are there, or something has changed."""

    def retire(self, poller: Poller) -> None:
        """Take note that a poller has ended."""


class Poller(threading.Thread):
    """Serves queues until the ring closes, or another poller takes its place.

    Args:
        ring: whose they are.
        spin_s: the longest to spin after the last access, in seconds; 0 for not at all.

    Attributes:
        consumers: the queues, replaced as a whole; none at first.
        serving: the queue that it may be in; None while it sleeps.
        relieved: whether another one has taken its place.
        kept: the queue that it was in then.
    """

    def __init__(self, ring: Served, spin_s: float) -> None:
        super().__init__(name="ring", daemon=True)
        self.consumers: tuple[Consumer, ...] = ()
        self.serving: Consumer | None = None
        self.relieved = False
        self.kept: Consumer | None = None
        self._ring = ring
        self._spin = Spin(spin_s)
        self._looks = 1

    def run(self) -> None:
        """Serve."""
        try:
            self._poll()
        finally:
            self._ring.retire(self)

    def relieve(self) -> tuple[Consumer, ...]:
        """Take its queues away, but for the one that it may be in; return them."""
        self.relieved = True
        self.kept = self.serving
        return tuple(consumer for consumer in self.consumers if consumer is not self.kept)

    def _poll(self) -> None:
        ring, spin = self._ring, self._spin
        idle_since = 0.0  # as long as accesses come
        self._adapt()
        only: Consumer | None = None  # the only one that had accesses in the last round
        while not ring.is_closed:
            consumers = self.consumers
            # Where some are busy, the others get no more than a glance.
            looks = 1 if only or not idle_since else self._looks // (len(consumers) or 1) or 1
            busy = 0
            for consumer in consumers:
                self.serving = consumer
                if self.relieved:
                    return
                if consumer.serve(self._looks if consumer is only else looks):
                    busy += 1
                    last = consumer
            if busy:
                only = last if busy == 1 else None
                if idle_since:
                    spin.after(helped=True)
                    self._adapt()
                    idle_since = 0.0
                continue
            only = None
            ring.let_others()
            now = time.monotonic()
            if not idle_since:
                idle_since = now
            if now - idle_since >= spin.now_s:
                spin.after(helped=False)
                self._adapt()
                self.serving = None
                if self.relieved:  # it keeps a queue, which nobody would wake it for
                    return
                ring.sleep()
                idle_since = 0.0

    def _adapt(self) -> None:
        """Look no longer at a time than a spin is."""
        self._looks = max(1, min(_LOOKS, int(self._spin.now_s / _LOOK_S)))


class Watch:
    """Finds out whether a poller hangs. Its owner calls `hangs` every now and then.

    Attributes:
        period_s: when to look again, in seconds.
    """

    def __init__(self) -> None:
        self.period_s = LOOK_AGAIN_S
        self._waiting: dict[Consumer, int] = {}

    def hangs(self, poller: Poller) -> bool:
        """Whether entries wait since the last look, and the poller is in another queue."""
        serving = poller.serving
        waiting = {each: each.position for each in poller.consumers if each.is_pending}
        before, self._waiting = self._waiting, waiting
        self.period_s = TICK_S if serving is not None else LOOK_AGAIN_S
        return serving is not None and any(
            before.get(each) == position
            for each, position in waiting.items()
            if each is not serving
        )
