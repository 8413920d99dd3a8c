"""A port that measures: it stands before another one, and notes each access."""

from __future__ import annotations

from array import array
from collections import Counter
from time import perf_counter_ns

from devicehost_client.port import AccessPort, ReadableBuffer, WritableBuffer


class MeasuredPort:
    """Hands accesses on to `port`, and counts and times them.

    Attributes:
        latencies_ns: how long each access took, in order.
        reads: how often each (space, address) was read, string accesses once.
        writes: the same for writes.
    """

    def __init__(self, port: AccessPort) -> None:
        self._port = port
        self.latencies_ns = array("Q")
        self.reads: Counter[tuple[str, int]] = Counter()
        self.writes: Counter[tuple[str, int]] = Counter()

    def mmio_read_into(self, address: int, data: WritableBuffer) -> None:
        """Read, and note it."""
        started = perf_counter_ns()
        self._port.mmio_read_into(address, data)
        self.latencies_ns.append(perf_counter_ns() - started)
        self.reads["mmio", address] += 1

    def mmio_write_from(self, address: int, data: ReadableBuffer) -> None:
        """Write, and note it."""
        started = perf_counter_ns()
        self._port.mmio_write_from(address, data)
        self.latencies_ns.append(perf_counter_ns() - started)
        self.writes["mmio", address] += 1

    def pio_read_into(self, port: int, data: WritableBuffer, size: int) -> None:
        """Read, and note it."""
        started = perf_counter_ns()
        self._port.pio_read_into(port, data, size)
        self.latencies_ns.append(perf_counter_ns() - started)
        self.reads["pio", port] += 1

    def pio_write_from(self, port: int, data: ReadableBuffer, size: int) -> None:
        """Write, and note it."""
        started = perf_counter_ns()
        self._port.pio_write_from(port, data, size)
        self.latencies_ns.append(perf_counter_ns() - started)
        self.writes["pio", port] += 1
