"""Interrupts as eventfds: what a client connects, it hears of, without a message."""

from __future__ import annotations

import os
from contextlib import suppress
from errno import EINVAL

from devicehost.bus_regions import GSI_COUNT, IRQ_GSI
from devicehost.vfio_user import IrqAction, IrqData, SetIrqs
from devicehost_server.endpoints.refused import Refused
from devicehost_server.model.interrupts import InterruptController, InterruptEvent, InterruptKind


class IrqFds:
    """The eventfds of one client, by GSI.

    Args:
        interrupts: whose changes they signal.
    """

    def __init__(self, interrupts: InterruptController) -> None:
        self._interrupts = interrupts
        self._fds: dict[int, int] = {}  # replaced as a whole
        interrupts.subscribe(self._changed)

    def apply(self, request: SetIrqs, fds: tuple[int, ...]) -> bool:
        """Connect eventfds, disconnect them, or signal them by hand.

        Args:
            request: which, and what to do.
            fds: an eventfd for each subindex, or nothing to disconnect them.

        Returns:
            Whether `fds` are ours now, to close.

        Raises:
            Refused: there is no such interrupt, or it can't do that.
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
            self._disconnect(set(gsis) if request.count else set(self._fds))
            return False
        chosen = request.bools or b"\1" * request.count
        for gsi, signal in zip(gsis, chosen, strict=True):
            if signal:
                self._signal(gsi)
        return False

    def close(self) -> None:
        """Disconnect everything."""
        self._interrupts.unsubscribe(self._changed)
        self._disconnect(set(self._fds))

    def _connect(self, fds: dict[int, int]) -> None:
        for fd in fds.values():
            os.set_blocking(fd, False)
        self._disconnect(set(fds))
        self._fds = {**self._fds, **fds}
        for gsi in self._interrupts.asserted():
            if gsi in fds:
                self._signal(gsi)

    def _disconnect(self, gsis: set[int]) -> None:
        gone = [fd for gsi, fd in self._fds.items() if gsi in gsis]
        self._fds = {gsi: fd for gsi, fd in self._fds.items() if gsi not in gsis}
        # Whoever was signalling one has looked it up under the controller's lock, which
        # this waits for: a number that is closed is nobody's any more.
        self._interrupts.asserted()
        for fd in gone:
            os.close(fd)

    def _changed(self, event: InterruptEvent) -> None:
        """An interrupt changed. Under the controller's lock."""
        if event.kind is not InterruptKind.DEASSERTED:
            self._signal(event.gsi)

    def _signal(self, gsi: int) -> None:
        fd = self._fds.get(gsi)
        if fd is not None:
            # A counter that is full says enough, and a descriptor that is no eventfd is
            # its owner's mistake.
            with suppress(OSError):
                os.eventfd_write(fd, 1)
