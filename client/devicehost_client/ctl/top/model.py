"""What `top` knows of a server; it makes frames of that.

model = Model()
model.meet(server_info)
model.place(devices, ranges)
model.add(activity)
frame = model.frame()
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from devicehost_client.ctl.top.frames import (
    HISTORY_S,
    Device,
    DeviceLine,
    Frame,
    InterruptLine,
    Range,
    RangeLine,
    RegisterLine,
    ServerInfo,
    Traffic,
    Trail,
)
from devicehost_client.debug import Activity, PlaceActivity

_NS = 1e9

_Samples: TypeAlias = deque[tuple[float, float]]


@dataclass(slots=True)
class _Seen:
    """What is known of one server, from its start on.

    Attributes:
        now_s: the time, as the sum of all intervals.
        met_at_s: when the server last said who it is.
        activity: that of the last interval.
        failures: how many accesses have failed.
        gsis: interrupts that did something.
        trail: the rate of all accesses over the last minute.
        trails: likewise by device.
    """

    now_s: float = 0.0
    met_at_s: float = 0.0
    activity: Activity | None = None
    failures: int = 0
    gsis: set[int] = field(default_factory=set)
    trail: _Samples = field(default_factory=deque)
    trails: dict[str, _Samples] = field(default_factory=dict)


class Model:
    """Takes what a server tells, and makes frames of it."""

    def __init__(self) -> None:
        self._server: ServerInfo | None = None
        self._devices: dict[str, Device] = {}
        self._ranges: tuple[Range, ...] = ()
        self._seen = _Seen()

    def meet(self, server: ServerInfo) -> None:
        """Take who the server is. Of another one than before, nothing is known yet."""
        if self._server is not None and self._server.instance_id != server.instance_id:
            self._seen = _Seen()
        self._server = server
        self._seen.met_at_s = self._seen.now_s

    def place(self, devices: Iterable[Device], ranges: Iterable[Range]) -> None:
        """Take all devices, and the address map."""
        self._devices = {each.id: each for each in devices}
        self._ranges = tuple(sorted(ranges, key=lambda each: (each.space.value, each.base)))

    def add(self, activity: Activity) -> None:
        """Take what happened in an interval."""
        seen = self._seen
        interval_s = max(activity.interval_ns, 1) / _NS
        seen.activity = activity
        seen.now_s += interval_s
        seen.failures += sum(each.failures for each in activity.places)
        seen.gsis |= {each.gsi for each in activity.interrupts}
        seen.trail.append((seen.now_s, _accesses(activity.places) / interval_s))
        _shorten(seen.trail, seen.now_s)
        rates = dict.fromkeys([*self._devices, *seen.trails], 0.0)
        for each in activity.places:
            rate = _accesses([each]) / interval_s
            rates[each.device] = rates.get(each.device, 0.0) + rate
        for device, rate in rates.items():
            trail = seen.trails.setdefault(device, deque())
            trail.append((seen.now_s, rate))
            _shorten(trail, seen.now_s)
            if device not in self._devices and not any(rate for _, rate in trail):
                del seen.trails[device]

    def frame(self) -> Frame:
        """Return what is to be shown now."""
        activity = self._seen.activity
        if activity is None:
            return Frame(
                server=self._server,
                uptime_s=self._server.uptime_s if self._server else 0.0,
                devices=tuple(self._device_lines((), 1.0)),
                ranges=tuple(RangeLine(each, 0.0) for each in self._ranges),
            )
        interval_s = max(activity.interval_ns, 1) / _NS
        places = activity.places
        return Frame(
            server=self._server,
            uptime_s=self._server.uptime_s + self._seen.now_s - self._seen.met_at_s
            if self._server
            else 0.0,
            interval_s=interval_s,
            total=Traffic.of(places, interval_s),
            trail=Trail(tuple(self._seen.trail), self._seen.now_s),
            failures=self._seen.failures,
            devices=tuple(self._device_lines(places, interval_s)),
            registers=tuple(
                RegisterLine(
                    each.device,
                    each.register,
                    each.space,
                    each.address,
                    Traffic.of([each], interval_s),
                )
                for each in places
            ),
            interrupts=tuple(self._interrupt_lines(activity, interval_s)),
            ranges=tuple(
                RangeLine(each, _accesses(_within(each, places)) / interval_s)
                for each in self._ranges
            ),
            latency=activity.latency,
        )

    def _device_lines(
        self, places: Sequence[PlaceActivity], interval_s: float
    ) -> Iterable[DeviceLine]:
        found: dict[str, list[PlaceActivity]] = {}
        for place in places:
            found.setdefault(place.device, []).append(place)
        for device_id in sorted({*self._devices, *self._seen.trails}):
            yield DeviceLine(
                self._devices.get(device_id, Device(device_id, "")),
                Traffic.of(found.get(device_id, ()), interval_s),
                Trail(tuple(self._seen.trails.get(device_id, ())), self._seen.now_s),
            )

    def _interrupt_lines(self, activity: Activity, interval_s: float) -> Iterable[InterruptLine]:
        found = {each.gsi: each for each in activity.interrupts}
        owners: dict[int, list[str]] = {gsi: [] for gsi in self._seen.gsis}
        for device in self._devices.values():
            for gsi in device.gsis:
                owners.setdefault(gsi, []).append(device.id)
        for gsi, devices in sorted(owners.items()):
            each = found.get(gsi)
            rate = each.count / interval_s if each else 0.0
            yield InterruptLine(gsi, rate, each is not None and each.asserted, tuple(devices))


def _accesses(places: Iterable[PlaceActivity]) -> int:
    return sum(each.reads + each.writes for each in places)


def _within(trapped: Range, places: Iterable[PlaceActivity]) -> Iterable[PlaceActivity]:
    """The places in a range."""
    return (
        each
        for each in places
        if each.space is trapped.space and trapped.base <= each.address <= trapped.last
    )


def _shorten(trail: _Samples, now_s: float) -> None:
    """Forget what is older than a sparkline goes back."""
    while trail and trail[0][0] <= now_s - HISTORY_S:
        trail.popleft()
