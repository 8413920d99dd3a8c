"""Split virtqueues, from the device's side.

Source: VIRTIO 1.2, section 2.7. A driver makes chains of descriptors available, a device
takes them (`pop`), and gives each back when it has done what it asks for (`push`), in any
order. One `notify` after a batch interrupts the driver, if it wants that.

    while (chain := queue.pop()) is not None:
        queue.push(chain, fill(chain.writable))
    queue.notify()

Who notifies whom. Both sides do the same thing: they publish, then look whether the other
one sleeps; or say that they will sleep, then look whether something was published. Nothing
is lost if both look after they have written. A processor doesn't do that by itself, x86
neither: a store waits in a buffer while later loads go ahead. So between the two stands a
full barrier: here a `threading.Lock` is taken. That is a compare-and-exchange with a LOCK
prefix on x86, which drains the store buffer ("Intel 64 and IA-32 Architectures Software
Developer's Manual", volume 3, section 8.2.3.9). All other orders that are needed, x86 keeps:
loads with loads, stores with stores. Fields are read and written by one instruction each.

What the guest writes is hostile: each field is read once into a local, then checked. A
violation is told to the owner, and the queue gives nothing more until it is reset.

Memory that goes away suspends a queue (see `queue_memory`). So does a chain with a buffer
that isn't in memory, for a moment, since a client may be about to change its table; then
that is a violation, too.

Invariants:
    A chain that was popped is in flight until it is pushed, and its head belongs to nobody
    else meanwhile. After `abandon`, those in flight will be popped again.
    The queue's lock is held for a few transfers at most. Under it the owner is asked for
    nothing but to look again.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from devicehost_server.devices.virtio.chain import BadChain, Chain, read_chain
from devicehost_server.devices.virtio.queue_memory import MISSING_S, QueueMemory, copies_of
from devicehost_server.devices.virtio.queue_state import (
    INDEX_MASK,
    QueueOwner,
    QueueSettings,
    SavedQueue,
)
from devicehost_server.devices.virtio.rings import (
    FLAGS,
    HEADS,
    INDEX,
    Rings,
    avail_event,
    used_event,
)
from devicehost_server.model.errors import MemoryNotMapped
from devicehost_server.model.guest_memory import GuestMemory

NO_NOTIFICATIONS = 1
"""The flag, in either ring, by which the other side is told not to notify."""


class VirtQueue(QueueMemory):
    """A queue of requests. Safe to use from any thread.

    Args:
        index: its number.
        size_max: how many descriptors it can have, a power of two.
        owner: told of interrupts and violations.

    Attributes:
        index: its number.
        size_max: how many descriptors it can have.
        kicks: how often the driver notified.
        interrupts: how often it was interrupted.
    """

    def __init__(self, index: int, size_max: int, owner: QueueOwner) -> None:
        super().__init__(index, size_max, owner)
        self.kicks = 0
        self.interrupts = 0

    def _clear(self) -> None:
        super()._clear()
        self._running = False
        self._event_index = self._indirect = False
        self._next_avail = 0  # the index of the next chain to pop
        self._seen = 0  # the available ring's index, when somebody last looked
        self._again: deque[int] = deque()  # heads to pop before others

    # For devices.

    @property
    def size(self) -> int:
        """How many descriptors it has."""
        return self._settings.size

    @property
    def enabled(self) -> bool:
        """Whether the driver uses it."""
        return self._enabled

    def pop(self) -> Chain | None:
        """Take the next chain that the driver made available.

        None if there is none, or the queue isn't in use, has no memory at the moment, or is
        broken: by what it finds it may break here, and then the device needs a reset.
        """
        try:
            with self._lock:
                if not self._running:
                    return None
                if self._memory.blocks() is not self._blocks:  # type: ignore[union-attr] # it runs
                    self._look_at_memory()
                rings, windows = self._rings, self._windows
                if rings is None or windows is None:
                    return None
                head = self._next_head(rings)
                if head < 0:
                    return None
                size, indirect = self._mask + 1, self._indirect
                chain = read_chain(head, rings.descriptor, size, windows, indirect=indirect)
                self._in_flight[head] = chain
                self._missing_since = None
                if self._again:
                    self._again.popleft()
                else:
                    self._next_avail = (self._next_avail + 1) & INDEX_MASK
                return chain
        except BadChain as error:
            self._violated(str(error))
        except MemoryNotMapped as error:
            self._missing(str(error))
        return None

    def push(self, chain: Chain, written: int) -> None:
        """Give a chain back.

        One that was abandoned meanwhile, by a reset, is dropped.

        Args:
            chain: one from `pop`, and not given back yet.
            written: how many bytes of its writable part the device wrote, from the first on.
        """
        self.push_all(((chain, written),))

    def push_all(self, done: Sequence[tuple[Chain, int]]) -> None:
        """Give several chains back at once: the driver sees none of them, or all.

        Args:
            done: each chain, and how many bytes of it were written, as `push` takes them.
        """
        with self._lock:
            if any(self._in_flight.get(chain.head) is not chain for chain, _ in done):
                return
            if self._memory.blocks() is not self._blocks:  # type: ignore[union-attr] # it ran
                self._follow_memory()
            self._give_back(
                [
                    (
                        chain.head,
                        min(written, chain.writable_size),
                        copies_of(chain, written) if chain.copies else (),
                    )
                    for chain, written in done
                ]
            )

    def put_back(self, chains: Sequence[Chain]) -> None:
        """Undo `pop`: these chains, in the order in which they were popped, come again."""
        with self._lock:
            for chain in reversed(chains):
                if self._in_flight.get(chain.head) is chain:
                    del self._in_flight[chain.head]
                    self._again.appendleft(chain.head)

    def notify(self) -> None:
        """Interrupt the driver, if it wants that for what was pushed since the last time.

        Of a queue that is paused, or has no memory, it is put off until it runs again.
        """
        with self._lock:  # the barrier: indexes were written before, what follows reads
            rings, count = self._rings, self._unsignalled
            if not count or not self._running or rings is None:
                return
            try:
                if not self._event_index:
                    wanted = not rings.avail[FLAGS] & NO_NOTIFICATIONS
                else:  # whether the event is among the last `count`, which may be all there are
                    event = rings.avail[used_event(self._mask + 1)]
                    wanted = (self._next_used - event - 1) & INDEX_MASK < count
            except MemoryNotMapped:
                self._transfer_failed()
                return
            self._unsignalled = 0
            self.interrupts += wanted
        if wanted:
            self._owner.interrupt(self.index)

    # For the worker.

    @property
    def is_at_hand(self) -> bool:
        """Whether it gives chains, and a look at it is no transfer."""
        rings = self._rings
        return self._running and rings is not None and isinstance(rings.avail, memoryview)

    def has_more(self) -> bool:
        """Whether the driver has made more available than anybody has seen."""
        rings = self._rings
        return rings is not None and rings.avail[INDEX] != self._seen

    def suppress(self) -> None:
        """Tell the driver that it need not kick: somebody looks."""
        with self._lock:
            if self._memory is None or self._memory.blocks() is not self._blocks:
                self._follow_memory()
            rings = self._rings
            if not self._running or rings is None:
                return
            try:
                self._seen = rings.avail[INDEX]
                if not self._event_index:
                    rings.used[FLAGS] = NO_NOTIFICATIONS
            except MemoryNotMapped:
                self._transfer_failed()

    def ask_for_kicks(self) -> bool:
        """Tell the driver to kick when it makes more available than anybody has seen.

        Returns:
            Whether there is more already: then no kick may come.
        """
        try:
            with self._lock:
                rings, seen = self._rings, self._seen
                if not self._running or rings is None:
                    return False
                if self._event_index:
                    rings.used[avail_event(self._mask + 1)] = seen
                else:
                    rings.used[FLAGS] = 0
            with self._lock:  # the barrier
                return rings.avail[INDEX] != seen
        except MemoryNotMapped:
            with self._lock:
                self._transfer_failed()
            return False

    # For the owner, which holds the device's lock.

    def attach(self, memory: GuestMemory) -> None:
        """Look for its areas in `memory`."""
        self._memory = memory

    @property
    def settings(self) -> QueueSettings:
        """What the driver says of it."""
        return self._settings

    def enable(self, settings: QueueSettings) -> None:
        """Begin at the first chain. It gives nothing until `run`."""
        with self._lock:
            self._settings = settings
            self._mask = settings.size - 1
            self._enabled = True
            self._drop_memory()  # so that its areas are looked for

    def run(self, *, event_index: bool, indirect: bool) -> None:
        """Give chains from here on, by what was negotiated."""
        with self._lock:
            self._event_index, self._indirect = event_index, indirect
            self._running = self._enabled and self._memory is not None

    def pause(self) -> None:
        """Give no chains until `run`. Those in flight can still be pushed.

        It takes no lock: who holds that may wait for memory, in vain if this is the thread
        that brings it. So a transfer that goes on is the last one.
        """
        self._running = False

    def abandon(self) -> None:
        """Take what is in flight as not popped, if anything is; a push of it does nothing."""
        with self._lock:
            self._late = [(head, written, ()) for head, written, copies in self._late if not copies]
            finished = {head: Chain(head) for head, _, _ in self._late}
            again = [head for head in self._in_flight if head not in finished]
            self._again.extendleft(reversed(again))  # most were popped before what was put back
            self._in_flight = finished
            self._drop_memory()

    def reset(self) -> None:
        """Forget everything. A push of what was in flight does nothing."""
        with self._lock:
            self._clear()

    def view(self) -> dict[str, Any]:
        """Tell what somebody who debugs may want to see."""
        settings = self._settings
        return {
            "size": settings.size,
            "enabled": self._enabled,
            "running": self._running,
            "table": hex(settings.table),
            "driver": hex(settings.driver),
            "device": hex(settings.device),
            "next_avail": self._next_avail,
            "next_used": self._next_used,
            "in_flight": len(self._in_flight),
            "has_memory": self._rings is not None,
            "kicks": self.kicks,
            "interrupts": self.interrupts,
        }

    def saved(self) -> SavedQueue:
        """Return where it is, after `abandon`."""
        late = tuple((head, written) for head, written, _ in self._late)
        return SavedQueue(self._next_avail, self._next_used, tuple(self._again), late)

    def take(self, saved: SavedQueue) -> None:
        """Go on where another one was, after `reset` and `enable`."""
        with self._lock:
            self._next_avail = saved.next_avail
            self._next_used = saved.next_used
            self._again = deque(saved.again)
            self._keep([(head, written, ()) for head, written in saved.late])

    # Under the lock, but for `_missing` and `_violated`.

    def _next_head(self, rings: Rings) -> int:
        """Return the head of the chain to pop next; -1 if there is none.

        Raises:
            BadChain: the driver says what can't be.
        """
        if self._again:
            head = self._again[0]
        else:
            position = self._next_avail
            self._seen = index = rings.avail[INDEX]
            if index == position:
                return -1
            if (index - position) & INDEX_MASK > self._mask + 1:
                raise BadChain(f"the available index jumps from {position} to {index}")
            head = rings.avail[HEADS + (position & self._mask)]
        if head in self._in_flight:
            raise BadChain(f"descriptor {head} is in flight already")
        return head

    def _follow_memory(self) -> None:
        """Take note that the memory is another one.

        A queue that doesn't run drops the old one, which it would keep mapped. It leaves the
        new one alone: somebody may be waiting for it to rest.
        """
        if self._running:
            self._look_at_memory()
        else:
            self._drop_memory()

    def _missing(self, what: str) -> None:
        """A buffer isn't in memory. Look again, if that hasn't been so for long."""
        now = time.monotonic()
        if self._missing_since is None:
            self._missing_since = now
        if now - self._missing_since < MISSING_S:
            self._owner.look_again(self.index, MISSING_S)
        else:
            self._violated(what)

    def _violated(self, reason: str) -> None:
        with self._lock:
            self._running = False
        self._owner.violated(self.index, reason)
