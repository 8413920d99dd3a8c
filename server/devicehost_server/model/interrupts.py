"""Interrupts, from a device's point of view and up to where they leave the server.

A device holds an `InterruptLine` and knows nothing of how interrupts travel. Lines end
in the `InterruptController`, which is the state of all interrupts of one VM: the level
of each global system interrupt (GSI), as the wired OR of its lines. Listeners, one for
each client that asked, are told each change of it.

    >>> controller = InterruptController()
    >>> line = controller.line(4, "uart0")
    >>> line.set_level(asserted=True)
    >>> controller.asserted()
    [4]

Invariants:
    A GSI that several lines share is asserted while at least one of them is.
    Changes are numbered from 1 without a gap, and every listener gets each one, in order.
"""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias


class InterruptKind(enum.Enum):
    """What happened to a GSI."""

    ASSERTED = "asserted"
    DEASSERTED = "deasserted"
    PULSED = "pulsed"
    """An edge with no level to hold: a message-signalled interrupt."""


@dataclass(frozen=True, slots=True)
class InterruptEvent:
    """One change: the `generation`-th of this controller, on `gsi`.

    `device` is the one whose line, or message, made it; empty if that was none.
    """

    generation: int
    gsi: int
    kind: InterruptKind
    device: str


InterruptListener: TypeAlias = Callable[[InterruptEvent], None]
"""Called under the controller's lock: it must return at once, not raise, and not call back."""


class InterruptController:
    """The interrupts of one VM. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._generation = 0
        self._asserting: dict[int, set[InterruptLine]] = {}  # the lines, by GSI
        self._listeners: list[InterruptListener] = []

    @property
    def generation(self) -> int:
        """The number of the last change; 0 before the first."""
        return self._generation

    def line(self, gsi: int, device: str) -> InterruptLine:
        """Return a new line from `device` to `gsi`; it starts deasserted."""
        return InterruptLine(self, gsi, device)

    def asserted(self) -> list[int]:
        """Return the GSIs that are asserted now, in ascending order."""
        with self._lock:
            return sorted(self._asserting)

    def subscribe(self, listener: InterruptListener) -> tuple[int, list[int]]:
        """Tell `listener` every change from now on.

        Returns:
            The generation and the asserted GSIs at this moment, which the listener's
            first event follows without a gap.
        """
        with self._lock:
            self._listeners.append(listener)
            return self._generation, sorted(self._asserting)

    def unsubscribe(self, listener: InterruptListener) -> None:
        """Tell `listener` nothing more. No call to it begins after this returns."""
        with self._lock:
            self._listeners.remove(listener)

    def pulse(self, gsi: int, device: str = "") -> None:
        """Fire the message-signalled interrupt `gsi` once, for `device`."""
        with self._lock:
            self._announce(gsi, InterruptKind.PULSED, device)

    def lower_all(self, device: str) -> None:
        """Deassert all lines of a device that is gone, whatever it left them at."""
        with self._lock:
            lines = {line for lines in self._asserting.values() for line in lines}
        for line in lines:
            if line.device == device:
                line.set_level(asserted=False)

    def _line_changed(self, line: InterruptLine, *, asserted: bool) -> None:
        """A line changed its level. The caller holds `_lock`."""
        gsi = line.gsi
        lines = self._asserting.setdefault(gsi, set())
        was_asserted = bool(lines)
        if asserted:
            lines.add(line)
        else:
            lines.discard(line)
        if not lines:
            del self._asserting[gsi]
        if was_asserted != bool(lines):
            kind = InterruptKind.ASSERTED if lines else InterruptKind.DEASSERTED
            self._announce(gsi, kind, line.device)

    def _announce(self, gsi: int, kind: InterruptKind, device: str) -> None:
        self._generation += 1
        event = InterruptEvent(self._generation, gsi, kind, device)
        for listener in self._listeners:
            listener(event)


class InterruptLine:
    """One device's wire to one GSI. Safe to use from any thread."""

    __slots__ = ("_asserted", "_controller", "device", "gsi")

    def __init__(self, controller: InterruptController, gsi: int, device: str) -> None:
        self._controller = controller
        self._asserted = False
        self.gsi = gsi
        self.device = device

    @property
    def asserted(self) -> bool:
        """Whether this line (not the GSI, which others may share) is asserted."""
        return self._asserted

    def set_level(self, *, asserted: bool) -> None:
        """Assert or deassert; the level it has already is no change."""
        if asserted == self._asserted:
            return  # the common case needs no lock: a device calls under its own
        controller = self._controller
        with controller._lock:  # noqa: SLF001 # the two classes are one state
            if asserted != self._asserted:
                self._asserted = asserted
                controller._line_changed(self, asserted=asserted)  # noqa: SLF001 # likewise

    def pulse(self) -> None:
        """Fire once, as an edge: for message-signalled interrupts."""
        self._controller.pulse(self.gsi, self.device)
