"""What a disk has been asked for, and how long that took."""

from __future__ import annotations

import threading
import time
from typing import Any

from devicehost_server.devices.virtio.blk.spec import Kind, Status

_OTHER = -1
_NAMES = {_OTHER: "other", **{kind.value: kind.name.lower() for kind in Kind}}


class _Tally:
    """Requests of one kind."""

    __slots__ = ("errors", "longest_ns", "requests", "size", "total_ns")

    def __init__(self) -> None:
        self.requests = 0
        self.size = 0
        self.errors = 0
        self.total_ns = 0
        self.longest_ns = 0


class Traffic:
    """Counts requests, from when they are taken until they are answered. Safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tallies: dict[int, _Tally] = {}
        self._error = ""

    def count(self, kind: int, status: Status, size: int, started_ns: int) -> None:
        """Count a request that has been carried out.

        Args:
            kind: its type.
            status: how it ended.
            size: how many bytes of data it has moved.
            started_ns: when it was taken, by the performance counter.
        """
        taken_ns = time.perf_counter_ns() - started_ns
        with self._lock:
            tally = self._tallies.get(kind)
            if tally is None:
                tally = self._tallies.setdefault(kind if kind in _NAMES else _OTHER, _Tally())
            tally.requests += 1
            tally.size += size
            tally.total_ns += taken_ns
            tally.longest_ns = max(tally.longest_ns, taken_ns)
            if status:
                tally.errors += 1

    def failed(self, error: str) -> None:
        """Remember why a request failed."""
        self._error = error

    def view(self) -> dict[str, Any]:
        """Return the numbers by kind of request, and the last error."""
        with self._lock:
            kinds: dict[str, Any] = {
                _NAMES[kind]: {
                    "requests": tally.requests,
                    "bytes": tally.size,
                    "errors": tally.errors,
                    "mean_us": tally.total_ns // tally.requests // 1000,
                    "longest_us": tally.longest_ns // 1000,
                }
                for kind, tally in self._tallies.items()
            }
        return {**kinds, "last_error": self._error}
