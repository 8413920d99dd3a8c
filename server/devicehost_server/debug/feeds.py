"""What readers of traces, recordings and activity are given: something to iterate over.

Each feed is armed by entering it, and ends when it is left, closed, or the server stops.
It is iterated on its reader's thread, where all work is done that isn't a copy.

A recording begins with the state of each device. That state is taken under the device's
lock, and accesses of the device are recorded from the same moment on: not one is missing,
and none is there twice.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from itertools import islice
from types import TracebackType
from typing import Self, TypeVar, cast

import structlog

from devicehost.recording import (
    Annotated,
    Annotator,
    DeviceRecord,
    Event,
    Header,
    Plugged,
    Space,
    Unplugged,
    decode_block,
    file_block,
    file_end,
    file_start,
)
from devicehost_server import VERSION
from devicehost_server.debug.entered import entered
from devicehost_server.debug.journal import TapJournal
from devicehost_server.debug.matching import AccessMatcher
from devicehost_server.debug.records import DeviceRecords
from devicehost_server.debug.taps import RecordTap, Span, Tap, TraceTap
from devicehost_server.device_info import DeviceEvent, DeviceInfo, DeviceState
from devicehost_server.devices.doors import Doors
from devicehost_server.model.device_io import DeviceIo
from devicehost_server.model.errors import (
    DeviceHostError,
    Draining,
    NoSuchDevice,
    RecordingTooSlow,
)

_log = structlog.get_logger(__name__)

LOOK_S = 0.02
"""How often a trace is looked at while little happens, in seconds."""

FLUSH_S = 0.1
"""How long an event waits at most before it is in the reader's recording, in seconds."""

BATCH_MAX = 512
"""How many events of a trace are decoded at a time."""

_T = TypeVar("_T")


class TapFeed:
    """A tap that is armed while the feed is entered.

    Args:
        tap: the tap.
        arm: has the tap told from here on.
        disarm: has it told no more.
    """

    def __init__(
        self, tap: Tap, arm: Callable[[TapFeed], None], disarm: Callable[[TapFeed], None]
    ) -> None:
        self.tap = tap
        self._arm = arm
        self._disarm = disarm
        self._closed = threading.Event()
        self._draining = False

    def __enter__(self) -> Self:
        self._arm(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._disarm(self)

    def close(self) -> None:
        """End it: its reader is gone. From any thread."""
        self._closed.set()

    def drain(self) -> None:
        """End it: the server stops, which its reader is told. From any thread."""
        self._draining = True
        self._closed.set()

    def device_changed(self, event: DeviceEvent) -> None:
        """Take note that a device came or went. It returns at once."""

    def changed_otherwise(self, info: DeviceInfo) -> None:
        """Take note that a device was changed by other than an access, or has other names."""

    def _wait(self, seconds: float) -> None:
        self._closed.wait(seconds)

    def _check_draining(self) -> None:
        if self._draining:
            raise Draining("the server is stopping")


class TraceFeed(TapFeed):
    """What happens, as far as it is wanted. Iterating gives how many events were lost, and some.

    A batch may be empty: then nothing of what was looked at is wanted.
    """

    tap: TraceTap

    def __init__(
        self,
        tap: TraceTap,
        arm: Callable[[TapFeed], None],
        disarm: Callable[[TapFeed], None],
        *,
        matcher: AccessMatcher,
        records: DeviceRecords,
    ) -> None:
        super().__init__(tap, arm, disarm)
        self._matcher = matcher
        self._records = records
        wanted = matcher.filter
        self._devices = wanted.devices | {each.device for each in matcher.targets}
        self._range = wanted.space, wanted.base, wanted.size
        self._arrived: dict[str, DeviceInfo] = {}
        self._changed: dict[str, DeviceInfo] = {}

    def __enter__(self) -> Self:
        self._aim()
        super().__enter__()
        self._annotator = Annotator(self._records.all())
        return self

    def __iter__(self) -> Iterator[tuple[int, list[Annotated]]]:
        while not self._closed.is_set():
            lost, blocks = self.tap.take()
            if not blocks:
                self._wait(LOOK_S)
            for block in blocks:
                self._learn_again()
                for events in _batches(decode_block(block.data), BATCH_MAX):
                    found = (self._annotate(event) for event in events)
                    yield lost, [each for each in found if self._matcher.matches(each)]
                    lost = 0
                    if self._closed.is_set():
                        break
        self._check_draining()

    def device_changed(self, event: DeviceEvent) -> None:
        """Tell the trace, and look at the addresses of a device that came."""
        info = event.device
        if info.state is DeviceState.PLUGGED:
            self._arrived[info.id] = info  # more can't be asked from here
            bare = DeviceRecord(info.id, info.type)
            self.tap.event(Plugged(time.monotonic_ns(), bare.to_json()))
            self._aim([info])
        elif info.state is DeviceState.UNPLUGGED:
            self.tap.event(Unplugged(time.monotonic_ns(), info.id))

    def changed_otherwise(self, info: DeviceInfo) -> None:
        """Look at the device again before more is told of it."""
        self._changed[info.id] = info

    def _learn_again(self) -> None:
        while self._changed:
            _, info = self._changed.popitem()
            with suppress(DeviceHostError):  # it is gone
                record = self._records.of(info)
                self._annotator.annotate(Plugged(time.monotonic_ns(), record.to_json()))

    def _annotate(self, event: Event) -> Annotated:
        if isinstance(event, Plugged):
            info = self._arrived.pop(str(event.device["id"]), None)
            if info is not None:
                with suppress(DeviceHostError):  # it is gone again
                    event = Plugged(event.time_ns, self._records.of(info).to_json())
        return self._annotator.annotate(event)

    def _aim(self, new: Sequence[DeviceInfo] = ()) -> None:
        """Have the tap take no more than may be wanted.

        Of a device all accesses are: what one means may depend on those before.
        """
        if self.tap.spans == ():
            return  # no accesses at all
        space, base, size = self._range
        if not self._devices and not size:
            return
        last = base + size - 1
        spans = list(self.tap.spans or ())
        for info in new or self._records.infos():
            own = self._records.spans(info)
            is_wanted = info.id in self._devices if self._devices else _meets(own, base, last)
            if is_wanted:
                spans += own
        if size and not self._devices and not new:
            spans += [
                Span(each is Space.PIO, base, last) for each in Space if space in {None, each}
            ]
        # An empty one would be for no accesses at all.
        self.tap.spans = tuple(spans) or (Span(pio=False, base=0, last=-1),)


class RecordFeed(TapFeed):
    """A recording. Iterating gives what comes next in the file."""

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
    ) -> None:
        super().__init__(tap, arm, disarm)
        self._wanted = frozenset(device_ids)
        self._records = records
        self._doors = doors
        self._lock = threading.Lock()  # of the next two
        self._admitted: dict[str, tuple[Span, ...]] = {}
        self._arrivals: list[DeviceInfo] = []
        self._count = 0

    def __enter__(self) -> Self:
        present = {info.id for info in self._records.infos()}
        for device_id in self._wanted - present:
            raise NoSuchDevice(f"there is no device {device_id!r}", device=device_id)
        super().__enter__()
        self._now_ns, self._wall_ns = time.monotonic_ns(), time.time_ns()
        devices = [
            record for info in self._records.infos() if (record := self._admit(info)) is not None
        ]
        self._begin = file_start(
            Header(
                tuple(devices),
                version=VERSION,
                started=datetime.fromtimestamp(self._wall_ns / 1e9, UTC).isoformat(),
                wall_ns=self._wall_ns,
                now_ns=self._now_ns,
            )
        )
        self._let_all_in()
        return self

    def __iter__(self) -> Iterator[bytes]:
        yield self._begin
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

    def device_changed(self, event: DeviceEvent) -> None:
        """Take note that a device came or went."""
        info = event.device
        with self._lock:
            if info.state is DeviceState.PLUGGED:
                self._arrivals.append(info)
                self._aim()  # not at this one, until its state is there
            elif self._admitted.pop(info.id, None) is not None:
                self.tap.event(Unplugged(time.monotonic_ns(), info.id))

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
        if arrivals:
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
                record = self._records.of(info, self._doors.save(hosted))
                if is_new:
                    self.tap.event(Plugged(time.monotonic_ns(), record.to_json()))
                for event in gathered:
                    self.tap.event(event)
                with self._lock:
                    self._admitted[info.id] = self._records.spans(info)
                    self._aim()
        except DeviceHostError as error:
            _log.warning("device_not_recorded", device=info.id, error=str(error))
            return None
        return record

    def _aim(self) -> None:
        """Have the tap take the accesses of the devices that are recorded. Under the lock."""
        self.tap.spans = tuple(span for spans in self._admitted.values() for span in spans)

    def _let_all_in(self) -> None:
        """Have it take all accesses, those that find no device too, if all are wanted."""
        with self._lock:
            if not self._wanted and not self._arrivals:
                self.tap.spans = None


def _meets(spans: Sequence[Span], base: int, last: int) -> bool:
    """Whether a range has a byte in one of the spans."""
    return any(span.base <= last and base <= span.last for span in spans)


def _batches(items: Iterable[_T], size: int) -> Iterator[list[_T]]:
    """Cut what comes into lists of at most `size`."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
