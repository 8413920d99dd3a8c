"""The ring of one client: its memory, its eventfds, and the threads that serve it.

A poller serves all open queues (`devicehost_server.endpoints.poller`). When it has nothing
to do it arms `need_wakeup`, and sleeps on the doorbell.

The client shares the memory and the eventfds, and may do with them as it likes: write any
number anywhere, fill an eventfd, or make it block. It harms nobody but itself with that.
What is read from the memory is checked, and what is written there is never read again.
Nothing is read from an eventfd of the client's either: the bell is edge-triggered.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import select
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress

from devicehost.bus_regions import RING_QUEUES
from devicehost.ring.consumer import Accesses, Consumer
from devicehost.ring.layout import (
    HELD,
    INTERRUPT_GENERATION,
    LATE_WAKEUPS,
    LOOK_AGAIN_S,
    NEED_WAKEUP,
    RingLayout,
)
from devicehost.ring.membarrier import register
from devicehost_server.endpoints.poller import Poller, Watch
from devicehost_server.endpoints.statuses import status_of
from devicehost_server.model.holds import Holds
from devicehost_server.model.interrupts import InterruptController, InterruptEvent

SPIN_S = 200e-6
"""The longest that the poller spins after the last access, in seconds."""


class Ring:
    """The ring of one client.

    Args:
        accesses_of: what makes the accesses of a vCPU.
        spin_s: the longest to spin after the last access, in seconds; 0 for not at all.
        interrupts: whose generation the client can read in the ring, if anybody's.
        holds: which accesses are held, for the client to know.

    Attributes:
        fd: the memory: a memfd that nobody can resize.
        size: its size, in bytes.
        doorbell: the eventfd that a client signals when the server sleeps.
        wake_ups: for each queue, the eventfd that tells a sleeping client of a completion.
        late_wakeups: how many entries were found only by looking again.
        reliefs: how often a poller had to be relieved, because a device hung.
        is_closed: whether it is, or is about to be.
    """

    def __init__(
        self,
        accesses_of: Callable[[int | None], Accesses],
        spin_s: float = SPIN_S,
        *,
        interrupts: InterruptController | None = None,
        holds: Holds | None = None,
    ) -> None:
        self._layout = RingLayout(RING_QUEUES)
        self._accesses_of = accesses_of
        self._interrupts = interrupts
        self._holds = holds
        self._spin_s = spin_s
        self.size = self._layout.size
        self.late_wakeups = 0
        self.reliefs = 0
        self.is_closed = False
        self._end = threading.Event()
        self._barrier = register()
        self._consumers: dict[int, Consumer] = {}
        self._lock = threading.Lock()
        self._poller: Poller | None = None  # on duty
        self._pollers: set[Poller] = set()  # that have not ended
        self._watching: threading.Thread | None = None
        with ExitStack() as undo:
            self.fd = os.memfd_create("devicehost-ring", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            undo.callback(os.close, self.fd)
            os.ftruncate(self.fd, self.size)
            # Were the client able to cut it short, our next look would be a SIGBUS.
            seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
            fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, seals)
            self.doorbell = _eventfd(undo)
            self.wake_ups = [_eventfd(undo) for _ in range(RING_QUEUES)]
            self._own_bell = _eventfd(undo)
            self._bells = undo.enter_context(select.epoll(2))
            for bell in (self.doorbell, self._own_bell):
                self._bells.register(bell, select.EPOLLIN | select.EPOLLET)
            # Unmapped when the last view of it goes, which may be one that a device keeps.
            self._memory = memoryview(mmap.mmap(self.fd, self.size))
            self._fds = undo.pop_all()
        self._layout.write_header(self._memory)
        self._words = self._memory.cast("Q")
        if interrupts is not None:
            interrupts.subscribe(self._interrupt_changed)
            # It may change meanwhile: until ours is the last.
            while self._words[INTERRUPT_GENERATION] < (generation := interrupts.generation):
                self._words[INTERRUPT_GENERATION] = generation
        if holds is not None:
            holds.subscribe(self._holds_changed)

    def open_queue(self, queue: int, vcpu: int | None = None) -> None:
        """Serve a queue from here on; one that is open stays so.

        Args:
            queue: its number.
            vcpu: whose it is, if that is known.

        Raises:
            BadRing: there is no such queue.
            ValueError: the ring is closed.
            RuntimeError: there can't be one more thread.
        """
        with self._lock:
            if self.is_closed:
                raise ValueError(f"queue {queue} of a ring that is closed")
            if queue in self._consumers:
                return
            consumer = Consumer(
                self._memory,
                self._layout,
                queue,
                self._accesses_of(vcpu),
                status_of=status_of,
                wake=lambda: _signal(self.wake_ups[queue]),
            )
            poller = self._poller or self._put_on_duty()
            if self._consumers and self._watching is None:
                watching = threading.Thread(target=self._watch, name="ring watch", daemon=True)
                watching.start()
                self._watching = watching
            self._consumers[queue] = consumer
            self._give(poller, consumer)

    def view(self) -> dict[str, int]:
        """What somebody who debugs sees of it."""
        return {
            "ring_queues": len(self._consumers),
            "late_wakeups": self.late_wakeups,
            "reliefs": self.reliefs,
        }

    def close(self) -> None:
        """Have the poller stop; return at once. Nothing happens the second time.

        The poller frees everything, once the access that is being made has ended.
        """
        with self._lock:
            if self.is_closed:
                return
            self.is_closed = True
            self._end.set()
            _signal(self._own_bell)
            for fd in self.wake_ups:
                # If the client made it block, and filled it, the poller hangs in it.
                os.set_blocking(fd, False)
                with suppress(BlockingIOError):
                    os.eventfd_read(fd)
            if not self._pollers:
                self._free()

    def join(self, timeout_s: float) -> bool:
        """Wait until a closed ring is freed, but not for longer than `timeout_s` seconds.

        Returns:
            Whether it is. If not, a device hangs in an access.
        """
        deadline = time.monotonic() + timeout_s
        watching = () if self._watching is None else (self._watching,)
        for thread in (*self._pollers, *watching):
            thread.join(max(0.0, deadline - time.monotonic()))
        return not self._pollers

    # For the poller.

    def let_others(self) -> None:
        """Let other threads have the interpreter, if they want it."""
        self._bells.poll(0)

    def sleep(self) -> None:
        """Sleep until a bell rings; see `devicehost.ring` for why that is enough."""
        words = self._words
        words[NEED_WAKEUP] = 1
        self._barrier()
        while not (self.is_closed or self._is_pending() or self._bells.poll(LOOK_AGAIN_S)):
            # It may have rung just now.
            if self._is_pending() and not self._bells.poll(0):
                self.late_wakeups += 1
                words[LATE_WAKEUPS] = self.late_wakeups
        words[NEED_WAKEUP] = 0

    def retire(self, poller: Poller) -> None:
        """Take note that a poller has ended; the last one frees everything."""
        with self._lock:
            self._pollers.discard(poller)
            if not poller.relieved:
                self.is_closed = True
                self._end.set()
            elif self._poller is not None:
                # A bell may have woken it in place of the other one: that rings again.
                self._give(self._poller, *([poller.kept] if poller.kept else []))
            if self.is_closed and not self._pollers:
                self._free()

    def _put_on_duty(self) -> Poller:
        """Start a poller, which has no queue yet. If that raises, nothing has changed."""
        poller = Poller(self, self._spin_s)
        poller.start()
        self._pollers.add(poller)
        self._poller = poller
        return poller

    def _give(self, poller: Poller, *consumers: Consumer) -> None:
        """Have the poller on duty serve these as well, and look at all that it has."""
        poller.consumers += consumers
        _signal(self._own_bell)

    def _watch(self) -> None:
        """Put another poller on duty whenever one hangs. On a thread of its own."""
        watch = Watch()
        while not self._end.wait(watch.period_s):
            with self._lock:
                poller = self._poller
                if poller is None or self.is_closed or not watch.hangs(poller):
                    continue
                with suppress(RuntimeError):  # there can't be one more thread, for now
                    self._give(self._put_on_duty(), *poller.relieve())
                    self.reliefs += 1

    def _is_pending(self) -> bool:
        """Whether an entry waits in a queue of the poller on duty."""
        poller = self._poller
        return poller is not None and any(each.is_pending for each in poller.consumers)

    def _interrupt_changed(self, event: InterruptEvent) -> None:
        """Say so in the ring. If an access caused it, this is its thread."""
        self._words[INTERRUPT_GENERATION] = event.generation

    def _holds_changed(self, count: int) -> None:
        """Say in the ring how many accesses are held."""
        self._words[HELD] = count

    def _free(self) -> None:
        """Free everything. Under the lock: whoever holds it may be about to signal an eventfd."""
        if self._interrupts is not None:
            self._interrupts.unsubscribe(self._interrupt_changed)
        if self._holds is not None:
            self._holds.unsubscribe(self._holds_changed)
        for consumer in self._consumers.values():
            consumer.close()
        self._consumers = {}
        self._words.release()
        self._memory.release()
        self._fds.close()


def _eventfd(owner: ExitStack) -> int:
    """Make an eventfd, which `owner` closes."""
    fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    owner.callback(os.close, fd)
    return fd


def _signal(eventfd: int) -> None:
    with suppress(BlockingIOError):  # it is full: somebody signalled it often enough
        os.eventfd_write(eventfd, 1)
