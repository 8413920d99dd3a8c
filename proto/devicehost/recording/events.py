"""What can be seen of a VM's devices: the events of a trace, and of a recording.

Times are in nanoseconds of the server's monotonic clock. Numbers in `data` are
little-endian. A device is called by its id.

Three kinds of events exist only in recordings, for replaying: what a device learned from
outside of the bus (the time, bytes that came in), what made it act without an access (a
timer, news of its stream), and what it told the outside. Of one device, they stand in the
order in which they happened, and those of an access, or of a waking, before it: an event
is written when it has ended.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TypeAlias

from devicehost.access_status import AccessStatus


class Space(enum.Enum):
    """An address space."""

    PIO = "pio"
    MMIO = "mmio"


class Operation(enum.Enum):
    """What an access does."""

    READ = "read"
    WRITE = "write"


class InterruptKind(enum.Enum):
    """What happened to a GSI."""

    ASSERTED = "asserted"
    DEASSERTED = "deasserted"
    PULSED = "pulsed"


@dataclass(frozen=True, slots=True)
class Access:
    """An access that has ended.

    Attributes:
        time_ns: when it began.
        took_ns: how long it took on the server.
        vcpu: whose it was; None if that isn't known.
        space: the address space.
        operation: read or write.
        address: of its first byte.
        size: of one operand, in bytes; `data` is longer than that in a string access.
        data: what was read or written; of a failed read, nothing.
        status: how it ended.
    """

    time_ns: int
    took_ns: int
    vcpu: int | None
    space: Space
    operation: Operation
    address: int
    size: int
    data: bytes
    status: AccessStatus = AccessStatus.OK


@dataclass(frozen=True, slots=True)
class Interrupt:
    """A GSI changed, because of `device` (empty: nobody's)."""

    time_ns: int
    gsi: int
    kind: InterruptKind
    device: str


@dataclass(frozen=True, slots=True)
class Dma:
    """A device accessed guest memory at a guest-physical address."""

    time_ns: int
    device: str
    operation: Operation
    address: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Plugged:
    """A device came; `device` is a JSON object as in the header of a recording."""

    time_ns: int
    device: dict[str, object]


@dataclass(frozen=True, slots=True)
class Unplugged:
    """A device left the bus."""

    time_ns: int
    device: str


@dataclass(frozen=True, slots=True)
class Learned:
    """A device was told something when it asked.

    Attributes:
        device: which.
        source: what it asked: `now` and `wall` (a clock, in ns), `read` (bytes that came
            in), `write` (how many of its bytes were taken), `pending`, `attached`.
        value: the answer.
    """

    time_ns: int
    device: str
    source: str
    value: int | bytes


@dataclass(frozen=True, slots=True)
class Woken:
    """A device was called by other than an access, and has returned.

    Attributes:
        device: which.
        source: `stream`, or `timer:` and the name of the function that it was set for.
    """

    time_ns: int
    device: str
    source: str


@dataclass(frozen=True, slots=True)
class Told:
    """A device gave `data` to its stream, which took all of it."""

    time_ns: int
    device: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Lost:
    """So many events are missing here."""

    count: int


Event: TypeAlias = Access | Interrupt | Dma | Plugged | Unplugged | Learned | Woken | Told | Lost
