"""The ring of one client: its memory, its eventfds, and the thread that polls it.

The poller looks at all open queues in turn. While accesses come it spins; a short time
after the last one it arms `need_wakeup` and sleeps on the doorbell. It lets other threads
run between its looks, and so costs the rest of the server little.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import select
import threading
import time
from contextlib import suppress

from devicehost.access_status import AccessStatus
from devicehost.ring.consumer import BadEntry, Consumer
from devicehost.ring.layout import LATE_WAKEUPS, LOOK_AGAIN_S, NEED_WAKEUP, RingLayout
from devicehost.ring.membarrier import register
from devicehost_server.model.errors import DeviceHostError
from devicehost_server.model.io_manager import IoManager

SPIN_S = 200e-6
"""How long the poller spins after the last access, in seconds."""

QUEUES = 16
"""How many vCPUs can have a queue."""

_LOOKS = 100  # at an empty queue, before others have their turn: about 5 microseconds


class Ring:
    """The ring of one client.

    Args:
        io: makes the accesses.
        spin_s: how long to spin after the last access, in seconds.

    Attributes:
        fd: the memory: a memfd that nobody can resize.
        size: its size, in bytes.
        doorbell: the eventfd that a client signals when the server sleeps.
        wake_ups: for each queue, the eventfd that tells a sleeping client of a completion.
    """

    def __init__(self, io: IoManager, spin_s: float = SPIN_S) -> None:
        layout = RingLayout(QUEUES)
        self._io = io
        self._spin_s = spin_s
        self.size = layout.size
        self.fd = os.memfd_create("devicehost-ring", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.fd, layout.size)
        # Were the client able to cut it short, our next look would be a SIGBUS.
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, seals)
        self._map = mmap.mmap(self.fd, layout.size)
        self._memory = memoryview(self._map)
        layout.write_header(self._memory)
        self._words = self._memory.cast("Q")
        self.doorbell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._doorbell_poll = select.poll()
        self._doorbell_poll.register(self.doorbell, select.POLLIN)
        self.wake_ups = [os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK) for _ in range(QUEUES)]
        self._barrier = register()
        self._consumers: dict[int, Consumer] = {}
        self._closed = False
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def open_queue(self, queue: int) -> None:
        """Poll a queue from here on; one that is open stays so.

        Raises:
            IndexError: there is no such queue.
        """
        wake_up = self.wake_ups[queue]
        with self._lock:
            if queue in self._consumers:
                return
            consumer = Consumer(
                self._memory, queue, self._io, status_of, lambda: os.eventfd_write(wake_up, 1)
            )
            # The poller has its own look at the dict, which is replaced as a whole.
            self._consumers = {**self._consumers, queue: consumer}
            if self._thread is None:
                self._thread = threading.Thread(target=self._poll, name="ring", daemon=True)
                self._thread.start()
        os.eventfd_write(self.doorbell, 1)

    def close(self) -> None:
        """Stop polling, once the access that is being made has ended, and free everything."""
        self._closed = True
        os.eventfd_write(self.doorbell, 1)
        if self._thread is not None:
            self._thread.join()
        for consumer in self._consumers.values():
            consumer.close()
        self._words.release()
        self._memory.release()
        self._map.close()
        for fd in (self.fd, self.doorbell, *self.wake_ups):
            os.close(fd)

    def _poll(self) -> None:
        busy_until = time.monotonic() + self._spin_s
        while not self._closed:
            consumers = self._consumers.values()
            looks = _LOOKS // len(consumers)
            handled = 0
            for consumer in consumers:
                handled += consumer.serve(looks)
            if handled:
                busy_until = 0.0
                continue
            time.sleep(0)  # lets go of the interpreter, for whoever waits for it
            now = time.monotonic()
            if not busy_until:
                busy_until = now + self._spin_s
            elif now >= busy_until:
                self._sleep()
                busy_until = 0.0

    def _sleep(self) -> None:
        """Sleep until the doorbell rings; see `devicehost.ring` for why that is enough."""
        words = self._words
        words[NEED_WAKEUP] = 1
        self._barrier()
        while not self._closed and not self._is_pending():
            if self._doorbell_poll.poll(LOOK_AGAIN_S * 1000):
                break
            if self._is_pending():
                words[LATE_WAKEUPS] += 1
        words[NEED_WAKEUP] = 0
        with suppress(BlockingIOError):  # it didn't ring
            os.eventfd_read(self.doorbell)

    def _is_pending(self) -> bool:
        return any(consumer.is_pending for consumer in self._consumers.values())


def status_of(error: Exception) -> AccessStatus:
    """The status that stands for a failed access."""
    if isinstance(error, BadEntry):
        return error.status
    if isinstance(error, DeviceHostError) and error.reason in AccessStatus.__members__:
        return AccessStatus[error.reason]
    return AccessStatus.DEVICE_FAULT
