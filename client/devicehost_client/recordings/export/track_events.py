"""Perfetto's own trace format, as far as tracks with slices, instants and counters need it.

    writer = TraceWriter(file)
    writer.track(1, "vCPUs")
    writer.track(2, "vCPU 0", parent=1)
    body = writer.named("read LSR") + writer.arguments({"LSR": {"THRE": "1"}})
    writer.begin(1_000, 2, body)
    writer.end(1_700, 2)

Format: the .proto files in protos/perfetto/trace of Perfetto's sources (trace_packet.proto,
track_event/*.proto, interned_data/interned_data.proto). A trace is a concatenation of
packets, in any order: Perfetto sorts them by time.

Invariants:
    All packets are of one sequence, so that names can be sent once and be a number later.
    Only so many names are remembered; those that come later are sent whole each time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import BinaryIO, Final, TypeAlias

from devicehost_client.recordings.export.protobuf import message, number, text, varint


class Hexadecimal(int):
    """A number that is shown in 0x form."""


Value: TypeAlias = int | str | Mapping[str, "Value"]
"""An argument."""

# Trace
_PACKET: Final = 1

# TracePacket
_TIMESTAMP: Final = 8
_SEQUENCE_ID: Final = 10
_TRACK_EVENT: Final = 11
_INTERNED_DATA: Final = 12
_SEQUENCE_FLAGS: Final = 13
_TRACK_DESCRIPTOR: Final = 60
_FLAG_STATE_CLEARED: Final = 1
_FLAG_NEEDS_STATE: Final = 2

# TrackDescriptor
_UUID: Final = 1
_TRACK_NAME: Final = 2
_PARENT_UUID: Final = 5
_COUNTER: Final = 8
_CHILD_ORDERING: Final = 11
_SIBLING_RANK: Final = 12
_LEXICOGRAPHIC: Final = 1

# TrackEvent
_ANNOTATIONS: Final = 4
_TYPE: Final = 9
_NAME_IID: Final = 10
_TRACK_UUID: Final = 11
_CATEGORIES: Final = 22
_NAME: Final = 23
_COUNTER_VALUE: Final = 30
_BEGIN: Final = number(_TYPE, 1)
_END: Final = number(_TYPE, 2)
_INSTANT: Final = number(_TYPE, 3)
_COUNT: Final = number(_TYPE, 4)

# DebugAnnotation
_ARGUMENT_NAME_IID: Final = 1
_ARGUMENT_UINT: Final = 3
_ARGUMENT_TEXT: Final = 6
_ARGUMENT_POINTER: Final = 7
_ARGUMENT_NAME: Final = 10
_ARGUMENT_ENTRIES: Final = 11

# InternedData, and what is in each of these: EventName, DebugAnnotationName
_EVENT_NAMES: Final = 2
_ARGUMENT_NAMES: Final = 3
_IID: Final = 1
_INTERNED: Final = 2

_NAMES_MAX: Final = 16384

_OF_SEQUENCE: Final = number(_SEQUENCE_ID, 1) + number(_SEQUENCE_FLAGS, _FLAG_NEEDS_STATE)
_TIMESTAMP_TAG: Final = number(_TIMESTAMP, 0)[:-1]


class TraceWriter:
    """Writes a trace, packet by packet.

    Args:
        out: where it goes; better a buffered one.

    Raises (all methods that write):
        OSError: it can't be written.
    """

    def __init__(self, out: BinaryIO) -> None:
        self._write = out.write
        self._interned: dict[tuple[int, str], int] = {}
        flags = number(_SEQUENCE_FLAGS, _FLAG_STATE_CLEARED | _FLAG_NEEDS_STATE)
        self._packet(number(_SEQUENCE_ID, 1) + flags)

    def track(
        self, uuid: int, name: str, *, parent: int = 0, rank: int = 0, is_counter: bool = False
    ) -> None:
        """Describe a track; its children are shown in the order of their names.

        Args:
            uuid: a number for it, not 0. Tracks of one name and parent are shown as one.
            name: what it is called.
            parent: the track that it is below; 0 if none.
            rank: where it stands among its siblings.
            is_counter: whether it has a value at a time, and nothing else.
        """
        descriptor = (
            number(_UUID, uuid)
            + text(_TRACK_NAME, name)
            + (number(_PARENT_UUID, parent) if parent else b"")
            + (message(_COUNTER, b"") if is_counter else b"")
            + number(_CHILD_ORDERING, _LEXICOGRAPHIC)
            + number(_SIBLING_RANK, rank)
        )
        self._packet(_OF_SEQUENCE + message(_TRACK_DESCRIPTOR, descriptor))

    def begin(self, time_ns: int, track: int, body: bytes) -> None:
        """Begin a slice; those on a track must nest."""
        self._event(time_ns, track, _BEGIN + body)

    def end(self, time_ns: int, track: int) -> None:
        """End the slice of a track that began last."""
        self._event(time_ns, track, _END)

    def instant(self, time_ns: int, track: int, body: bytes) -> None:
        """Write what took no time."""
        self._event(time_ns, track, _INSTANT + body)

    def count(self, time_ns: int, track: int, value: int) -> None:
        """Write the value of a counter from here on."""
        self._event(time_ns, track, _COUNT + number(_COUNTER_VALUE, value))

    def named(self, name: str, category: str = "") -> bytes:
        """Return the part of a body that is its name, and what kind of thing it is."""
        iid = self._iid(_EVENT_NAMES, name)
        encoded = number(_NAME_IID, iid) if iid else text(_NAME, name)
        return encoded + text(_CATEGORIES, category) if category else encoded

    def arguments(self, values: Mapping[str, Value]) -> bytes:
        """Return the part of a body that are its arguments."""
        return b"".join(
            message(_ANNOTATIONS, self._argument(name, value)) for name, value in values.items()
        )

    def _argument(self, name: str, value: Value) -> bytes:
        iid = self._iid(_ARGUMENT_NAMES, name)
        encoded = number(_ARGUMENT_NAME_IID, iid) if iid else text(_ARGUMENT_NAME, name)
        if isinstance(value, Hexadecimal):
            return encoded + number(_ARGUMENT_POINTER, value)
        if isinstance(value, int):
            return encoded + number(_ARGUMENT_UINT, value)
        if isinstance(value, str):
            return encoded + text(_ARGUMENT_TEXT, value)
        return encoded + b"".join(
            message(_ARGUMENT_ENTRIES, self._argument(*entry)) for entry in value.items()
        )

    def _iid(self, kind: int, name: str) -> int:
        """Return the number of a name, and send it if it is new; 0 if it must go whole."""
        iid = self._interned.get((kind, name))
        if iid is None:
            if len(self._interned) >= _NAMES_MAX:
                return 0
            iid = len(self._interned) + 1
            self._interned[kind, name] = iid
            entry = number(_IID, iid) + text(_INTERNED, name)
            self._packet(_OF_SEQUENCE + message(_INTERNED_DATA, message(kind, entry)))
        return iid

    def _event(self, time_ns: int, track: int, body: bytes) -> None:
        event = number(_TRACK_UUID, track) + body
        timestamp = _TIMESTAMP_TAG + varint(time_ns)
        self._packet(timestamp + _OF_SEQUENCE + message(_TRACK_EVENT, event))

    def _packet(self, content: bytes) -> None:
        self._write(message(_PACKET, content))
