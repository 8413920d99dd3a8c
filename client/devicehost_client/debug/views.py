"""What a server tells of itself: a tree of its state, states of devices, activity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from devicehost.recording.events import Space


@dataclass(frozen=True, slots=True)
class Node:
    """A node of the tree of a server's state.

    Attributes:
        name: the last part of its path.
        value: as text; None if it has none.
        nodes: those below.
        cut: whether there are nodes below that were left out.
    """

    name: str
    value: str | None = None
    nodes: tuple[Node, ...] = ()
    cut: bool = False


@dataclass(frozen=True, slots=True)
class DeviceState:
    """The state of a device: its type, and what devices of that type say of themselves."""

    type: str
    state: dict[str, Any]


@dataclass(frozen=True, slots=True)
class PlaceActivity:
    """How one place was accessed in an interval.

    Attributes:
        device: the device's id; empty if there is none.
        register: its name; empty if it isn't known.
        space: the address space.
        address: of the first byte.
        reads: how often it was read.
        writes: how often it was written.
        failures: how many of these failed.
        took_ns: how long they took together on the server.
        longest_ns: the longest.
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
        places: the most accessed first; at most 1000, the others in one without a device.
        interrupts: those that changed or are asserted.
        latency: how many accesses took at most 2^n nanoseconds, for n from 0 on.
    """

    interval_ns: int
    places: tuple[PlaceActivity, ...]
    interrupts: tuple[InterruptActivity, ...]
    latency: tuple[int, ...]
