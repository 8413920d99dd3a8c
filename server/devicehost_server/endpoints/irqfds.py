"""Interrupts of the bus as eventfds: what a client connects, it hears of, without a message."""

from __future__ import annotations

from errno import EINVAL

from devicehost.bus_regions import GSI_COUNT, IRQ_GSI
from devicehost.vfio_user import IrqAction, IrqData, SetIrqs
from devicehost_server.endpoints.eventfds import EventFds
from devicehost_server.endpoints.refused import Refused
from devicehost_server.model.interrupts import InterruptController, InterruptEvent, InterruptKind


class IrqFds:
    """The eventfds of one client, by GSI.

    Args:
        interrupts: whose changes they signal.
    """

    def __init__(self, interrupts: InterruptController) -> None:
        self._interrupts = interrupts
        # Changes are told under the controller's lock, which `asserted` takes.
        self._fds = EventFds(settle=interrupts.asserted)
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
        if fds:
            self._fds.connect(dict(zip(gsis, fds, strict=True)))
            for gsi in self._interrupts.asserted():
                if gsi in gsis:
                    self._fds.signal_here(gsi)
        elif request.count == 0:
            self._fds.disconnect_all()
        elif request.data is IrqData.EVENTFD:
            self._fds.disconnect(gsis)
        else:
            for gsi in chosen(request):
                self._fds.signal_here(gsi)
        return bool(fds)

    def close(self) -> None:
        """Disconnect everything, and connect nothing any more. Once is enough."""
        if self._fds.close():
            self._interrupts.unsubscribe(self._changed)

    def _changed(self, event: InterruptEvent) -> None:
        """An interrupt changed. Under the controller's lock."""
        if event.kind is not InterruptKind.DEASSERTED:
            self._fds.signal(event.gsi)


def chosen(request: SetIrqs) -> list[int]:
    """The subindexes to which something is to be done by hand: all, or those with a 1."""
    subindexes = range(request.start, request.start + request.count)
    if request.data is not IrqData.BOOL:
        return list(subindexes)
    return [each for each, wanted in zip(subindexes, request.bools, strict=True) if wanted]
