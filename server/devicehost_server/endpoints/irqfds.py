"""Interrupts as eventfds: what a client connects, it hears of, without a message.

The client shares the eventfds, and can make one block and fill it. Whoever signals it then
waits, with the lock of all interrupts. That harms nobody but the client's own VM, and ends
when the client does: `close` empties what is full.
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Iterable
from contextlib import suppress
from errno import EINVAL
from pathlib import Path

from devicehost.bus_regions import GSI_COUNT, IRQ_GSI
from devicehost.vfio_user import IrqAction, IrqData, SetIrqs
from devicehost_server.endpoints.refused import Refused
from devicehost_server.model.interrupts import InterruptController, InterruptEvent, InterruptKind

_EVENTFD = Path("anon_inode:[eventfd]")
_PATIENCE_S = 0.1


class IrqFds:
    """The eventfds of one client, by GSI.

    Args:
        interrupts: whose changes they signal.
    """

    def __init__(self, interrupts: InterruptController) -> None:
        self._interrupts = interrupts
        self._fds: dict[int, int] = {}  # replaced as a whole
        self._lock = threading.Lock()
        self._closed = False
        interrupts.subscribe(self._changed)

    def apply(self, request: SetIrqs, fds: tuple[int, ...]) -> bool:
        """Connect eventfds, disconnect them, or signal them by hand.

        Args:
            request: which, and what to do.
            fds: an eventfd for each subindex, or nothing to disconnect them.

        Returns:
            Whether `fds` are ours now, to close.

        Raises:
            Refused: there is no such interrupt, it can't do that, or a descriptor isn't
                an eventfd.
        """
        if request.index != IRQ_GSI or request.start + request.count > GSI_COUNT:
            raise Refused(EINVAL, f"interrupts are index 0, subindexes 0 to {GSI_COUNT - 1}")
        if request.action is not IrqAction.TRIGGER:
            raise Refused(EINVAL, "interrupts can't be masked here")
        gsis = range(request.start, request.start + request.count)
        if request.data is IrqData.EVENTFD and fds:
            self._connect(dict(zip(gsis, fds, strict=True)))
            return True
        if request.data is IrqData.EVENTFD or request.count == 0:
            with self._lock:
                self._disconnect(set(gsis) if request.count else set(self._fds))
            return False
        chosen = request.bools or b"\1" * request.count
        with self._lock:
            for gsi, signal in zip(gsis, chosen, strict=True):
                if signal:
                    self._signal(gsi)
        return False

    def close(self) -> None:
        """Disconnect everything, and connect nothing any more. Once is enough."""
        while not self._lock.acquire(timeout=_PATIENCE_S):
            _empty(self._fds.values())
        try:
            if not self._closed:
                self._closed = True
                _empty(self._fds.values())
                self._interrupts.unsubscribe(self._changed)
                self._disconnect(set(self._fds))
        finally:
            self._lock.release()

    def _connect(self, fds: dict[int, int]) -> None:
        for fd in fds.values():
            # One that isn't might block, or harm somebody: our write could be a file's.
            if Path(f"/proc/self/fd/{fd}").readlink() != _EVENTFD:
                raise Refused(EINVAL, "an interrupt's descriptor is not that of an eventfd")
            os.set_blocking(fd, False)
        with self._lock:
            if self._closed:
                raise Refused(EINVAL, "the client is gone")
            self._disconnect(set(fds))
            self._fds = {**self._fds, **fds}
            for gsi in self._interrupts.asserted():
                if gsi in fds:
                    self._signal(gsi)

    def _disconnect(self, gsis: set[int]) -> None:
        """Under the lock."""
        gone = [fd for gsi, fd in self._fds.items() if gsi in gsis]
        self._fds = {gsi: fd for gsi, fd in self._fds.items() if gsi not in gsis}
        # Whoever was signalling one has looked it up under the controller's lock, which
        # this waits for: a number that is closed is nobody's any more.
        _empty(gone)
        self._interrupts.asserted()
        for fd in gone:
            os.close(fd)

    def _changed(self, event: InterruptEvent) -> None:
        """An interrupt changed. Under the controller's lock."""
        if event.kind is not InterruptKind.DEASSERTED:
            self._signal(event.gsi)

    def _signal(self, gsi: int) -> None:
        fd = self._fds.get(gsi)
        if fd is not None and _has_room(fd):
            with suppress(BlockingIOError):  # a counter that is full says enough
                os.eventfd_write(fd, 1)


def _has_room(eventfd: int) -> bool:
    """Whether a signal doesn't block, though the client may have made the eventfd block."""
    room = select.poll()
    room.register(eventfd, select.POLLOUT)
    return bool(room.poll(0))


def _empty(eventfds: Iterable[int]) -> None:
    """Let go whoever waits until there is room in one of them."""
    for fd in eventfds:
        with suppress(OSError):
            os.set_blocking(fd, False)
            if not _has_room(fd):
                os.eventfd_read(fd)
