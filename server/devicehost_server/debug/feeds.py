"""What readers are given: something to iterate over, and a trace as the first of these.

Each feed is armed by entering it, and ends when it is left, closed, or the server stops.
It is iterated on its reader's thread, where all work is done that isn't a copy.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from types import TracebackType
from typing import Self, TypeVar

import structlog

from devicehost.recording import (
    Annotated,
    Annotator,
    DeviceRecord,
    Event,
    Plugged,
    Space,
    Unplugged,
    decode_block,
)
from devicehost_server.debug.matching import AccessMatcher
from devicehost_server.debug.records import DeviceRecords
from devicehost_server.debug.taps import Span, Tap, TraceTap
from devicehost_server.device_info import DeviceEvent, DeviceInfo, DeviceState
from devicehost_server.model.errors import (
    DeviceHostError,
    Draining,
)

_log = structlog.get_logger(__name__)

LOOK_S = 0.02
"""How often a trace is looked at while little happens, in seconds."""

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
        try:
            self._begin()
        except BaseException:
            self._disarm(self)
            raise
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

    def device_changing(self, info: DeviceInfo) -> None:
        """Take note that a device is about to come onto the bus, or to leave it, at once."""

    def device_changed(self, event: DeviceEvent) -> None:
        """Take note that a device came or went. It returns at once."""

    def changing_otherwise(self, info: DeviceInfo) -> None:
        """Believe nothing of a device that is told from here on until it was looked at."""

    def changed_otherwise(self, info: DeviceInfo) -> None:
        """Look at a device that was changed by other than an access, or has other names.

        The thread that changed it calls, and nobody else has been in the device since. All
        feeds were told before by `changing_otherwise`.
        """

    def _begin(self) -> None:
        """Do what has to be done once the tap is armed."""

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
        return super().__enter__()

    def _begin(self) -> None:
        self._annotator = Annotator(self._records.all())

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
        self.tap.spans = tuple(dict.fromkeys(spans)) or (Span(pio=False, base=0, last=-1),)


def _meets(spans: Sequence[Span], base: int, last: int) -> bool:
    """Whether a range has a byte in one of the spans."""
    return any(span.base <= last and base <= span.last for span in spans)


def _batches(items: Iterable[_T], size: int) -> Iterator[list[_T]]:
    """Cut what comes into lists of at most `size`."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
