"""Fuzz target: whatever is in a file, it is read as far as it makes sense, and no further.

An input is a way to make a file, and what goes into it: the whole file as it is; or chunks
with the right checksums behind a right header, so that what they carry is looked at too.

What holds:
    Opening raises nothing but a BadRecording, and only if the plainest reader finds no
    recording either. Iterating raises nothing.
    The events are those that the plainest reader finds, the second time too, and when the
    file comes in small pieces.
    The recording is complete if that one says so, and else says what is wrong.
    What was read can be written, and is then read again.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from devicehost.recording import (
    Annotator,
    BadRecording,
    DeviceRecord,
    Event,
    Header,
    Recording,
    RecordingWriter,
    Space,
    file_end,
    file_start,
)
from devicehost.recording.layout import CHUNK, CHUNK_CHECKED
from fuzz import recording_reference as reference
from fuzz.source import Source

KINDS: Final = (b"EVTS", b"EVTS", b"EVTS", b"END ", b"HEAD", b"NEWS")
REGISTERS: Final[dict[str, object]] = {
    "name": "chip",
    "registers": [{"name": "DATA", "offset": 0, "size": 4}],
}
HEADER: Final = Header(
    (
        DeviceRecord("low", "a", ranges=((Space.PIO, 0, 0x100), (Space.MMIO, 0, 0x100))),
        DeviceRecord("high", "b", ranges=((Space.MMIO, 1 << 32, 0x100),), registers=REGISTERS),
    )
)


class Pieces(io.BytesIO):
    """A file that can't be rewound, and gives a few bytes at a time."""

    def read(self, size: int | None = -1, /) -> bytes:
        assert size is not None
        assert size >= 0
        return super().read(min(size, 7))

    def seekable(self) -> bool:
        return False


def chunk(kind: bytes, events: int, payload: bytes, checksum: int) -> bytes:
    """A chunk whose header is right, whatever else is."""
    head = CHUNK.pack(kind, len(payload), events, checksum, 0)[:CHUNK_CHECKED]
    return head + zlib.crc32(head).to_bytes(4, "little") + payload


def whole(source: Source) -> bytes:
    """All of the input is the file."""
    return source.take(1 << 20)


def start_and_rest(source: Source) -> bytes:
    """All of the input stands behind the header."""
    return file_start(HEADER) + source.take(1 << 20)


def chunks(source: Source) -> bytes:
    """Chunks; the file may be cut at its end, and have an end or not."""
    file = file_start(HEADER)
    for _ in range(source.byte() % 4):
        kind, events, is_wrong, payload = (
            source.choose(KINDS),
            source.byte(),
            source.byte() == 1,
            source.blob(),
        )
        file += chunk(kind, events, payload, zlib.crc32(payload) ^ is_wrong)
    if source.byte() % 2:
        file += file_end()
    return file[: len(file) - source.byte()]


def header(source: Source) -> bytes:
    """A header with the right checksum."""
    text = source.blob()
    start = file_start(HEADER)[:12]
    return start + chunk(b"HEAD", 0, text, zlib.crc32(text)) + file_end()


WAYS: Final[tuple[Callable[[Source], bytes], ...]] = (chunks, whole, start_and_rest, header)


def test_one_input(data: bytes) -> str | None:
    """Read a file; return what is wrong with it, if something is."""
    source = Source(data)
    way = source.choose(WAYS)
    file = way(source)
    try:
        recording = Recording.read(io.BytesIO(file))
    except BadRecording as error:
        refused = error
    else:
        return _check_read(recording, file)
    if way is not header:
        _check_refused(file)
    assert str(refused)
    return str(refused)


def _check_read(recording: Recording, file: bytes) -> str | None:
    """Compare what is read with what the plainest reader reads."""
    events = list(recording)
    expected, is_complete = reference.recording_events(file)
    assert events == expected, f"{events} instead of {expected}"
    assert recording.is_complete == is_complete, recording.damage
    assert bool(recording.damage) != is_complete
    assert list(recording) == events
    pieces = Recording.read(Pieces(file))
    assert list(pieces) == events
    assert pieces.damage == recording.damage
    _check_written(recording.header, events)
    _check_annotated(recording.header, events)
    return recording.damage


def _check_refused(file: bytes) -> None:
    """See that there is no recording, or that what is said of its devices is wrong."""
    try:
        reference.recording_events(file)
    except reference.Nonsense:
        return
    assert not file.startswith(file_start(HEADER)), "a good header was refused"


def _check_written(header: Header, events: list[Event]) -> None:
    """Write the events and read them again; in small blocks, so that there are some."""
    file = io.BytesIO()
    writer = RecordingWriter(file, header, capacity=64)
    for event in events:
        writer.write(event)
    writer.close()
    again = Recording.read(io.BytesIO(file.getvalue()))
    assert again.header == header
    assert list(again) == events
    assert again.is_complete, again.damage


def _check_annotated(header: Header, events: list[Event]) -> None:
    """Nothing but what is said of a device that was plugged can be refused."""
    with suppress(BadRecording):
        annotator = Annotator(header.devices)
        for event in events:
            assert annotator.annotate(event).event is event
