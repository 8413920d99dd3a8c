"""Breakpoints and their hits.

breakpoint = host.debug.create_breakpoint(
    Breakpoint(AccessFilter(registers={"com1.LCR"}, operation=Operation.WRITE))
)
with host.debug.hits() as hits:
    for hit in hits:
        ...
        host.debug.resume(hit.id)
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from devicehost_client.debug.events import AccessFilter, TraceEvent
from devicehost_client.debug.views import DeviceState


class BreakpointEvent(enum.Enum):
    """What a breakpoint waits for."""

    ACCESS = "access"
    """An access that the filter lets through."""
    INTERRUPT = "interrupt"
    """A change of an interrupt."""
    FAULT = "fault"
    """An access in which a device raised."""


class BreakpointAction(enum.Enum):
    """What a hit does."""

    HOLD = "hold"
    """Hold the access, and with it its vCPU."""
    LOG = "log"
    """Only report the hit."""
    SAVE_STATE = "save-state"
    """Report the hit with the state of all devices."""
    RECORD = "record"
    """Report the hit, and arm the flight recorder if it isn't."""


@dataclass(frozen=True, slots=True)
class Breakpoint:
    """Where something is to stop.

    Attributes:
        filter: which accesses; not with INTERRUPT.
        event: what it waits for.
        gsi: the interrupt, with INTERRUPT; None for any.
        ignore: how many times to let it pass before the first hit.
        hits_max: how many hits until it is removed; 0: it stays.
        action: what a hit does.
        after: hold after the device was asked. So it is in any case for reads with a value
            in the filter, and for faults.
        limit_ms: the longest that an access is held, up to 3,600,000; 0 for the server's
            30 seconds. Then it goes on.
        id: the server's number for it, from 1 on; not looked at when it is made.
        matches: how often it matched so far.
        hits: how many of these were hits.
    """

    filter: AccessFilter = field(default_factory=AccessFilter)
    event: BreakpointEvent = BreakpointEvent.ACCESS
    gsi: int | None = None
    ignore: int = 0
    hits_max: int = 0
    action: BreakpointAction = BreakpointAction.HOLD
    after: bool = False
    limit_ms: int = 0
    id: int = 0
    matches: int = 0
    hits: int = 0


@dataclass(frozen=True, slots=True)
class Hit:
    """A breakpoint was hit, or a step has ended.

    Attributes:
        id: its number, from 1 on.
        breakpoint_id: the breakpoint; 0 after a step.
        event: what it stopped at: the access that is held, or the interrupt. None if it is
            of a kind that this client doesn't know.
        held: whether the access is held.
        after: whether the device was asked already.
        remaining_ms: how long it will be held from the moment when this was sent, if nobody
            resumes it.
        states: with SAVE_STATE: the states of all devices, by id.
    """

    id: int
    breakpoint_id: int
    event: TraceEvent | None
    held: bool
    after: bool = False
    remaining_ms: int = 0
    states: dict[str, DeviceState] = field(default_factory=dict)


class HoldEnd(enum.Enum):
    """Why a hold has ended."""

    UNKNOWN = "unknown"
    RESUMED = "resumed"
    """Somebody resumed it, or removed the breakpoint."""
    LIMIT = "limit"
    """Its limit was reached."""
    DRAINING = "draining"
    """The server stops."""


@dataclass(frozen=True, slots=True)
class HoldEnded:
    """A hold has ended: which hit's, and why."""

    hit_id: int
    why: HoldEnd
