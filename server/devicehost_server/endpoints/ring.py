"""The ring of one client: its memory, its eventfds, and the thread that polls it.

The poller looks at all open queues in turn. While accesses come it spins. A short time
after the last one it arms `need_wakeup` and sleeps on the doorbell; how short is adapted
to the gaps between accesses (`devicehost.ring.spin`), so that a client whose accesses
come one by one, far apart, doesn't cost a spin for each. Between its looks the poller
gives way to other threads.

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
from devicehost.ring.consumer import BadEntry, Consumer
from devicehost.ring.layout import LATE_WAKEUPS, LOOK_AGAIN_S, NEED_WAKEUP, RingLayout
from devicehost.ring.membarrier import register
from devicehost.ring.spin import Spin
from devicehost_server.model.errors import DeviceHostError
from devicehost_server.model.io_manager import IoManager

SPIN_S = 200e-6
"""The longest that the poller spins after the last access, in seconds."""

CLOSE_S = 5.0
"""How long `Ring.close` waits for an access that is being made, in seconds."""

_LOOKS = 100  # at an empty queue, before others have their turn: about 5 microseconds


class Ring:
    """The ring of one client.

    Args:
        io: makes the accesses.
        spin_s: the longest to spin after the last access, in seconds.

    Attributes:
        fd: the memory: a memfd that nobody can resize.
        size: its size, in bytes.
        doorbell: the eventfd that a client signals when the server sleeps.
        wake_ups: for each queue, the eventfd that tells a sleeping client of a completion.
        late_wakeups: how many entries were found only by looking again.
    """

    def __init__(self, io: IoManager, spin_s: float = SPIN_S) -> None:
        self._layout = RingLayout(RING_QUEUES)
        self._io = io
        self._spin = Spin(spin_s)
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

    def open_queue(self, queue: int) -> None:
        """Poll a queue from here on; one that is open stays so.

        Raises:
            BadRing: there is no such queue.
        """
        with self._lock:
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
        """Stop polling, once the access that is being made has ended, and free everything.

        That is waited for, but not for longer than `CLOSE_S`: the poller itself frees what
        there is when a device that hangs lets it go. Nothing happens the second time.
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
        else:
            self._thread.join(CLOSE_S)

    def _run(self) -> None:
        try:
            self._poll()
        finally:
            self._free()

    def _poll(self) -> None:
        spin = self._spin
        looked = idle_since = 0.0  # the latter is 0 as long as accesses come
        while not self._closed:
            consumers = self._consumers.values()
            looks = _LOOKS // len(consumers)
            handled = 0
            for consumer in consumers:
                handled += consumer.serve(looks)
            if handled:
                if idle_since:
                    spin.after(looked - idle_since)
                    idle_since = 0.0
                continue
            os.sched_yield()  # lets go of the interpreter, for whoever waits for it
            looked = time.monotonic()
            if not idle_since:
                idle_since = looked
            elif looked - idle_since >= spin.now_s:
                self._sleep()
                looked = time.monotonic()

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

    def _free(self) -> None:
        with self._lock:  # whoever holds it may be about to signal an eventfd
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
