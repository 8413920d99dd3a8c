"""Where two processes run that block: together on one processor, or apart on two.

The scheduler leaves them as they happen to be, and waking across processors takes several
times as long. So what is compared has to be compared in the same place.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from measure import Case


@dataclass(frozen=True, slots=True)
class Placement:
    """Where to put them.

    Attributes:
        name: what the names of cases end with.
        note: for people.
        ours: the processor of this thread.
        theirs: that of the other process.
    """

    name: str
    note: str
    ours: int
    theirs: int


def placements() -> Iterator[Placement]:
    """All that this machine has."""
    first, *others = sorted(os.sched_getaffinity(0))
    yield Placement("together", "both on one processor", first, first)
    if others:
        yield Placement("apart", "each on a processor of its own", first, others[0])


def placed(case: Case, placement: Placement, peer: int) -> Case:
    """The same case, with its two processes put there during a round.

    Args:
        case: what is called, on this thread.
        placement: where.
        peer: the other process.
    """
    anywhere = os.sched_getaffinity(0)

    def begin() -> None:
        for task in Path(f"/proc/{peer}/task").iterdir():
            os.sched_setaffinity(int(task.name), {placement.theirs})
        os.sched_setaffinity(0, {placement.ours})
        case.begin()

    def end() -> None:
        case.end()
        os.sched_setaffinity(0, anywhere)
        for task in Path(f"/proc/{peer}/task").iterdir():
            os.sched_setaffinity(int(task.name), anywhere)

    return replace(
        case,
        name=f"{case.name}.{placement.name}",
        note=f"{case.note}, {placement.note}",
        beside=f"{case.beside}.{placement.name}" if case.beside else "",
        begin=begin,
        end=end,
    )
