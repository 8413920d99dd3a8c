"""What tables are sorted by."""

from __future__ import annotations

import enum
from collections.abc import Iterable

from devicehost_client.ctl.top.frames import DeviceLine, RegisterLine, Traffic


class Order(enum.Enum):
    """What devices and registers are sorted by. The values are how columns are called."""

    RATE = "rate"
    READS = "reads/s"
    WRITES = "writes/s"
    FAILURES = "faults/s"
    MEAN = "mean"
    LONGEST = "longest"
    NAME = "name"

    @property
    def next(self) -> Order:
        """The one after it; the first after the last."""
        orders = list(Order)
        return orders[(orders.index(self) + 1) % len(orders)]

    def devices(self, lines: Iterable[DeviceLine]) -> list[DeviceLine]:
        """Sort devices."""
        return sorted(lines, key=lambda line: (-self._size(line.traffic), line.device.id))

    def registers(self, lines: Iterable[RegisterLine]) -> list[RegisterLine]:
        """Sort registers."""
        return sorted(lines, key=lambda each: (-self._size(each.traffic), each.name, each.address))

    def _size(self, traffic: Traffic) -> float:
        match self:
            case Order.RATE:
                return traffic.rate
            case Order.READS:
                return traffic.reads
            case Order.WRITES:
                return traffic.writes
            case Order.FAILURES:
                return traffic.failures
            case Order.MEAN:
                return traffic.mean_ns
            case Order.LONGEST:
                return traffic.longest_ns
            case Order.NAME:
                return 0.0
