"""The debugger of one VM: what can be seen and done, and what of it is armed.

    with debugger.trace(AccessFilter(devices=frozenset({"uart0"}))) as feed:
        for lost, events in feed:
            ...

Whenever what is armed changes, the bus gets another observer, made for just that; when
nothing is armed, none. Interrupts and the devices' doors are watched only while a tap is
there to be told.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from devicehost.recording import Interrupt, InterruptKind
from devicehost_server.debug import states
from devicehost_server.debug.activity import ActivityTap
from devicehost_server.debug.activity_feed import ActivityFeed
from devicehost_server.debug.breakpoints import Breakpoints
from devicehost_server.debug.faults import Faults
from devicehost_server.debug.feeds import TapFeed, TraceFeed
from devicehost_server.debug.filters import ANY, AccessFilter
from devicehost_server.debug.flight import FLIGHT_MAX, FaultDumps, flight_recording
from devicehost_server.debug.inspection import Branch, Inspection, Look, Node
from devicehost_server.debug.journal import TapJournal
from devicehost_server.debug.matching import AccessMatcher
from devicehost_server.debug.observed import Observed
from devicehost_server.debug.record_feed import RecordFeed
from devicehost_server.debug.records import DeviceRecords
from devicehost_server.debug.registers import RegisterMaps
from devicehost_server.debug.states import States
from devicehost_server.debug.taps import FlightTap, RecordTap, Tap, TraceTap
from devicehost_server.device_info import DeviceEvent, DeviceInfo
from devicehost_server.device_manager import DeviceManager
from devicehost_server.model.errors import BadRequest, Draining, NoSuchDevice
from devicehost_server.model.holds import Holds
from devicehost_server.model.interrupts import (
    InterruptController,
    InterruptEvent,
    InterruptLine,
)
from devicehost_server.model.interrupts import InterruptKind as LineChange
from devicehost_server.model.io_manager import LOCK_TIMEOUT_S, IoManager

GRACE_S = 0.05
"""How long a thread may be about to make an access, in seconds, when others want to run."""

FLIGHT_EVENTS = 10_000
"""How many events the flight recorder keeps if a breakpoint arms it."""


class Debugger:
    """Sees and steps in. Safe to use from any thread.

    Args:
        io: the bus.
        devices: the devices.
        interrupts: the state of all interrupts.
        holds: told which accesses are held.
        dump_folder: where the flight recorder is dumped when a device faults, if anywhere.
        lock_timeout_s: how long an access waits for a device in use, in seconds.

    Attributes:
        registers: the devices' registers.
        states: saves and restores devices.
        inspection: the server's state as a tree; who has some adds it.
        breakpoints: where accesses are held.
        faults: what devices are made to do wrong.
    """

    def __init__(
        self,
        io: IoManager,
        devices: DeviceManager,
        interrupts: InterruptController,
        holds: Holds,
        *,
        dump_folder: Path | None = None,
        lock_timeout_s: float = LOCK_TIMEOUT_S,
    ) -> None:
        self._io = io
        self._devices = devices
        self._interrupts = interrupts
        self._holds = holds
        self._dump_folder = dump_folder
        self._lock_timeout_s = lock_timeout_s
        self.registers = RegisterMaps(devices, devices.types)
        self.states = States(devices)
        self.inspection = Inspection()
        self.breakpoints = Breakpoints(
            self.registers,
            holds,
            save_states=lambda: states.to_text(self.states.save()),
            record=self._record_flight,
            on_needed_changed=self._rearm,
        )
        self.faults = Faults(self.registers, on_needed_changed=self._rearm)
        self._records = DeviceRecords(devices, self.registers)
        self._lock = threading.Lock()
        self._feeds: list[TapFeed] = []
        self._flight: FlightTap | None = None
        self._dumps: FaultDumps | None = None
        self._taps: tuple[Tap, ...] = ()
        self._injected: dict[int, InterruptLine] = {}
        self._draining = False
        self.registers.on_changed(self._changed_otherwise, inside=self._being_changed)
        self.states.on_changed(self._changed_otherwise, inside=self._being_changed)
        interrupts.subscribe(self._interrupt_changed)
        devices.subscribe(self._device_changed)
        devices.foretell = self._device_changing

    # What can be seen.

    def trace(
        self,
        wanted: AccessFilter = ANY,
        *,
        accesses: bool = True,
        interrupts: bool = True,
        dma: bool = True,
    ) -> TraceFeed:
        """Return what happens, as a feed to be entered and iterated.

        Args:
            wanted: which accesses; interrupts and DMA are those of its devices.
            accesses: whether there are to be accesses.
            interrupts: whether there are to be interrupts.
            dma: whether there is to be DMA.

        Raises:
            BadRequest: a condition can't be.
            NoSuchDevice, NoRegisterMap, NoSuchRegister: what the filter names isn't there.
        """
        matcher = AccessMatcher(wanted, self.registers)
        tap = TraceTap(interrupts=interrupts, dma=dma, spans=None if accesses else ())
        return TraceFeed(tap, self._arm, self._disarm, matcher=matcher, records=self._records)

    def record(self, device_ids: tuple[str, ...] = ()) -> RecordFeed:
        """Return a recording of devices, none for all, as a feed to be entered and iterated."""
        return RecordFeed(
            RecordTap(()),
            self._arm,
            self._disarm,
            device_ids=device_ids,
            records=self._records,
            doors=self._devices.doors,
            settle=self._settle,
        )

    def watch_activity(self, interval_s: float) -> ActivityFeed:
        """Return what is accessed in each interval, as a feed to be entered and iterated."""
        return ActivityFeed(
            ActivityTap(),
            self._arm,
            self._disarm,
            interval_s=interval_s,
            records=self._records,
            registers=self.registers,
            interrupts=self._interrupts,
        )

    def set_flight_recorder(self, events_min: int) -> None:
        """Keep so many events from now on; 0 to keep none, and forget what was kept.

        Raises:
            BadRequest: they are more than `FLIGHT_MAX`.
        """
        if events_min > FLIGHT_MAX:
            raise BadRequest(
                f"accesses can't be {events_min}; allowed: 0 to {FLIGHT_MAX}", field="accesses"
            )
        with self._lock:
            self._flight = FlightTap(events_min) if events_min else None
            self._dumps = None
            if self._flight is not None and self._dump_folder is not None:
                self._dumps = FaultDumps(self._dump_folder, self._flight, self._records, self._io)
        self._rearm()

    def flight_recording(self) -> Iterator[bytes]:
        """Give what the flight recorder holds, as a recording file, in chunks.

        Raises:
            NotArmed: it isn't armed.
        """
        return flight_recording(self._flight, self._records, "flight recorder")

    def inspect(self, path: str, depth: int) -> Node:
        """Return a part of the server's live state; see `Inspection.inspect`."""
        return self.inspection.inspect(path, depth)

    def view(self) -> Look:
        """What is armed, for the tree."""
        flight = self._flight
        return {
            "breakpoints": {
                str(each.id): {"event": each.event.value, "hits": each.hits}
                for each in self.breakpoints.list()
            },
            "held": self._holds.count,
            "faults": {
                str(each.id): {"kind": type(each.kind).__name__, "count": each.count}
                for each in self.faults.list()
            },
            "feeds": {
                str(number): Branch(type(feed).__name__, {"lost": getattr(feed.tap, "lost", None)})
                for number, feed in enumerate(tuple(self._feeds))
            },
            "flight_recorder": {
                "keeps": flight.events_min if flight else 0,
                "holds": flight.count if flight else 0,
            },
        }

    # What can be done.

    def inject_interrupt(self, gsi: int, kind: LineChange) -> None:
        """Change an interrupt, as a device would that has a line to it.

        What is asserted here stays so until it is deasserted here.
        """
        if kind is LineChange.PULSED:
            self._interrupts.pulse(gsi)
            return
        with self._lock:
            line = self._injected.get(gsi)
            if line is None:
                line = self._injected[gsi] = self._interrupts.line(gsi, "")
        line.set_level(asserted=kind is LineChange.ASSERTED)

    def drain(self) -> None:
        """Let everything go, end all feeds, and arm nothing more: the server stops."""
        with self._lock:
            self._draining = True
            feeds = list(self._feeds)
        for feed in feeds:
            feed.drain()
        self.breakpoints.drain()
        self.faults.drain()

    # What is armed.

    def _arm(self, feed: TapFeed) -> None:
        with self._lock:
            if self._draining:
                raise Draining("the server is stopping")
            self._feeds.append(feed)
        self._rearm()

    def _disarm(self, feed: TapFeed) -> None:
        with self._lock:
            self._feeds.remove(feed)
        self._rearm()

    def _settle(self) -> None:
        """Wait for accesses that went past what was armed just now.

        One that is held isn't: it finds what is armed when it goes on.
        """
        time.sleep(GRACE_S)
        self._io.wait_for_accesses(self._lock_timeout_s)

    def _rearm(self) -> None:
        """Have everything that is armed see what happens, and nothing else."""
        with self._lock:
            taps: list[Tap] = [feed.tap for feed in self._feeds]
            taps += [tap for tap in (self._flight, self._dumps) if tap is not None]
            faults = self.faults if self.faults.is_needed else None
            breakpoints = self.breakpoints if self.breakpoints.is_needed else None
            self._taps = tuple(taps)
            if not (taps or faults or breakpoints):
                self._io.observe(None)
            else:
                self._io.observe(
                    Observed(
                        self._io,
                        self._holds,
                        taps=lambda: self._taps,
                        faults=faults,
                        breakpoints=breakpoints,
                        lock_timeout_s=self._lock_timeout_s,
                    )
                )
            self._devices.doors.journal = TapJournal(taps) if taps else None

    def _record_flight(self) -> None:
        if self._flight is None:
            self.set_flight_recorder(FLIGHT_EVENTS)

    # What happens.

    def _interrupt_changed(self, event: InterruptEvent) -> None:
        self.breakpoints.interrupt(event)
        if self._taps:
            kind = InterruptKind(event.kind.value)
            told = Interrupt(time.monotonic_ns(), event.gsi, kind, event.device)
            for tap in self._taps:
                tap.event(told)

    def _device_changing(self, info: DeviceInfo) -> None:
        for feed in tuple(self._feeds):
            feed.device_changing(info)

    def _device_changed(self, event: DeviceEvent) -> None:
        for feed in tuple(self._feeds):
            feed.device_changed(event)

    def _changed_otherwise(self, device_id: str) -> None:
        """A device was changed by other than an access, or its registers have other names."""
        self.breakpoints.learn_again(device_id)
        self.faults.learn_again(device_id)

    def _being_changed(self, device_id: str) -> None:
        """Likewise, and nobody else has been in the device since."""
        with suppress(NoSuchDevice):  # it went at once
            info = self._devices.get(device_id)
            feeds = tuple(self._feeds)
            for feed in feeds:
                feed.changing_otherwise(info)
            for feed in feeds:
                feed.changed_otherwise(info)
