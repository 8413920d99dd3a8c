"""How the interrupts of a device leave its function: as INTx, MSI or MSI-X.

On the server a device's interrupts are numbers of its own (GSIs). Each belongs to one of

    INTX    the pin: asserted while one of the device's lines is
    MSI     messages, vectors from 0 on
    MSIX    likewise

The client takes them by eventfds, which an endpoint signals when `sink` is called:

    vectors.attach(sink)                    # who signals, from now on
    vectors.connect(IrqKind.MSIX, [0, 1])   # the client has brought eventfds for these
    vectors.hold(IrqKind.MSIX, [0])         # SET_IRQS MASK
    vectors.release(IrqKind.MSIX, [0])      # SET_IRQS UNMASK: what waited is signalled
    vectors.disconnect(IrqKind.MSIX, [1])
    vectors.detach(sink)                    # the client is gone

INTx is a level, and an eventfd is none. So it is as with VFIO: when INTx is signalled, it
is held as well, and the client releases it when the guest has served it; if it is still
asserted then, it is signalled again.

Invariants:
    INTx is signalled only while it is asserted, not disabled by the command register, and
    neither MSI nor MSI-X is enabled.
    A message is signalled once for each time that it is raised, or less often if it is
    raised again while it waits. When it waits is described in `messages`.
    A change by the driver takes effect before its access ends.
"""

from __future__ import annotations

import enum
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, TypeAlias

from devicehost_server.model.interrupts import InterruptKind
from devicehost_server.pci.messages import Messages
from devicehost_server.pci.msi import Msi
from devicehost_server.pci.msix import Msix


class IrqKind(enum.IntEnum):
    """The ways of interrupting, by the numbers that VFIO gives them."""

    INTX = 0
    MSI = 1
    MSIX = 2


Sink: TypeAlias = Callable[[IrqKind, int], None]
"""Signals the client's eventfd for a vector, which is connected. It is called under a lock:
it must return at once, not raise, and not call back."""


def _nowhere(kind: IrqKind, vector: int) -> None:
    """Signal nobody."""
    del kind, vector


class Vectors:
    """The interrupts of one function. Safe to use from any thread.

    Args:
        has_pin: whether there is INTx.
        msi: the capability, if there is one.
        msix: likewise.
        intx_disabled: tells whether the command register disables INTx.
    """

    def __init__(
        self,
        *,
        has_pin: bool,
        msi: Msi | None,
        msix: Msix | None,
        intx_disabled: Callable[[], bool],
    ) -> None:
        self._lock = threading.Lock()
        self._sink: Sink = _nowhere
        self._messages: dict[IrqKind, Messages] = {}
        if msi is not None:
            self._messages[IrqKind.MSI] = msi
        if msix is not None:
            self._messages[IrqKind.MSIX] = msix
        self._intx_disabled = intx_disabled
        self._has_pin = has_pin
        self._routes: dict[int, tuple[IrqKind, int]] = {}  # by GSI
        self._routed: Counter[IrqKind] = Counter()
        self._asserting: set[int] = set()  # GSIs of the pin
        self._intx_connected = self._intx_held = False
        self._intx_delivered = 0

    @property
    def asserted(self) -> bool:
        """Whether the device asserts INTx, disabled or not."""
        return bool(self._asserting)

    @property
    def gsis(self) -> Collection[int]:
        """The numbers of the device's interrupts on the server."""
        return self._routes.keys()

    def count(self, kind: IrqKind) -> int:
        """Return how many vectors of a kind there are."""
        if kind is IrqKind.INTX:
            return int(self._has_pin)
        messages = self._messages.get(kind)
        return messages.count if messages else 0

    def route(self, gsi: int, kind: IrqKind) -> None:
        """Let the server's interrupt `gsi` be the next one of a kind; of INTx there is one."""
        self._routes[gsi] = kind, self._routed[kind]
        self._routed[kind] += 1

    # From the device.

    def changed(self, gsi: int, kind: InterruptKind) -> None:
        """Take a change of an interrupt on the server; those of other devices are ignored.

        A message goes out when its GSI is pulsed or asserted.
        """
        route = self._routes.get(gsi)
        if route is None:
            return
        irq, vector = route
        with self._lock:
            if irq is not IrqKind.INTX:
                messages = self._messages.get(irq)  # none if the function hides what it has
                if messages is not None and kind is not InterruptKind.DEASSERTED:
                    messages.raise_(vector)
            elif kind is InterruptKind.ASSERTED:
                self._asserting.add(gsi)
            elif kind is InterruptKind.DEASSERTED:
                self._asserting.discard(gsi)
            self._settle()

    # From the driver.

    def settle(self) -> None:
        """Signal what a change of the function's registers lets through."""
        with self._lock:
            self._settle()

    # From the client.

    def attach(self, sink: Sink) -> None:
        """Signal by `sink` from now on. Nothing is connected or held yet."""
        with self._lock:
            self._forget_client()
            self._sink = sink

    def detach(self, sink: Sink) -> None:
        """Signal nobody by `sink` any more. No call of it begins after this returns.

        If another client has been attached meanwhile, that one stays.
        """
        with self._lock:
            if self._sink == sink:
                self._forget_client()

    def connect(self, kind: IrqKind, vectors: Iterable[int]) -> None:
        """The client takes `vectors`, which are below `count(kind)`; signal what waits."""
        with self._lock:
            if kind is IrqKind.INTX:
                self._intx_connected, self._intx_held = True, False
            else:
                self._messages[kind].connected |= _bits(vectors)
            self._settle()

    def disconnect(self, kind: IrqKind, vectors: Iterable[int]) -> None:
        """The client takes `vectors` no more. The sink isn't called for them after this."""
        with self._lock:
            if kind is IrqKind.INTX:
                self._intx_connected = False
            else:
                self._messages[kind].connected &= ~_bits(vectors)

    def hold(self, kind: IrqKind, vectors: Iterable[int]) -> None:
        """The client masks `vectors`."""
        with self._lock:
            if kind is IrqKind.INTX:
                self._intx_held = True
            else:
                self._messages[kind].held |= _bits(vectors)

    def release(self, kind: IrqKind, vectors: Iterable[int]) -> None:
        """The client masks `vectors` no more; signal what waited."""
        with self._lock:
            if kind is IrqKind.INTX:
                self._intx_held = False
            else:
                self._messages[kind].held &= ~_bits(vectors)
            self._settle()

    def view(self) -> Mapping[str, Any]:
        """Return what somebody who debugs may want to see."""
        with self._lock:
            shown: dict[str, Any] = {}
            if self._has_pin:
                shown["intx"] = {
                    "asserted": self.asserted,
                    "disabled": self._intx_disabled(),
                    "held": self._intx_held,
                    "connected": self._intx_connected,
                    "delivered": self._intx_delivered,
                }
            for kind, messages in self._messages.items():
                shown[kind.name.lower()] = messages.view()
            return shown

    # Under the lock.

    def _settle(self) -> None:
        by_messages = False
        for kind, messages in self._messages.items():
            by_messages |= messages.enabled
            for vector in messages.take():
                self._sink(kind, vector)
        if self._intx_connected and self._asserting and not self._intx_held and not by_messages:
            if self._intx_disabled():
                return
            self._intx_held = True
            self._intx_delivered += 1
            self._sink(IrqKind.INTX, 0)

    def _forget_client(self) -> None:
        self._sink = _nowhere
        self._intx_connected = self._intx_held = False
        for messages in self._messages.values():
            messages.connected = messages.held = 0


def _bits(vectors: Iterable[int]) -> int:
    bits = 0
    for vector in vectors:
        bits |= 1 << vector
    return bits
