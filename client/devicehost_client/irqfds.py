"""Eventfds that the server signals: interrupts without a message, and without the VMM's code.

An eventfd that KVM listens to (KVM_IRQFD) brings a device's interrupt straight into the
guest. It is signalled when the interrupt is asserted, and by each pulse; what falls makes
no signal, so a level that the guest may find low again needs callbacks instead.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from devicehost.bus_regions import GSI_COUNT, IRQ_GSI, LIMITS
from devicehost.vfio_user import IrqAction, IrqData, SetIrqs
from devicehost_client.errors import NotLocal
from devicehost_client.transports.link import Link, Refusal
from devicehost_client.transports.local import LocalTransport


class IrqFds:
    """The eventfds of one VMM, by GSI. Safe to use from any thread."""

    def __init__(self) -> None:
        self._way: LocalTransport | None = None
        self._fds: dict[int, int] = {}  # ours

    @property
    def is_available(self) -> bool:
        """Whether eventfds can be attached."""
        return self._way is not None

    def use(self, way: LocalTransport) -> None:
        """Hand them over by this way; without one, none can be attached."""
        self._way = way

    def attach(self, eventfds: Mapping[int, int]) -> None:
        """Have eventfds signalled, each by its GSI. They are duplicated; yours stay yours.

        Raises:
            NotLocal: accesses don't go by the local socket.
            ValueError: there is no such GSI, or a descriptor is no eventfd. None of these
                GSIs has an eventfd then.
            ConnectionLost, AccessTimeout: the server went away meanwhile; the next one
                signals them.
        """
        with self._local().handing_over() as link:
            _check(eventfds)
            ours = _duplicates(eventfds)
            self._close(ours)
            self._fds.update(ours)
            if link is not None:
                try:
                    _connect(link, ours)
                except Refusal as error:
                    self._close(ours)
                    _disconnect(link, ours)  # those before the one that was refused
                    raise ValueError(f"eventfds {dict(eventfds)}: {error}") from error

    def detach(self, gsis: Iterable[int]) -> None:
        """Have the eventfds of these GSIs not signalled any more.

        Raises:
            NotLocal, ConnectionLost, AccessTimeout: as for `attach`.
        """
        with self._local().handing_over() as link:
            gone = [gsi for gsi in gsis if gsi in self._fds]
            self._close(gone)
            if link is not None:
                _disconnect(link, gone)

    def hand_over(self, link: Link) -> None:
        """Give all of them to a new server."""
        _connect(link, self._fds)

    def close(self) -> None:
        """Close them. The server has let go of them when the connection ends."""
        self._close(list(self._fds))

    def _local(self) -> LocalTransport:
        if self._way is None:
            raise NotLocal("eventfds go over the local socket, and accesses go over gRPC")
        return self._way

    def _close(self, gsis: Iterable[int]) -> None:
        for gsi in gsis:
            if gsi in self._fds:
                os.close(self._fds.pop(gsi))


def _check(eventfds: Mapping[int, int]) -> None:
    for gsi in eventfds:
        if not 0 <= gsi < GSI_COUNT:
            raise ValueError(f"GSI {gsi} is not allowed; allowed: 0 to {GSI_COUNT - 1}")


def _duplicates(eventfds: Mapping[int, int]) -> dict[int, int]:
    """Duplicate all of them, or none."""
    ours: dict[int, int] = {}
    try:
        for gsi, fd in eventfds.items():
            ours[gsi] = os.dup(fd)
    except OSError as error:
        for fd in ours.values():
            os.close(fd)
        raise ValueError(f"eventfds {dict(eventfds)}: {error}") from error
    return ours


def _disconnect(link: Link, gsis: Iterable[int]) -> None:
    for gsi in gsis:
        link.call(SetIrqs(IRQ_GSI, gsi, 1, IrqAction.TRIGGER, IrqData.EVENTFD))


def _connect(link: Link, eventfds: Mapping[int, int]) -> None:
    """Send them, as many in one message as can be: GSIs that follow one another."""
    gsis = sorted(eventfds)
    while gsis:
        first = gsis[0]
        run = [gsi for n, gsi in enumerate(gsis[: LIMITS.max_msg_fds]) if gsi == first + n]
        request = SetIrqs(IRQ_GSI, first, len(run), IrqAction.TRIGGER, IrqData.EVENTFD)
        link.call(request, [eventfds[gsi] for gsi in run])
        del gsis[: len(run)]
