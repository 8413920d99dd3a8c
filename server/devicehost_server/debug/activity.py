"""How often what is accessed, and how long that takes: counts for each interval.

Nothing is kept of single accesses, so a busy guest costs no more than a quiet one to watch.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from devicehost.recording import Event, Space
from devicehost.recording.events import Interrupt, InterruptKind
from devicehost_server.model.device_io import ReadableBuffer

PLACES_MAX = 1000
"""How many addresses are counted apart in one interval; more are counted as one."""

LATENCIES = 40
"""Classes of latency: up to 2**39 ns, nine minutes."""


@dataclass(slots=True)
class Counts:
    """How one address was accessed; times in nanoseconds."""

    reads: int = 0
    writes: int = 0
    failures: int = 0
    took_ns: int = 0
    longest_ns: int = 0


@dataclass(slots=True)
class Tally:
    """What was counted in one interval.

    Attributes:
        places: by whether it is a port, and address.
        others: all that would have been too many.
        latency: how many accesses took at most 2**n nanoseconds, and more than half of that.
        interrupts: how often each GSI was asserted or pulsed.
    """

    places: dict[tuple[bool, int], Counts] = field(default_factory=dict)
    others: Counts = field(default_factory=Counts)
    latency: list[int] = field(default_factory=lambda: [0] * LATENCIES)
    interrupts: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PlaceActivity:
    """How one place was accessed in an interval; times in nanoseconds.

    Attributes:
        device: whose it is; empty if nobody's.
        register: what is there, if that is known.
        space: the address space.
        address: of the first byte.
        reads, writes: how often.
        failures: how many of these failed.
        took_ns: how long they took together.
        longest_ns: how long the longest took.
    """

    device: str
    register: str
    space: Space
    address: int
    reads: int
    writes: int
    failures: int
    took_ns: int
    longest_ns: int


@dataclass(frozen=True, slots=True)
class InterruptActivity:
    """How often a GSI was asserted or pulsed in an interval, and whether it is asserted now."""

    gsi: int
    count: int
    asserted: bool


@dataclass(frozen=True, slots=True)
class Activity:
    """What was accessed in one interval.

    Attributes:
        interval_ns: how long it was.
        places: the most accessed first.
        interrupts: those that changed, or are asserted, by number.
        latency: how many accesses took at most 2**n nanoseconds, and more than half of
            that, for n from 0 on.
    """

    interval_ns: int
    places: tuple[PlaceActivity, ...]
    interrupts: tuple[InterruptActivity, ...]
    latency: tuple[int, ...]


class ActivityTap:
    """Counts. A `Tap`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tally = Tally()

    def access(  # noqa: PLR0917 # as of a Tap
        self,
        started_ns: int,
        took_ns: int,
        vcpu: int,
        write: bool,  # noqa: FBT001 # likewise
        pio: bool,  # noqa: FBT001 # likewise
        address: int,
        size: int,
        data: ReadableBuffer,
        status: int,
        /,
    ) -> None:
        """Count an access; a string access as one."""
        del started_ns, vcpu, size, data
        with self._lock:
            tally = self._tally
            counts = tally.places.get((pio, address))
            if counts is None:
                counts = tally.others
                if len(tally.places) < PLACES_MAX:
                    counts = tally.places[pio, address] = Counts()
            if write:
                counts.writes += 1
            else:
                counts.reads += 1
            if status:
                counts.failures += 1
            counts.took_ns += took_ns
            counts.longest_ns = max(counts.longest_ns, took_ns)
            tally.latency[min((took_ns - 1).bit_length() if took_ns else 0, LATENCIES - 1)] += 1

    def event(self, event: Event) -> None:
        """Count an interrupt."""
        if isinstance(event, Interrupt) and event.kind is not InterruptKind.DEASSERTED:
            with self._lock:
                interrupts = self._tally.interrupts
                interrupts[event.gsi] = interrupts.get(event.gsi, 0) + 1

    def take(self) -> Tally:
        """Return what was counted, and begin again."""
        with self._lock:
            tally, self._tally = self._tally, Tally()
        return tally
