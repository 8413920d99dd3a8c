"""Counts in spans of time that widen as a recording goes on.

How long a recording is shows only at its end, and it is gone through once. So a timeline
begins with narrow spans; when an event comes behind the last of them, two neighbours
become one, and there is room again. At the end at least half of the spans are in use.

    timeline = Timeline(spans=1024, columns=2)
    lane = timeline.lane("com1")
    lane[0][timeline.span(time_ns)] += 1

Invariants:
    All lanes have the same spans. A lane is a list for each column, with a count for each
    span; the lists stay the same objects.
    There are at most `LANES_MAX` lanes; what comes later shares one, `OTHERS`.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeAlias, TypeVar

Lane: TypeAlias = tuple[list[int], ...]

LANES_MAX = 512

_FIRST_WIDTH_BITS = 10

NameT = TypeVar("NameT", bound=Hashable)


class Timeline(Generic[NameT]):
    """Counts by lane, column and time.

    Attributes:
        width_ns: of a span; a power of two.
        lanes: by name.
        others: what didn't get a lane of its own; None if everything did.

    Args:
        spans: how many there are; even.
        columns: how many things are counted.
    """

    def __init__(self, spans: int, columns: int) -> None:
        self.lanes: dict[NameT, Lane] = {}
        self.others: Lane | None = None
        self._spans = spans
        self._columns = columns
        self._bits = _FIRST_WIDTH_BITS
        self._end_ns = spans << self._bits

    @property
    def width_ns(self) -> int:
        """How wide a span is."""
        return 1 << self._bits

    def span(self, time_ns: int) -> int:
        """Return which span a time is in, after making room for it.

        Args:
            time_ns: since the beginning; what is before it counts as in the first.
        """
        if time_ns < 0:
            return 0
        while time_ns >= self._end_ns:
            self._widen()
        return time_ns >> self._bits

    def lane(self, name: NameT) -> Lane:
        """Return a lane by its name."""
        lane = self.lanes.get(name)
        if lane is not None:
            return lane
        if len(self.lanes) < LANES_MAX:
            lane = self.lanes[name] = self._new_lane()
            return lane
        if self.others is None:
            self.others = self._new_lane()
        return self.others

    def _new_lane(self) -> Lane:
        return tuple([0] * self._spans for _ in range(self._columns))

    def _widen(self) -> None:
        self._bits += 1
        self._end_ns <<= 1
        empty = [0] * (self._spans // 2)
        for lane in (*self.lanes.values(), *([self.others] if self.others else [])):
            for counts in lane:
                counts[:] = [*map(int.__add__, counts[::2], counts[1::2]), *empty]


def cells(lane: Lane) -> list[list[int]]:
    """Return the spans of a lane in which there is anything: the span, then its columns."""
    return [[span, *counts] for span, counts in enumerate(zip(*lane, strict=True)) if any(counts)]
