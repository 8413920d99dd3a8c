"""Timing, and what is kept of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Result:
    """One line of the table.

    Attributes:
        name: stable, for programs: `grpc.stream.read4`.
        p50_ns: the median.
        p99_ns: the 99th percentile; of batches, where one call is too short to be timed.
        per_second: calls per second that the median makes possible.
        floor: the name of the result that this one can't be faster than, or "".
        ratio: the median, in medians of the floor.
        note: what is measured, for people.
    """

    name: str
    p50_ns: float
    p99_ns: float
    per_second: float
    note: str
    floor: str = ""
    ratio: float | None = None


def result(
    name: str, samples_ns: Sequence[float], note: str, floor: Result | None = None
) -> Result:
    """Summarize samples, each the time of one call in nanoseconds."""
    ordered = sorted(samples_ns)
    median = ordered[len(ordered) // 2]
    return Result(
        name=name,
        p50_ns=median,
        p99_ns=ordered[len(ordered) * 99 // 100],
        per_second=1e9 / median,
        note=note,
        floor=floor.name if floor else "",
        ratio=median / floor.p50_ns if floor else None,
    )


def time_each(call: Callable[[], object], count: int) -> list[float]:
    """Time `count` calls one by one, for calls of many microseconds."""
    now = time.perf_counter_ns
    samples = []
    for _ in range(count):
        started = now()
        call()
        samples.append(float(now() - started))
    return samples


def time_batches(run: Callable[[int], object], count: int, batch: int) -> list[float]:
    """Time `count` batches, for calls that are too short to be timed one by one.

    Args:
        run: makes as many calls as it is told, in a loop of its own.
        count: how many batches.
        batch: how many calls in one.
    """
    now = time.perf_counter_ns
    samples = []
    for _ in range(count):
        started = now()
        run(batch)
        samples.append((now() - started) / batch)
    return samples
