"""A smaller recording that shows the same difference.

    shrunk = shrink(Recording.open("boot.dhrec"), file, DeviceTypes())
    print(shrunk.difference, shrunk.accesses, "of", shrunk.accesses_before)

What comes after the first difference goes first, then the other devices, if they have no
part in it. The rest is taken apart into units: an access with all that belongs to it, or a
waking. The shortest run of units before the difference that still shows it is looked for by
doubling; then units are taken out of that, in ever smaller portions, until none can be
spared (delta debugging: Zeller and Hildebrandt, "Simplifying and Isolating Failure-Inducing
Input", 2002, section 3.2).

A recording still shows the difference if the first one that it shows has the same signature.

All units of the devices that are left are held in memory.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice, takewhile
from typing import BinaryIO, TypeAlias

from devicehost.recording import Annotator, Header, RecordingWriter
from devicehost.recording.events import (
    Access,
    Dma,
    Event,
    Interrupt,
    Learned,
    Plugged,
    Told,
    Unplugged,
    Woken,
)
from devicehost_server.devices.doors import SAVE
from devicehost_server.devices.registry import DeviceTypes
from devicehost_server.replay.difference import Difference
from devicehost_server.replay.replayer import Replayer, Source
from devicehost_server.replay.spoiled import Spoiled

TIME_LIMIT_S = 60.0
"""How long to look for something smaller, in seconds."""

Unit: TypeAlias = tuple[Event, ...]
Progress: TypeAlias = Callable[[int, int], None]
"""Told how many units are tried, and how many replays it took so far."""


class NothingToShrink(ValueError):
    """The recording shows no difference."""


@dataclass(frozen=True, slots=True)
class Shrunk:
    """What became of a recording.

    Attributes:
        difference: the one that it still shows first.
        accesses_before: how many accesses it had.
        accesses: how many it has.
        events_before: how many events it had.
        events: how many it has.
        replays: how many were tried.
        is_minimal: whether no unit can be spared; False if the time was up before that was
            known, or the difference depends on more than accesses and wakings.
    """

    difference: Difference
    accesses_before: int
    accesses: int
    events_before: int
    events: int
    replays: int
    is_minimal: bool


def shrink(
    recording: Source,
    out: BinaryIO,
    types: DeviceTypes,
    faults: Iterable[Spoiled] = (),
    *,
    leave_out: bool = False,
    time_limit_s: float = TIME_LIMIT_S,
    on_progress: Progress | None = None,
) -> Shrunk:
    """Write the smallest recording that was found to show the first difference.

    Args:
        recording: one that can be read several times.
        out: where it is written.
        types: as for `Replayer`.
        faults: likewise.
        leave_out: likewise.
        time_limit_s: how long to look, in seconds; what was found by then is written.
        on_progress: told of each replay.

    Raises:
        NothingToShrink: it shows none.
        CannotReplay: as for `Replayer`.
    """
    first = next(Replayer(recording, types, faults, leave_out=leave_out).run(), None)
    if first is None:
        raise NothingToShrink("this recording shows no difference, so there is nothing to shrink")
    total, accesses = _count(recording)
    search = _Search(first, types, tuple(faults), time.monotonic() + time_limit_s, on_progress)
    found = search.smallest(recording)
    note = f"shrunk from {total} events"
    header = replace(found.header, note="; ".join(filter(None, (recording.header.note, note))))
    writer = RecordingWriter(out, header)
    for event in found:
        writer.write(event)
    writer.close()
    left, accesses_left = _count(found)
    shown = next(Replayer(found, types, search.faults_of(found), leave_out=True).run())
    return Shrunk(shown, accesses, accesses_left, total, left, search.replays, search.is_minimal)


@dataclass(frozen=True, slots=True)
class _Piece:
    """A part of a recording, as units."""

    header: Header
    units: Sequence[Unit]

    def __iter__(self) -> Iterator[Event]:
        for unit in self.units:
            yield from unit


class _OutOfTime(Exception):
    """The time is up in the middle of a replay."""


class _Search:
    """Looks for smaller recordings that show a difference."""

    def __init__(
        self,
        wanted: Difference,
        types: DeviceTypes,
        faults: tuple[Spoiled, ...],
        deadline: float,
        on_progress: Progress | None,
    ) -> None:
        self.replays = 0
        self.is_minimal = False
        self._wanted = wanted
        self._types = types
        self._faults = faults
        self._deadline = deadline
        self._on_progress = on_progress

    @property
    def is_out_of_time(self) -> bool:
        """Whether to come to an end."""
        return time.monotonic() > self._deadline

    def smallest(self, recording: Source) -> _Piece:
        """Return the smallest that was found."""
        for device in (self._wanted.device, None):
            whole = _units(recording, self._wanted.event, device)
            if self._shows(whole):
                smallest = self._reduced(whole)
                self.is_minimal = not self.is_out_of_time
                return smallest
        return _cut(recording, self._wanted.event)

    def _reduced(self, whole: _Piece) -> _Piece:
        """Return what is needed of a recording that shows it in its last unit."""
        begin, (*middle, last) = _split(whole.units)

        def piece(units: Sequence[Unit]) -> _Piece:
            return _Piece(whole.header, [*begin, *units, last])

        size = 0
        while size < len(middle):
            if self._shows(piece(middle[len(middle) - size :])):
                middle = middle[len(middle) - size :]
                break
            size = 2 * size or 1
        return piece(self._without_the_needless(middle, piece))

    def _without_the_needless(
        self, units: list[Unit], piece: Callable[[Sequence[Unit]], _Piece]
    ) -> list[Unit]:
        portion = (len(units) + 1) // 2
        while units and not self.is_out_of_time:
            at = 0
            before = len(units)
            while at < len(units):
                rest = units[:at] + units[at + portion :]
                if self._shows(piece(rest)):
                    units = rest
                else:
                    at += portion
            if portion > 1:
                portion = (min(portion, len(units)) + 1) // 2
            elif len(units) == before:
                break
        return units

    def faults_of(self, piece: _Piece) -> list[Spoiled]:
        """Return the faults of devices that are still there."""
        devices = {device.id for device in piece.header.devices}
        return [fault for fault in self._faults if fault.device in devices]

    def _shows(self, piece: _Piece) -> bool:
        if self.is_out_of_time:
            return False
        self.replays += 1
        if self._on_progress is not None:
            self._on_progress(len(piece.units), self.replays)
        replayer = Replayer(piece, self._types, self.faults_of(piece), leave_out=True)
        try:
            found = next(replayer.run(self._check_time), None)
        except _OutOfTime:
            return False
        return found is not None and found.signature == self._wanted.signature

    def _check_time(self, _: int) -> None:
        if self.is_out_of_time:
            raise _OutOfTime


def _split(units: Sequence[Unit]) -> tuple[list[Unit], list[Unit]]:
    """Split off what says how devices were when the recording began: it can't be spared."""
    begin = list(takewhile(_is_save, units))
    return begin, list(units[len(begin) :])


def _is_save(unit: Unit) -> bool:
    return isinstance(unit[-1], Woken) and unit[-1].source == SAVE


def _cut(recording: Source, last: int) -> _Piece:
    """Return a recording up to an event."""
    return _Piece(recording.header, [(event,) for event in islice(recording, last + 1)])


def _units(recording: Source, last: int, only: str | None) -> _Piece:
    """Take a recording apart, up to an event, as far as it is of one device; None for all."""
    annotator = Annotator(recording.header.devices)
    parts: defaultdict[str, list[Event]] = defaultdict(list)
    units: list[Unit] = []
    for number, event in enumerate(recording):
        device = annotator.annotate(event).device
        if only in {device, None}:
            match event:
                case Learned() | Dma() | Told() | Interrupt():
                    parts[device].append(event)
                case Access() | Woken() | Plugged() | Unplugged():
                    units.append((*parts.pop(device, ()), event))
        if number == last:
            break
    kept = tuple(each for each in recording.header.devices if only in {each.id, None})
    return _Piece(replace(recording.header, devices=kept), units)


def _count(recording: Iterable[Event]) -> tuple[int, int]:
    """Count events, and accesses."""
    events = accesses = 0
    for event in recording:
        events += 1
        accesses += isinstance(event, Access)
    return events, accesses
