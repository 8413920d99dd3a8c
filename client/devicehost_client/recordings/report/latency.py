"""How long accesses took: a histogram of constant size, and the slowest ones.

A bucket is an eighth of a power of two wide, so that what is read from it is wrong by at
most 12.5 percent; the largest value is kept as it is.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from devicehost.recording import Access, Annotated

_FINE_BITS = 3
_FINE = 1 << _FINE_BITS


class Latencies:
    """Times in nanoseconds.

    Attributes:
        count: how many there are.
        total_ns: their sum.
        max_ns: the longest.
    """

    __slots__ = ("_buckets", "count", "max_ns", "total_ns")

    def __init__(self) -> None:
        self._buckets: dict[int, int] = {}
        self.count = 0
        self.total_ns = 0
        self.max_ns = 0

    def add(self, took_ns: int) -> None:
        """Count one."""
        self.count += 1
        self.total_ns += took_ns
        self.max_ns = max(self.max_ns, took_ns)
        bucket = _bucket(took_ns)
        self._buckets[bucket] = self._buckets.get(bucket, 0) + 1

    def percentile(self, percent: float) -> int:
        """Return the time within which so many of the accesses were done; 0 if there is none."""
        wanted = self.count * percent / 100
        seen = 0
        for _low, high, count in self.histogram():
            seen += count
            if seen >= wanted:
                return min(high, self.max_ns)
        return 0

    def histogram(self) -> Iterator[tuple[int, int, int]]:
        """Go through the buckets: from, to (exclusive), how many."""
        for bucket in sorted(self._buckets):
            yield _low(bucket), _low(bucket + 1), self._buckets[bucket]


class Slowest:
    """The slowest accesses, the slowest first.

    Args:
        most: how many to keep.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._heap: list[tuple[int, int, Annotated]] = []

    def add(self, number: int, seen: Annotated, access: Access) -> None:
        """Look at one more; of equal ones, the earlier are kept."""
        heap = self._heap
        if len(heap) < self._most:
            heapq.heappush(heap, (access.took_ns, -number, seen))
        elif access.took_ns > heap[0][0]:
            heapq.heapreplace(heap, (access.took_ns, -number, seen))

    def __iter__(self) -> Iterator[tuple[int, Annotated]]:
        for _took_ns, number, seen in sorted(self._heap, reverse=True):
            yield -number, seen


def _bucket(value: int) -> int:
    if value < 2 * _FINE:
        return value
    bits = value.bit_length() - 1 - _FINE_BITS
    return (bits << _FINE_BITS) + (value >> bits)


def _low(bucket: int) -> int:
    if bucket < 2 * _FINE:
        return bucket
    bits = (bucket >> _FINE_BITS) - 1
    return (bucket - (bits << _FINE_BITS)) << bits
