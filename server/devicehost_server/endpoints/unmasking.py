"""An eventfd by which a client unmasks INTx, in place of a message.

KVM signals it when the guest has served the interrupt (KVM_IRQFD with a resamplefd), so that
the hypervisor needs not be woken for that.
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable
from contextlib import suppress

from devicehost_server.endpoints.eventfds import check, has_room


class Unmasking:
    """Listens to an eventfd, on a thread of its own, until `close`.

    Args:
        fd: the eventfd; it is ours to close, if this doesn't raise.
        unmask: called whenever it is signalled.

    Raises:
        Refused: it isn't an eventfd.
        RuntimeError: there can't be one more thread.
    """

    def __init__(self, fd: int, unmask: Callable[[], object]) -> None:
        check(fd)
        self._fd = fd
        self._unmask = unmask
        self._end = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._lock = threading.Lock()  # of the descriptors, as long as they are ours
        self._is_over = False
        try:
            threading.Thread(target=self._run, name="unmasking", daemon=True).start()
        except BaseException:
            os.close(self._end)
            raise

    def close(self) -> None:
        """Listen no more; return at once. Once is enough."""
        with self._lock:
            if not self._is_over:
                os.eventfd_write(self._end, 1)
                # If the client made it block, and emptied it, the thread hangs in it.
                os.set_blocking(self._fd, False)
                if has_room(self._fd):
                    os.eventfd_write(self._fd, 1)

    def _run(self) -> None:
        signalled = select.poll()
        for fd in (self._fd, self._end):
            signalled.register(fd, select.POLLIN)
        try:
            while self._end not in {fd for fd, _ in signalled.poll()}:
                with suppress(BlockingIOError):  # somebody else has read it
                    os.eventfd_read(self._fd)
                self._unmask()
        finally:
            with self._lock:
                self._is_over = True
                os.close(self._fd)
                os.close(self._end)
