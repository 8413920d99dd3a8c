"""A recording as a trace that ui.perfetto.dev opens.

What one sees:

    recording          where events are missing, and where it is damaged
    devices / com1     a slice for each access, named by its registers; interrupts, DMA and
                       hotplug as instants
    vCPUs / vCPU 0     the same accesses, by who made them
    GSIs / GSI 4       the level of an interrupt, 0 or 1

Slices on a track must nest. Accesses that overlap, as those of several vCPUs to one device
may, are on several tracks of the same name, which Perfetto shows as one.
"""

from __future__ import annotations

import enum
from typing import BinaryIO

from devicehost.recording import Access, Annotated, Dma, Event, Interrupt, InterruptKind, Lost
from devicehost.registers import Decoded
from devicehost_client.recordings.export.track_events import Hexadecimal, TraceWriter, Value
from devicehost_client.recordings.source import Source
from devicehost_client.recordings.words import data_text, event_text, vcpu_text, where

_BODIES_MAX = 2048
"""How many accesses are remembered in their encoded form."""

_LANES_MAX = 64
"""How many accesses at a time are told apart."""


class _Root(enum.IntEnum):
    """The tracks at the top: their numbers, and the order in which they are shown."""

    RECORDING = 1
    DEVICES = 2
    VCPUS = 3
    GSIS = 4


_ROOT_NAMES = {
    _Root.RECORDING: "recording",
    _Root.DEVICES: "devices",
    _Root.VCPUS: "vCPUs",
    _Root.GSIS: "GSIs",
}


def write_perfetto(source: Source, out: BinaryIO) -> None:
    """Go through a recording and write it as a trace.

    Raises:
        OSError: it can't be written.
    """
    trace = _Trace(TraceWriter(out))
    for number, seen in source:
        trace.add(number, seen)
    if source.damage is not None:
        trace.mark(f"damaged from here on: {source.damage}")


class _Trace:
    """What is being written, and what tracks there are."""

    def __init__(self, writer: TraceWriter) -> None:
        self._writer = writer
        self._tracks: dict[tuple[_Root, str, int], int] = {}
        self._lanes: dict[tuple[_Root, str], list[int]] = {}
        self._bodies: dict[tuple[object, ...], tuple[object, bytes]] = {}
        self._last_ns = 0
        for root, name in _ROOT_NAMES.items():
            writer.track(root, name, rank=root)

    def add(self, number: int, seen: Annotated) -> None:
        """Write an event."""
        event = seen.event
        if isinstance(event, Lost):
            self.mark(event_text(event))
            return
        self._last_ns = event.time_ns
        if isinstance(event, Access):
            self._access(number, seen, event)
            return
        self._instant(number, seen.device, event)
        if isinstance(event, Interrupt):
            self._level(event)

    def mark(self, what: str) -> None:
        """Write that something is wrong with the recording itself."""
        self._writer.instant(self._last_ns, _Root.RECORDING, self._writer.named(what))

    def _access(self, number: int, seen: Annotated, access: Access) -> None:
        begin, end = access.time_ns, access.time_ns + access.took_ns
        body = self._body(seen, access) + self._writer.arguments({"event": number})
        tracks = [self._free_track(_Root.VCPUS, f"vCPU {vcpu_text(access.vcpu)}", begin, end)]
        if seen.device:
            tracks.append(self._free_track(_Root.DEVICES, seen.device, begin, end))
        for track in tracks:
            self._writer.begin(begin, track, body)
            self._writer.end(end, track)

    def _body(self, seen: Annotated, access: Access) -> bytes:
        """Encode what an access was; of equal ones, once."""
        # The registers are kept along, or their ids would be others' soon.
        registers = seen.registers
        key = (
            tuple(map(id, registers)),
            access.address,
            access.data,
            access.operation,
            access.space,
            access.status,
            seen.device,
            seen.offset,
        )
        known = self._bodies.get(key)
        if known is not None:
            return known[1]
        operation = access.operation.value
        arguments: dict[str, Value] = {
            access.space.value: Hexadecimal(access.address),
            "size": access.size,
            "data": data_text(access.data),
            "status": access.status.name,
        }
        for each in registers:
            if each.register:
                arguments[each.register] = _fields(each)
        body = self._writer.named(f"{operation} {where(seen)}", operation)
        body += self._writer.arguments(arguments)
        if len(self._bodies) >= _BODIES_MAX:
            self._bodies.clear()
        self._bodies[key] = (registers, body)
        return body

    def _instant(self, number: int, device: str, event: Event) -> None:
        if isinstance(event, Access | Lost):
            raise TypeError(f"event {number} is not an instant: {event}")
        track = self._track(_Root.DEVICES, device) if device else _Root.RECORDING
        arguments: dict[str, Value] = {"event": number}
        if isinstance(event, Dma):
            arguments["data"] = data_text(event.data)
        name = self._writer.named(event_text(event), type(event).__name__.lower())
        self._writer.instant(event.time_ns, track, name + self._writer.arguments(arguments))

    def _level(self, event: Interrupt) -> None:
        track = self._track(_Root.GSIS, f"GSI {event.gsi}")
        if event.kind is not InterruptKind.DEASSERTED:
            self._writer.count(event.time_ns, track, 1)
        if event.kind is not InterruptKind.ASSERTED:
            self._writer.count(event.time_ns, track, 0)

    def _free_track(self, root: _Root, name: str, begin: int, end: int) -> int:
        """Return one of the tracks of a name that has room for a slice."""
        lanes = self._lanes.setdefault((root, name), [])
        for lane, free_from in enumerate(lanes):
            if free_from <= begin or lane == _LANES_MAX:
                lanes[lane] = end
                return self._track(root, name, lane)
        lanes.append(end)
        return self._track(root, name, len(lanes) - 1)

    def _track(self, root: _Root, name: str, lane: int = 0) -> int:
        """Return the number of a track, and describe it if it is new."""
        uuid = self._tracks.get((root, name, lane))
        if uuid is None:
            uuid = len(_Root) + 1 + len(self._tracks)
            self._tracks[root, name, lane] = uuid
            self._writer.track(uuid, name, parent=root, is_counter=root is _Root.GSIS)
        return uuid


def _fields(decoded: Decoded) -> dict[str, Value]:
    """What a register holds, as the entries of an argument."""
    fields: dict[str, Value] = {"value": Hexadecimal(decoded.value)}
    for each in decoded.fields:
        fields[each.name] = f"{each.value:#x} {each.meaning}".rstrip()
    return fields
