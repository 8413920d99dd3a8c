"""A breakpoint: what it waits for, what a hit does, and one that is in effect."""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

from devicehost.access_status import AccessStatus
from devicehost.recording.events import Operation
from devicehost_server.debug.filters import ANY, AccessFilter
from devicehost_server.debug.matching import Matcher
from devicehost_server.debug.pending import PendingAccess
from devicehost_server.model.errors import BadRequest

HOLD_LIMIT_MAX_MS = 3_600_000


class BreakpointEvent(enum.Enum):
    """What a breakpoint waits for."""

    ACCESS = "access"
    """An access that the filter lets through."""
    INTERRUPT = "interrupt"
    """A change of an interrupt."""
    FAULT = "fault"
    """An access, likewise, in which a device raised."""


class BreakpointAction(enum.Enum):
    """What a hit does, besides being reported."""

    HOLD = "hold"
    LOG = "log"
    """Nothing."""
    SAVE_STATE = "save-state"
    """The report has the states of all devices."""
    RECORD = "record"
    """Arm the flight recorder if it isn't."""


class ResumeAction(enum.Enum):
    """How an access goes on."""

    CONTINUE = "continue"
    STEP = "step"
    """And the next access of the same vCPU, to any device, is held before it is made."""


@dataclass(frozen=True, slots=True)
class Breakpoint:
    """Where something is to stop.

    Attributes:
        filter: which accesses; not with INTERRUPT.
        event: what it waits for.
        gsi: the interrupt; None for any. Only with INTERRUPT.
        ignore: how many times to let it pass before the first hit.
        hits_max: how many hits until it is removed; 0: it stays.
        action: what a hit does.
        after: hit after the device was asked. So it is in any case for faults, for failed
            accesses, and for reads with a value in the filter.
        limit_ms: the longest that an access is held, in milliseconds, at most 3,600,000;
            0 for the server's own limit. Then it goes on.
        id: its number, from 1 on; not looked at when it is made, and so the next two.
        matches: how often it matched so far.
        hits: how many of these were hits.
    """

    filter: AccessFilter = ANY
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


class Armed:
    """A breakpoint that is in effect."""

    def __init__(self, told: Breakpoint, matcher: Matcher, limit_ms: int) -> None:
        self.told = told
        self.id = told.id
        self.matcher = matcher
        self.limit_ms = told.limit_ms or limit_ms
        self.deleted = False
        self._matches = 0
        self._hits = 0
        self._writes_late = told.after or told.filter.failed
        self._reads_late = self._writes_late or bool(told.filter.mask)

    @property
    def is_spent(self) -> bool:
        """Whether it had all its hits."""
        return 0 < self.told.hits_max <= self._hits

    def is_wanted(self) -> bool:
        """Whether nobody has deleted it. What it holds when it is spent is held on."""
        return not self.deleted

    def present(self) -> Breakpoint:
        """The breakpoint with its counts."""
        return replace(self.told, matches=self._matches, hits=self._hits)

    def count(self) -> bool:
        """Count a match, and return whether it is a hit. The caller sees to its turn."""
        if self.deleted or self.is_spent:
            return False
        self._matches += 1
        if self._matches <= self.told.ignore:
            return False
        self._hits += 1
        return True

    def matches_before(self, access: PendingAccess) -> bool:
        """Whether an access that is about to be made matches, and is to stop there."""
        if self.told.event is BreakpointEvent.FAULT or self._is_late(access):
            return False
        return self.matcher.before(access)

    def matches_after(self, access: PendingAccess) -> bool:
        """Whether an access that was made matches, and is to stop there."""
        if self.told.event is BreakpointEvent.FAULT:
            stops = access.status is AccessStatus.DEVICE_FAULT
        else:
            stops = self._is_late(access)
        return stops and self.matcher.after(access)

    def _is_late(self, access: PendingAccess) -> bool:
        return self._reads_late if access.operation is Operation.READ else self._writes_late


def check_breakpoint(wanted: Breakpoint) -> None:
    """Check all but the filter.

    Raises:
        BadRequest: a field can't be. `field` is its name in the API.
    """
    waits_for_interrupts = wanted.event is BreakpointEvent.INTERRUPT
    if waits_for_interrupts and wanted.filter != ANY:
        raise _bad("filter", "set", "none, with an interrupt")
    if wanted.gsi is not None and (not waits_for_interrupts or wanted.gsi < 0):
        raise _bad("gsi", wanted.gsi, "0 and up, with an interrupt; else none")
    for field, count in (("ignore", wanted.ignore), ("hits_max", wanted.hits_max)):
        if count < 0:
            raise _bad(field, count, "0 and up")
    if not 0 <= wanted.limit_ms <= HOLD_LIMIT_MAX_MS:
        raise _bad("limit_ms", wanted.limit_ms, f"0 to {HOLD_LIMIT_MAX_MS}")


def _bad(field: str, value: object, allowed: str) -> BadRequest:
    return BadRequest(
        f"{field} of a breakpoint can't be {value}; allowed: {allowed}",
        field=field,
        value=str(value),
    )
