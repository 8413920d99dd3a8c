"""Faults: ways for a device to misbehave.

host.debug.create_fault(
    Fault(StuckAtZero(0x20), AccessFilter(registers={"com1.LSR"}), percent=10, seed=7)
)
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from devicehost_client.debug.events import AccessFilter


@dataclass(frozen=True, slots=True)
class Delay:
    """An access takes longer by so many microseconds, up to 10,000,000."""

    microseconds: int

    def __str__(self) -> str:
        return f"delay {self.microseconds} us"


@dataclass(frozen=True, slots=True)
class StuckAtOne:
    """These bits of what is read are always set."""

    mask: int

    def __str__(self) -> str:
        return f"stuck at one {self.mask:#x}"


@dataclass(frozen=True, slots=True)
class StuckAtZero:
    """These bits of what is read are always clear."""

    mask: int

    def __str__(self) -> str:
        return f"stuck at zero {self.mask:#x}"


@dataclass(frozen=True, slots=True)
class Gone:
    """Nobody answers, as if no device were there."""

    def __str__(self) -> str:
        return "gone"


@dataclass(frozen=True, slots=True)
class Failing:
    """The device fails, as if it had raised."""

    def __str__(self) -> str:
        return "failing"


FaultKind: TypeAlias = Delay | StuckAtOne | StuckAtZero | Gone | Failing


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that goes wrong in the accesses of a filter.

    Attributes:
        kind: what goes wrong; None if it is of a kind that this client doesn't know.
        filter: which accesses.
        percent: how many of each hundred, chosen by the seed; 0 for all.
        seed: what chance begins with: the same seed makes the same choices.
        id: the server's number for it, from 1 on; not looked at when it is made.
        count: how many accesses it has spoiled.
    """

    kind: FaultKind | None
    filter: AccessFilter = field(default_factory=AccessFilter)
    percent: int = 0
    seed: int = 0
    id: int = 0
    count: int = 0
