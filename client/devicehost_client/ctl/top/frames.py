"""What `top` shows of one interval: a `Frame`, which never changes.

What is paused is a frame that isn't replaced.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from devicehost.recording.events import Space
from devicehost_client.debug import PlaceActivity

HISTORY_S = 60.0
"""How far back a sparkline goes, in seconds."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """How something was accessed in an interval.

    Attributes:
        reads: per second.
        writes: per second.
        failures: how many of these failed, per second.
        mean_ns: how long one took on the server, on average; 0 if there was none.
        longest_ns: how long the longest took.
    """

    reads: float = 0.0
    writes: float = 0.0
    failures: float = 0.0
    mean_ns: float = 0.0
    longest_ns: int = 0

    @property
    def rate(self) -> float:
        """Accesses per second."""
        return self.reads + self.writes

    @classmethod
    def of(cls, places: Iterable[PlaceActivity], interval_s: float) -> Traffic:
        """Sum up places."""
        reads = writes = failures = took_ns = longest_ns = 0
        for each in places:
            reads += each.reads
            writes += each.writes
            failures += each.failures
            took_ns += each.took_ns
            longest_ns = max(longest_ns, each.longest_ns)
        count = reads + writes
        return cls(
            reads / interval_s,
            writes / interval_s,
            failures / interval_s,
            took_ns / count if count else 0.0,
            longest_ns,
        )


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """Who the server is.

    Attributes:
        version: such as 0.1.0.
        instance_id: another one after each start.
        uptime_s: how long it ran when it was asked.
    """

    version: str
    instance_id: str
    uptime_s: float


@dataclass(frozen=True, slots=True)
class Device:
    """A device that is plugged.

    Attributes:
        id: its name.
        type: the name of its type.
        config: what it was made with.
        resources: as text: `pio:0x3f8+0x8`.
        gsis: its interrupts.
    """

    id: str
    type: str
    config: tuple[tuple[str, str], ...] = ()
    resources: tuple[str, ...] = ()
    gsis: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Range:
    """Addresses that trap to a device; `last` is inclusive."""

    space: Space
    base: int
    last: int
    device: str


@dataclass(frozen=True, slots=True)
class Trail:
    """The rate over the last minute: pairs of when an interval ended, in seconds, and its rate."""

    samples: tuple[tuple[float, float], ...] = ()
    now_s: float = 0.0

    def columns(self, count: int) -> list[float | None]:
        """Return the mean rates of `count` parts of the minute; None before there was any.

        Parts begin at multiples of their length, so that a part keeps its samples while it
        moves to the left.
        """
        length = HISTORY_S / count
        newest = int(self.now_s / length)
        sums: list[list[float]] = [[] for _ in range(count)]
        for at_s, rate in self.samples:
            age = newest - int(at_s / length)
            if age < count:
                sums[count - 1 - age].append(rate)
        means = [sum(rates) / len(rates) if rates else None for rates in sums]
        # An interval longer than a part leaves parts without a sample: it counts for them.
        for index in range(count - 2, -1, -1):
            if means[index] is None and any(sums[:index]):
                means[index] = means[index + 1]
        if means[-1] is None and self.samples:
            means[-1] = self.samples[-1][1]
        return means


@dataclass(frozen=True, slots=True)
class DeviceLine:
    """A device and its traffic. An id of "" is for all accesses that found no device."""

    device: Device
    traffic: Traffic
    trail: Trail = Trail()


@dataclass(frozen=True, slots=True)
class RegisterLine:
    """A register, or an address that has no name, and its traffic."""

    device: str
    register: str
    space: Space
    address: int
    traffic: Traffic

    @property
    def name(self) -> str:
        """`com1.LSR`; `com1` if the register has no name; empty if there is no device."""
        return f"{self.device}.{self.register}" if self.register else self.device


@dataclass(frozen=True, slots=True)
class InterruptLine:
    """A GSI: how often it was asserted or pulsed per second, and whether it is asserted."""

    gsi: int
    rate: float
    asserted: bool
    devices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RangeLine:
    """A range and how hot it is, in accesses per second."""

    range: Range
    rate: float


@dataclass(frozen=True, slots=True)
class Frame:
    """All that is shown of one interval.

    Attributes:
        server: who it is; None until it said so.
        uptime_s: how long it has been running.
        interval_s: how long the interval was; 0 if there was none yet.
        total: of all accesses.
        trail: their rate.
        failures: how many accesses have failed since we look.
        devices: by id.
        registers: the most accessed first.
        interrupts: by number.
        ranges: by space and address.
        latency: how many accesses took at most 2^n ns, and more than half of that.
    """

    server: ServerInfo | None = None
    uptime_s: float = 0.0
    interval_s: float = 0.0
    total: Traffic = Traffic()
    trail: Trail = Trail()
    failures: int = 0
    devices: tuple[DeviceLine, ...] = ()
    registers: tuple[RegisterLine, ...] = ()
    interrupts: tuple[InterruptLine, ...] = ()
    ranges: tuple[RangeLine, ...] = ()
    latency: tuple[int, ...] = ()

    def device(self, device_id: str) -> DeviceLine | None:
        """Return the line of a device, if it is there."""
        return next((line for line in self.devices if line.device.id == device_id), None)


def percentile(latency: Sequence[int], percent: float) -> int | None:
    """Return a time in nanoseconds that `percent` of the accesses didn't exceed.

    It is the bound of a class: a power of two, so at most twice too much.

    Args:
        latency: how many took at most 2^n ns, and more than half of that.
        percent: up to 100.

    Returns:
        None if there were no accesses.
    """
    total = sum(latency)
    if not total:
        return None
    seen = 0
    for exponent, count in enumerate(latency):
        seen += count
        if seen * 100 >= total * percent:
            return int(1 << exponent)
    return int(1 << (len(latency) - 1))
