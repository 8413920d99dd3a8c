"""Activity, named: devices and registers in place of addresses, for one interval after another."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress

from devicehost.recording import Space
from devicehost.registers import Register
from devicehost_server.debug.activity import (
    Activity,
    ActivityTap,
    Counts,
    InterruptActivity,
    PlaceActivity,
)
from devicehost_server.debug.feeds import TapFeed
from devicehost_server.debug.places import Registers
from devicehost_server.debug.records import DeviceRecords
from devicehost_server.model.errors import DeviceHostError
from devicehost_server.model.interrupts import InterruptController


class ActivityFeed(TapFeed):
    """What was accessed. Iterating gives it for one interval after the other.

    Args:
        interval_s: how long an interval is, in seconds.
    """

    tap: ActivityTap

    def __init__(
        self,
        tap: ActivityTap,
        arm: Callable[[TapFeed], None],
        disarm: Callable[[TapFeed], None],
        *,
        interval_s: float,
        records: DeviceRecords,
        registers: Registers,
        interrupts: InterruptController,
    ) -> None:
        super().__init__(tap, arm, disarm)
        self._interval_s = interval_s
        self._records = records
        self._registers = registers
        self._interrupts = interrupts

    def __iter__(self) -> Iterator[Activity]:
        began = time.monotonic_ns()
        due_s = time.monotonic() + self._interval_s
        while not self._closed.is_set():
            self._wait(max(0.0, due_s - time.monotonic()))
            if self._closed.is_set():
                break
            due_s += self._interval_s
            ended = time.monotonic_ns()
            tally = self.tap.take()
            asserted = self._interrupts.asserted()
            yield Activity(
                ended - began,
                tuple(self._places(tally.places, tally.others)),
                tuple(
                    InterruptActivity(gsi, tally.interrupts.get(gsi, 0), gsi in asserted)
                    for gsi in sorted({*tally.interrupts, *asserted})
                ),
                tuple(tally.latency),
            )
            began = ended
        self._check_draining()

    def _places(
        self, places: dict[tuple[bool, int], Counts], others: Counts
    ) -> Iterator[PlaceActivity]:
        """Name the places, the most accessed first."""
        where = _Where(self._records, self._registers)
        ordered = sorted(places.items(), key=lambda item: -item[1].reads - item[1].writes)
        for (pio, address), counts in ordered:
            device, register = where.find(pio, address, reading=counts.reads > 0)
            space = Space.PIO if pio else Space.MMIO
            yield _activity(device, register, space, address, counts)
        if others.reads or others.writes:
            yield _activity("", "", Space.MMIO, 0, others)


class _Where:
    """Names addresses: by what is there without any condition, since many accesses count as one.

    So accesses to registers that share a data port are counted there.
    """

    def __init__(self, records: DeviceRecords, registers: Registers) -> None:
        self._spans = [
            (span, number, info.id)
            for info in records.infos()
            for number, span in enumerate(records.spans(info))
        ]
        self._registers = registers
        self._maps: dict[str, list[Register]] = {}

    def find(self, pio: bool, address: int, *, reading: bool) -> tuple[str, str]:  # noqa: FBT001 # as of a span
        """Return the device at an address, and its register."""
        for span, number, device in self._spans:
            if span.pio == pio and span.base <= address <= span.last:
                offset = address - span.base
                for each in self._map(device):
                    if each.range == number and (each.readable if reading else each.writable):
                        index, within = divmod(offset - each.offset, each.stride or each.size)
                        if 0 <= index < each.count and within < each.size:
                            return device, f"{each.name}[{index}]" if each.count > 1 else each.name
                return device, ""
        return "", ""

    def _map(self, device: str) -> list[Register]:
        """The registers with a place of their own; those first that are there always."""
        if device not in self._maps:
            self._maps[device] = []
            with suppress(DeviceHostError):
                found = [each for each in self._registers.of(device) if each.via is None]
                self._maps[device] = sorted(found, key=lambda each: each.when is not None)
        return self._maps[device]


def _activity(
    device: str, register: str, space: Space, address: int, counts: Counts
) -> PlaceActivity:
    return PlaceActivity(
        device,
        register,
        space,
        address,
        counts.reads,
        counts.writes,
        counts.failures,
        counts.took_ns,
        counts.longest_ns,
    )
