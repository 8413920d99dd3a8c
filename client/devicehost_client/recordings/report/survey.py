"""Everything that the page shows, from going through a recording once.

Memory is constant: all is counted, and the events that are kept are a bounded sample. What
the page gets is JSON, in which times are nanoseconds since the recording's first event.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from typing import Any

from devicehost.recording import Access, Annotated, DeviceRecord, Dma, Interrupt, Lost, Operation
from devicehost_client.recordings.lint import Finding, Linter, make_rules
from devicehost_client.recordings.report.differences import Differences
from devicehost_client.recordings.report.hot import HotRegisters
from devicehost_client.recordings.report.latency import Latencies, Slowest
from devicehost_client.recordings.report.sample import Sample
from devicehost_client.recordings.report.timeline import Lane, Timeline, cells
from devicehost_client.recordings.source import Source
from devicehost_client.recordings.words import decoded_text, event_text, vcpu_text, where

SPANS = 2048
SLOWEST = 40
FINDINGS_MAX = 300

_NO_DIFFERENCES = Differences((), 0)

_READS, _WRITES, _FAILED, _MARKS, _BUSY_NS = range(5)
_COLUMNS = 5


class Survey:
    """Goes through a recording.

    Args:
        source: the recording.
        differences: of a replay, if there was one.
    """

    def __init__(self, source: Source, differences: Differences | None = None) -> None:
        self._source = source
        self._differences = differences
        kept = (differences or _NO_DIFFERENCES).kept
        self._sample = Sample(each.event for each in kept)
        self._linter = Linter(make_rules(), on_first=self._sample.mark)
        self._kinds: Counter[str] = Counter()
        self._timeline: Timeline[tuple[str, str]] = Timeline(SPANS, _COLUMNS)
        self._took: dict[str, Latencies] = {}
        self._all_took = Latencies()
        self._slowest = Slowest(SLOWEST)
        self._hot = HotRegisters()
        self._totals = [0] * _COLUMNS
        self._end_ns = 0
        for device in source.header.devices:
            self._timeline.lane(("device", device.id))

    def run(self) -> dict[str, Any]:
        """Go through all events; return what the page gets."""
        for number, seen in self._source:
            self._sample.see(number, seen)
            self._linter.see(number, seen)
            self._see(number, seen)
        return self._shape()

    def _see(self, number: int, seen: Annotated) -> None:
        event = seen.event
        self._kinds[type(event).__name__.lower()] += 1
        if isinstance(event, Lost):
            return
        since_ns = event.time_ns - self._source.begin_ns
        self._end_ns = max(self._end_ns, since_ns)
        if isinstance(event, Access):
            self._access(number, since_ns, seen, event)
        elif isinstance(event, Interrupt | Dma) and seen.device:
            # The span before the lane: that may make all lanes anew.
            span = self._timeline.span(since_ns)
            self._timeline.lane(("device", seen.device))[_MARKS][span] += 1

    def _access(self, number: int, since_ns: int, seen: Annotated, access: Access) -> None:
        took_ns = access.took_ns
        self._end_ns = max(self._end_ns, since_ns + took_ns)
        span = self._timeline.span(since_ns)
        column = _READS if access.operation is Operation.READ else _WRITES
        vcpu = vcpu_text(access.vcpu)
        lanes: tuple[Lane, ...] = (self._timeline.lane(("vcpu", vcpu)),)
        if seen.device:
            lanes = (*lanes, self._timeline.lane(("device", seen.device)))
        for lane in lanes:
            lane[column][span] += 1
            lane[_BUSY_NS][span] += took_ns
            if access.status:
                lane[_FAILED][span] += 1
        self._totals[column] += 1
        self._totals[_BUSY_NS] += took_ns
        if access.status:
            self._totals[_FAILED] += 1
        took = self._took.get(seen.device)
        if took is None:
            took = self._took[seen.device] = Latencies()
        took.add(took_ns)
        self._all_took.add(took_ns)
        self._slowest.add(number, seen, access)
        self._hot.see(since_ns, seen, access)

    def _shape(self) -> dict[str, Any]:
        source = self._source
        header = source.header
        findings = self._linter.findings()
        return {
            "name": source.name,
            "version": header.version,
            "started": header.started,
            "note": header.note,
            "devices": [_device_shape(each) for each in header.devices],
            "events": source.events,
            "lost": source.lost,
            "complete": source.is_complete,
            "damage": source.damage,
            "kinds": dict(self._kinds),
            "reads": self._totals[_READS],
            "writes": self._totals[_WRITES],
            "failed": self._totals[_FAILED],
            "busy_ns": self._totals[_BUSY_NS],
            "end_ns": self._end_ns,
            "timeline": self._timeline_shape(),
            "registers": self._hot.shape(),
            "latency": {
                "histogram": list(self._all_took.histogram()),
                "all": _latency_shape(self._all_took),
                "devices": {name: _latency_shape(each) for name, each in self._took.items()},
            },
            "slowest": [self._row(number, seen) for number, seen in self._slowest],
            "sample": [self._row(number, seen) for number, seen in self._sample],
            "findings": [self._finding_shape(each) for each in findings[:FINDINGS_MAX]],
            "findings_count": len(findings),
            "differences": self._differences
            and {
                "count": self._differences.count,
                "kept": [asdict(each) for each in self._differences.kept],
            },
        }

    def _timeline_shape(self) -> dict[str, Any]:
        lanes = sorted(self._timeline.lanes.items(), key=lambda each: each[0][0])
        shapes = [
            {"kind": kind, "name": name, "cells": cells(lane)} for (kind, name), lane in lanes
        ]
        if self._timeline.others is not None:
            rest = cells(self._timeline.others)
            shapes.append({"kind": "others", "name": "others", "cells": rest})
        return {"width_ns": self._timeline.width_ns, "lanes": shapes}

    def _row(self, number: int, seen: Annotated) -> list[Any]:
        """An event: number, time, took, kind, vCPU, device, where, what, decoded, status."""
        event = seen.event
        since_ns = 0 if isinstance(event, Lost) else event.time_ns - self._source.begin_ns
        kind = type(event).__name__.lower()
        if not isinstance(event, Access):
            return [number, since_ns, 0, kind, "", seen.device, "", event_text(event), "", ""]
        return [
            number,
            since_ns,
            event.took_ns,
            event.operation.value,
            vcpu_text(event.vcpu),
            seen.device,
            where(seen),
            event_text(event),
            decoded_text(seen.registers),
            event.status.name if event.status else "",
        ]

    def _finding_shape(self, finding: Finding) -> dict[str, Any]:
        first = finding.first
        return {
            "rule": finding.rule,
            "severity": finding.severity.value,
            "device": finding.device,
            "register": finding.register,
            "what": finding.what,
            "count": finding.count,
            "cost_ns": finding.cost_ns,
            "event": first.number,
            "since_ns": first.time_ns - self._source.begin_ns,
            "access": first.access,
            "decoded": first.decoded,
        }


def _device_shape(device: DeviceRecord) -> dict[str, Any]:
    return {
        "id": device.id,
        "type": device.type,
        # As text: a configuration may hold numbers that a browser would round.
        "config": {key: _text(value) for key, value in device.config.items()},
        "ranges": [f"{space.value} {base:#x}+{size:#x}" for space, base, size in device.ranges],
        "has_registers": device.registers is not None,
        "has_state": device.state is not None,
    }


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _latency_shape(took: Latencies) -> dict[str, int]:
    return {
        "count": took.count,
        "total_ns": took.total_ns,
        "p50_ns": took.percentile(50),
        "p99_ns": took.percentile(99),
        "max_ns": took.max_ns,
    }
