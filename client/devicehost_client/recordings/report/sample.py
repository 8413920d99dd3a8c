"""The events that are shown in full: the first, the last, and those around something.

Invariants:
    At most `FIRST + LAST + AROUND_MAX` events are kept.
    What is kept of the first and the last is without gaps.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator

from devicehost.recording import Annotated

FIRST = 4000
LAST = 4000
AROUND_MAX = 4000

_NEAR = 12
"""Events before and after one that is marked."""


class Sample:
    """Chooses events.

    Args:
        numbers: events that are to be seen with what is around them.
    """

    def __init__(self, numbers: Iterable[int] = ()) -> None:
        self._first: list[tuple[int, Annotated]] = []
        self._around: dict[int, Annotated] = {}
        self._last: deque[tuple[int, Annotated]] = deque(maxlen=LAST)
        self._begins = sorted(max(0, number - _NEAR) for number in set(numbers))
        self._until = -1

    def see(self, number: int, seen: Annotated) -> None:
        """Look at the next event."""
        if number < FIRST:
            self._first.append((number, seen))
            return
        self._last.append((number, seen))
        if number <= self._until:
            self._keep(number, seen)
        elif self._begins:
            at = bisect_right(self._begins, number) - 1
            if at >= 0 and number <= self._begins[at] + 2 * _NEAR:
                self._keep(number, seen)

    def mark(self, number: int) -> None:
        """Keep what is around an event that was seen, as far as it isn't forgotten."""
        self._until = max(self._until, number + _NEAR)
        for each, seen in self._last:
            if abs(each - number) <= _NEAR:
                self._keep(each, seen)

    def __iter__(self) -> Iterator[tuple[int, Annotated]]:
        """Go through what is kept, in order."""
        kept = {**dict(self._first), **self._around, **dict(self._last)}
        yield from sorted(kept.items(), key=lambda each: each[0])

    def _keep(self, number: int, seen: Annotated) -> None:
        if len(self._around) < AROUND_MAX:
            self._around[number] = seen
