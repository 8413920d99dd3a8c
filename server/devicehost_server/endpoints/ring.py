"""The ring of one client: its memory, its eventfds, and the thread that polls it.

The poller looks at all open queues in turn. While accesses come it spins. A short time
after the last one it arms `need_wakeup` and sleeps on the doorbell; how short is adapted
to how often that helps (`devicehost.ring.spin`), so that a client whose accesses come one
by one, far apart, costs little. Between its looks the poller lets other threads have the
interpreter.

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
from contextlib import ExitStack, suppress

from devicehost.access_status import AccessStatus
from devicehost.bus_regions import RING_QUEUES
from devicehost.ring.consumer import Accesses, BadEntry, Consumer
from devicehost.ring.layout import (
    INTERRUPT_GENERATION,
    LATE_WAKEUPS,
    LOOK_AGAIN_S,
    NEED_WAKEUP,
    RingLayout,
)
from devicehost.ring.membarrier import register
from devicehost.ring.spin import Spin
from devicehost_server.model.errors import DeviceHostError
from devicehost_server.model.interrupts import InterruptController, InterruptEvent

SPIN_S = 200e-6
"""The longest that the poller spins after the last access, in seconds."""

_LOOKS = 100  # at an empty queue, before others have their turn: about 3 microseconds


class Ring:
    """The ring of one client.

    Args:
        io: makes the accesses: an `IoManager`.
        spin_s: the longest to spin after the last access, in seconds; 0 for not at all.
        interrupts: whose generation the client can read in the ring, if anybody's.

    Attributes:
        fd: the memory: a memfd that nobody can resize.
        size: its size, in bytes.
        doorbell: the eventfd that a client signals when the server sleeps.
        wake_ups: for each queue, the eventfd that tells a sleeping client of a completion.
        late_wakeups: how many entries were found only by looking again.
    """

    def __init__(
        self,
        io: Accesses,
        spin_s: float = SPIN_S,
        *,
        interrupts: InterruptController | None = None,
    ) -> None:
        self._layout = RingLayout(RING_QUEUES)
        self._io = io
        self._interrupts = interrupts
        self._spin = Spin(spin_s)
        self._looks = _LOOKS if spin_s else 1
        self.size = self._layout.size
        self.late_wakeups = 0
        self._barrier = register()
        self._consumers: dict[int, Consumer] = {}
        self._closed = False
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
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

    def open_queue(self, queue: int) -> None:
        """Poll a queue from here on; one that is open stays so.

        Raises:
            BadRing: there is no such queue.
            ValueError: the ring is closed.
        """
        with self._lock:
            if self._closed:
                raise ValueError(f"queue {queue} of a ring that is closed")
            if queue not in self._consumers:
                consumer = Consumer(
                    self._memory,
                    self._layout,
                    queue,
                    self._io,
                    status_of=status_of,
                    wake=lambda: _signal(self.wake_ups[queue]),
                )
                # The poller has its own look at the dict, which is replaced as a whole.
                self._consumers = {**self._consumers, queue: consumer}
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="ring", daemon=True)
                thread.start()
                self._thread = thread
            _signal(self._own_bell)

    def close(self) -> None:
        """Tell the poller to stop; return at once. Nothing happens the second time.

        The poller frees everything, once the access that is being made has ended.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
            _signal(self._own_bell)
            for fd in self.wake_ups:
                # If the client made it block, and filled it, the poller hangs in it.
                os.set_blocking(fd, False)
                with suppress(BlockingIOError):
                    os.eventfd_read(fd)
        if self._thread is None:
            self._free()

    def join(self, timeout_s: float) -> bool:
        """Wait until a closed ring is freed, but not for longer than `timeout_s` seconds.

        Returns:
            Whether it is. If not, a device hangs in an access.
        """
        if self._thread is None:
            return True
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._poll()
        finally:
            self._free()

    def _poll(self) -> None:
        spin = self._spin
        idle_since = 0.0  # as long as accesses come
        only: Consumer | None = None  # the only one that had accesses in the last round
        while not self._closed:
            consumers = self._consumers.values()
            # Where some are busy, the others get no more than a glance.
            looks = 1 if only or not idle_since else self._looks // len(consumers) or 1
            busy = 0
            for consumer in consumers:
                if consumer.serve(self._looks if consumer is only else looks):
                    busy += 1
                    last = consumer
            if busy:
                only = last if busy == 1 else None
                if idle_since:
                    spin.after(helped=True)
                    idle_since = 0.0
                continue
            only = None
            self._bells.poll(0)  # lets go of the interpreter, for whoever waits for it
            now = time.monotonic()
            if not idle_since:
                idle_since = now
            if now - idle_since >= spin.now_s:
                spin.after(helped=False)
                self._sleep()
                idle_since = 0.0

    def _sleep(self) -> None:
        """Sleep until a bell rings; see `devicehost.ring` for why that is enough."""
        words = self._words
        words[NEED_WAKEUP] = 1
        self._barrier()
        while not (self._closed or self._is_pending() or self._bells.poll(LOOK_AGAIN_S)):
            # It may have rung just now.
            if self._is_pending() and not self._bells.poll(0):
                self.late_wakeups += 1
                words[LATE_WAKEUPS] = self.late_wakeups
        words[NEED_WAKEUP] = 0

    def _is_pending(self) -> bool:
        return any(consumer.is_pending for consumer in self._consumers.values())

    def _interrupt_changed(self, event: InterruptEvent) -> None:
        """Say so in the ring. If an access caused it, this is its thread."""
        self._words[INTERRUPT_GENERATION] = event.generation

    def _free(self) -> None:
        if self._interrupts is not None:
            self._interrupts.unsubscribe(self._interrupt_changed)
        with self._lock:  # whoever holds it may be about to signal an eventfd
            self._closed = True
            for consumer in self._consumers.values():
                consumer.close()
            self._consumers = {}
            self._words.release()
            self._memory.release()
            self._fds.close()


def status_of(error: BaseException) -> AccessStatus:
    """The status that stands for a failed access."""
    if isinstance(error, BadEntry):
        return error.status
    if isinstance(error, DeviceHostError) and error.reason in AccessStatus.__members__:
        return AccessStatus[error.reason]
    return AccessStatus.DEVICE_FAULT


def _eventfd(owner: ExitStack) -> int:
    """Make an eventfd, which `owner` closes."""
    fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    owner.callback(os.close, fd)
    return fd


def _signal(eventfd: int) -> None:
    with suppress(BlockingIOError):  # it is full: somebody signalled it often enough
        os.eventfd_write(eventfd, 1)
