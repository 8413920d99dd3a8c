"""Registers: how often each is accessed, how long that takes, and when it happens."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from devicehost.recording import Access, Annotated, Operation
from devicehost_client.recordings.report.latency import Latencies
from devicehost_client.recordings.report.timeline import Lane, Timeline
from devicehost_client.recordings.words import where

SPANS = 128
REGISTERS_MAX = 400
"""How many registers are told apart; what comes later is only counted."""

ROWS_MAX = 200
"""How many registers are shown."""


@dataclass(slots=True)
class _Register:
    lane: Lane
    reads: int = 0
    writes: int = 0
    failed: int = 0
    took: Latencies = field(default_factory=Latencies)


class HotRegisters:
    """Counts accesses by register; where there is none, by offset."""

    def __init__(self) -> None:
        self._timeline: Timeline[tuple[str, str]] = Timeline(SPANS, 1)
        self._registers: dict[tuple[str, str], _Register] = {}
        self._elsewhere = 0

    def see(self, since_ns: int, seen: Annotated, access: Access) -> None:
        """Look at an access, so many nanoseconds from the beginning."""
        key = (seen.device, where(seen))
        register = self._registers.get(key)
        if register is None:
            if len(self._registers) >= REGISTERS_MAX:
                self._elsewhere += 1
                return
            register = self._registers[key] = _Register(self._timeline.lane(key))
        register.lane[0][self._timeline.span(since_ns)] += 1
        register.took.add(access.took_ns)
        if access.status:
            register.failed += 1
        if access.operation is Operation.READ:
            register.reads += 1
        else:
            register.writes += 1

    def shape(self) -> dict[str, Any]:
        """What the page gets: those with the most accesses, by device."""
        hottest = sorted(self._registers.items(), key=lambda each: -each[1].took.count)
        omitted = sum(each.took.count for _, each in hottest[ROWS_MAX:])
        return {
            "width_ns": self._timeline.width_ns,
            "rows": [
                {
                    "device": device,
                    "name": name,
                    "reads": each.reads,
                    "writes": each.writes,
                    "failed": each.failed,
                    "p50_ns": each.took.percentile(50),
                    "p99_ns": each.took.percentile(99),
                    "max_ns": each.took.max_ns,
                    "strip": each.lane[0],
                }
                for (device, name), each in hottest[:ROWS_MAX]
            ],
            "omitted": omitted + self._elsewhere,
        }
