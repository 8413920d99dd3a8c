"""Recordings, for their readers: the file, as it is made.

A recording begins with the state of each device. That state is taken under the device's
lock, and accesses of the device are recorded from the same moment on: not one is missing,
and none is there twice. So it is with a device that comes later, and with one that somebody
changes by other than an access: it comes once more, as it is then.

Accesses that find no device are recorded as well, if all devices are. But while a device
comes or goes, nothing is recorded of addresses that aren't those of the others: whether an
access finds it depends on a moment that a recording doesn't know.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Self, cast

import structlog

from devicehost.recording import (
    DeviceRecord,
    Header,
    Plugged,
    Unplugged,
    file_block,
    file_end,
    file_start,
)
from devicehost_server import VERSION
from devicehost_server.debug.entered import entered
from devicehost_server.debug.feeds import TapFeed
from devicehost_server.debug.journal import TapJournal
from devicehost_server.debug.records import DeviceRecords
from devicehost_server.debug.states import copied
from devicehost_server.debug.taps import RecordTap, Span
from devicehost_server.device_info import DeviceEvent, DeviceInfo, DeviceState
from devicehost_server.devices.doors import Doors
from devicehost_server.model.device_io import DeviceIo
from devicehost_server.model.errors import DeviceHostError, NoSuchDevice, RecordingTooSlow

_log = structlog.get_logger(__name__)

FLUSH_S = 0.1
"""How long an event waits at most before it is in the reader's recording, in seconds."""

SETTLE_S = 0.1
"""How long after a device came or went accesses may be told that were made before, in seconds."""


class RecordFeed(TapFeed):
    """A recording. Iterating gives what comes next in the file.

    Args:
        device_ids: which devices; none for all.
        records: describes them.
        doors: theirs.
        settle: waits until no access goes on that the tap won't be told of.
    """

    tap: RecordTap

    def __init__(
        self,
        tap: RecordTap,
        arm: Callable[[TapFeed], None],
        disarm: Callable[[TapFeed], None],
        *,
        device_ids: tuple[str, ...],
        records: DeviceRecords,
        doors: Doors,
        settle: Callable[[], None],
    ) -> None:
        super().__init__(tap, arm, disarm)
        self._settle = settle
        self._wanted = frozenset(device_ids)
        self._records = records
        self._doors = doors
        self._lock = threading.Lock()  # of all that follows, and of what the tap takes
        self._admitted: dict[str, tuple[Span, ...]] = {}
        self._arrivals: list[DeviceInfo] = []
        self._leaving: set[str] = set()
        self._left: set[int] = set()  # the generations of devices that left
        self._settled_s = 0.0
        self._is_open = False
        self._count = 0

    def __enter__(self) -> Self:
        present = {info.id for info in self._records.infos()}
        for device_id in self._wanted - present:
            raise NoSuchDevice(f"there is no device {device_id!r}", device=device_id)
        self.tap.awaited = self._wanted or frozenset(present)
        return super().__enter__()

    def _begin(self) -> None:
        self._settle()
        self._now_ns, self._wall_ns = time.monotonic_ns(), time.time_ns()
        devices = [
            record for info in self._records.infos() if (record := self._admit(info)) is not None
        ]
        self._head = file_start(
            Header(
                tuple(devices),
                version=VERSION,
                started=datetime.fromtimestamp(self._wall_ns / 1e9, UTC).isoformat(),
                wall_ns=self._wall_ns,
                now_ns=self._now_ns,
            )
        )
        self._let_all_in()

    def __iter__(self) -> Iterator[bytes]:
        yield self._head
        while not self._closed.is_set():
            yield from self._fetch()
            if self.tap.failed:
                raise RecordingTooSlow("the recording was not read as fast as the guest is")
            self.tap.due.wait(FLUSH_S)
        yield from self._fetch()
        yield file_end(self._count)
        self._check_draining()

    def close(self) -> None:
        """End it: its reader is gone, or has had enough."""
        super().close()
        self.tap.due.set()

    def drain(self) -> None:
        """End it, for the server stops."""
        super().drain()
        self.tap.due.set()

    def device_changing(self, info: DeviceInfo) -> None:
        """Take no accesses but those of the devices that stay, until the change is over.

        Of those to others it can't be told whether they find the device.
        """
        with self._lock:
            if info.state is DeviceState.PLUGGED:
                if not self._wanted or info.id in self._wanted:
                    self.tap.awaited |= {info.id}
            else:
                self._leaving.add(info.id)
                self._left.add(info.generation)
                self._arrivals = [each for each in self._arrivals if each.id != info.id]
            was_admitted = self._admitted.pop(info.id, None) is not None
            self._aim()
            if was_admitted:
                self.tap.event(Unplugged(time.monotonic_ns(), info.id))

    def device_changed(self, event: DeviceEvent) -> None:
        """Take note that a device came or went."""
        info = event.device
        with self._lock:
            if info.state is DeviceState.PLUGGED:
                self._arrivals.append(info)
            elif info.state is DeviceState.UNPLUGGED:
                self._leaving.discard(info.id)
            self._aim()

    def changing_otherwise(self, info: DeviceInfo) -> None:
        """Take nothing of what passes the device's doors."""
        with self._lock:
            self.tap.devices -= {info.id}

    def changed_otherwise(self, info: DeviceInfo) -> None:
        """Record the state that a device has now."""
        with self._lock:
            if info.id not in self._admitted:
                return
        self._admit(info, is_new=True)

    def _fetch(self) -> Iterator[bytes]:
        with self._lock:
            arrivals, self._arrivals = self._arrivals, []
        for info in arrivals:
            self._admit(info, is_new=True)
        if not self._is_open and time.monotonic() >= self._settled_s:
            self._let_all_in()
        for block in self.tap.take():
            self._count += block.count
            yield file_block(block.data)

    def _admit(self, info: DeviceInfo, *, is_new: bool = False) -> DeviceRecord | None:
        """Record a device from here on; return it with its state, if it is to be recorded."""
        if self._wanted and info.id not in self._wanted:
            return None
        try:
            hosted = self._records.hosted(info.id)
            doing = "while its state was saved for a recording"
            with (
                entered(cast("DeviceIo", hosted), info.id, doing, is_recorded=True),
                TapJournal.gathering() as gathered,
            ):
                record = self._records.of(info, copied(self._doors.save(hosted)))
                with self._lock:
                    if info.generation in self._left:
                        return None
                    if is_new:
                        self.tap.since_ns = time.monotonic_ns()
                        self.tap.event(Plugged(time.monotonic_ns(), record.to_json()))
                    self.tap.devices |= {info.id}
                    self.tap.awaited -= {info.id}
                    for event in gathered:
                        self.tap.event(event)
                    self._admitted[info.id] = self._records.spans(info)
                    if not self._is_open:  # else it is one that was there
                        self._aim()
        except DeviceHostError as error:
            _log.warning("device_not_recorded", device=info.id, error=str(error))
            return None
        else:
            return record
        finally:
            with self._lock:
                self.tap.awaited -= {info.id}  # whatever came of it

    def _aim(self) -> None:
        """Have the tap take what concerns the devices that are recorded. Under the lock."""
        self.tap.devices = frozenset(self._admitted)
        self.tap.spans = tuple(span for spans in self._admitted.values() for span in spans)
        self._settled_s = time.monotonic() + SETTLE_S
        self._is_open = False

    def _let_all_in(self) -> None:
        """Have it take all accesses, those that find no device too, if all are wanted."""
        with self._lock:
            if not (self._wanted or self._arrivals or self._leaving):
                self.tap.spans = None
                self._is_open = True
