"""A file into events, and what is wrong with it.

    recording = Recording.open("boot.dhrec")
    for event in recording:
        ...
    if recording.damage:
        print(recording.damage)

Invariants:
    BadRecording is raised only before the first event: what can't be read at all is told
    from what can be read in part.
    Memory is in proportion to one block, and time to the length of the file, whatever is
    in it. A length is checked before anything is read for it, and what is read is never
    more than there is.
    Every event that is given was in the file, in this order. Those of a block with a wrong
    checksum are one `Lost`.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import BinaryIO, Final

from devicehost.recording import strict_json
from devicehost.recording.decoding import decode_block
from devicehost.recording.events import Event, Lost
from devicehost.recording.header import Header
from devicehost.recording.layout import (
    BLOCK_MAX,
    CHUNK,
    CHUNK_CHECKED,
    END,
    EVENTS,
    HEAD,
    HEADER_MAX,
    MAGIC,
    START,
    VERSION,
    BadRecording,
)

_PIECE: Final = 1 << 20
"""How much is read at once, in bytes: a length may promise more than there is."""

_NAMED_MAX: Final = 5
"""How many damages are told one by one."""


class Recording:
    """A recording that can be read, at least its header.

    Iterating gives its events, each time from the first.

    Attributes:
        header: what it begins with.
    """

    def __init__(
        self, header: Header, start: int, rewound: Callable[[], AbstractContextManager[BinaryIO]]
    ) -> None:
        self.header = header
        self._start = start
        self._rewound = rewound
        self._damages = _Damages()

    @classmethod
    def open(cls, path: str | PathLike[str]) -> Recording:
        """Read the header of a file. The file is open only while somebody iterates.

        Raises:
            BadRecording: it isn't a recording, or not of this version.
            OSError: it can't be read.
        """
        path = Path(path)
        with path.open("rb") as file:
            header, start = _read_header(file)

        @contextmanager
        def rewound() -> Iterator[BinaryIO]:
            with path.open("rb") as file:
                file.seek(start)
                yield file

        return cls(header, start, rewound)

    @classmethod
    def read(cls, file: BinaryIO) -> Recording:
        """Read the header from where a file is; it stays its owner's to close.

        One that can't be rewound, such as a pipe, can be iterated once.

        Raises:
            BadRecording: it isn't a recording, or not of this version.
        """
        header, start = _read_header(file)
        place = file.tell() if file.seekable() else None
        is_fresh = True

        @contextmanager
        def rewound() -> Iterator[BinaryIO]:
            nonlocal is_fresh
            if place is not None:
                file.seek(place)
            elif not is_fresh:
                raise io.UnsupportedOperation("a recording from a pipe can be read only once")
            is_fresh = False
            yield file

        return cls(header, start, rewound)

    @property
    def damage(self) -> str | None:
        """What was wrong with it, as far as it was iterated; None if nothing was."""
        return self._damages.text

    @property
    def is_complete(self) -> bool:
        """Whether it was iterated to its end, and nothing was wrong."""
        return self._damages.is_at_end and not self._damages.text

    def __iter__(self) -> Iterator[Event]:
        self._damages = damages = _Damages()
        with self._rewound() as file:
            yield from _events(file, self._start, damages)


class _Damages:
    """What was found to be wrong in one reading.

    Attributes:
        is_at_end: whether there is nothing more to come.
    """

    def __init__(self) -> None:
        self.is_at_end = False
        self._texts: list[str] = []
        self._more = 0

    def add(self, text: str) -> None:
        """Take note of one."""
        if len(self._texts) < _NAMED_MAX:
            self._texts.append(text)
        else:
            self._more += 1

    @property
    def text(self) -> str | None:
        """All of them in one line, or None."""
        more = [f"and {self._more} more"] if self._more else []
        return "; ".join(self._texts + more) or None


def _read_header(file: BinaryIO) -> tuple[Header, int]:
    """Read all before the first block: return the header, and how many bytes it was."""
    start = _read(file, START.size)
    if not start:
        raise BadRecording("not a recording: it is empty")
    if start[: len(MAGIC)] != MAGIC[: len(start)]:
        raise BadRecording(
            f"not a recording: it begins with {start[: len(MAGIC)]!r}, and not with {MAGIC!r}"
        )
    if len(start) < START.size:
        raise _cut_in_header(len(start))
    _, version = START.unpack(start)
    if version != VERSION:
        raise BadRecording(f"a recording of format {version}; only format {VERSION} can be read")
    payload = _read_header_chunk(file)
    header = Header.from_json(strict_json.load("the header of this recording", payload))
    return header, START.size + CHUNK.size + len(payload)


def _read_header_chunk(file: BinaryIO) -> bytes:
    """Return the payload of the first chunk."""
    head = _read(file, CHUNK.size)
    if len(head) < CHUNK.size:
        raise _cut_in_header(START.size + len(head))
    kind, length, _, checksum, check = CHUNK.unpack(head)
    if zlib.crc32(head[:CHUNK_CHECKED]) != check:
        raise BadRecording("the header of this recording has a wrong checksum")
    if kind != HEAD:
        raise BadRecording(f"a recording that begins with {kind!r} instead of its header")
    if length > HEADER_MAX:
        raise BadRecording(f"the header has {length} bytes, but may have {HEADER_MAX}")
    payload = _read(file, length)
    if len(payload) < length:
        raise _cut_in_header(START.size + CHUNK.size + len(payload))
    if zlib.crc32(payload) != checksum:
        raise BadRecording("the header of this recording has a wrong checksum")
    return payload


def _cut_in_header(size: int) -> BadRecording:
    return BadRecording(f"this recording was cut within its header, after {size} bytes")


@dataclass(frozen=True, slots=True)
class _Chunk:
    """A chunk, or as much of one as there is; nothing if its checksum is wrong."""

    at: int
    kind: bytes
    events: int
    payload: bytes
    is_cut: bool
    is_spoilt: bool = False

    @property
    def end(self) -> int:
        return self.at + CHUNK.size + len(self.payload)


def _events(file: BinaryIO, start: int, damages: _Damages) -> Iterator[Event]:
    """Read what is behind the header, which has `start` bytes."""
    events = 0
    for chunk in _chunks(file, start, damages):
        events += chunk.events
        if chunk.kind == EVENTS:
            yield from _events_of(chunk, damages)
        elif chunk.kind == END and not chunk.is_cut:
            if not chunk.is_spoilt:
                _check_end(chunk, events, damages)
            if _read(file, 1):
                damages.add("something follows its end")
            break
    damages.is_at_end = True


def _chunks(file: BinaryIO, at: int, damages: _Damages) -> Iterator[_Chunk]:
    """Read chunks until there are none; `at` is where they begin."""
    while True:
        head = _read(file, CHUNK.size)
        if len(head) < CHUNK.size:
            damages.add(f"it was cut at byte {at + len(head)}: it has no end")
            return
        kind, length, events, checksum, check = CHUNK.unpack(head)
        if zlib.crc32(head[:CHUNK_CHECKED]) != check or length > BLOCK_MAX:
            damages.add(f"nothing can be read from byte {at} on: no chunk begins there")
            return
        payload = _read(file, length)
        chunk = _Chunk(at, kind, events, payload, is_cut=len(payload) < length)
        if chunk.is_cut:
            damages.add(
                f"it was cut at byte {chunk.end}, in a chunk whose checksum can't be checked then"
            )
        elif zlib.crc32(payload) != checksum:
            damages.add(f"the chunk at byte {at} has a wrong checksum ({events} events are lost)")
            chunk = replace(chunk, payload=b"", is_spoilt=True)
        yield chunk
        if chunk.is_cut:
            return
        at += CHUNK.size + length


def _events_of(chunk: _Chunk, damages: _Damages) -> Iterator[Event]:
    """Decode a chunk of events; what is missing of them is lost."""
    found = 0
    try:
        for event in decode_block(chunk.payload):
            found += 1
            yield event
    except BadRecording as error:
        if not chunk.is_cut:
            damages.add(f"the chunk at byte {chunk.at} is damaged: {error}")
    if found < chunk.events and not chunk.is_cut:
        yield Lost(chunk.events - found)


def _check_end(chunk: _Chunk, events: int, damages: _Damages) -> None:
    """Compare what the end says with what was there."""
    try:
        counted = strict_json.load("the end", chunk.payload).get("events")
    except BadRecording as error:
        damages.add(str(error))
        return
    if counted not in (None, events):
        damages.add(f"it had {counted} events when it was made, and has {events}")


def _read(file: BinaryIO, size: int) -> bytes:
    """Read so many bytes, or as many as there are."""
    pieces = []
    while size and (piece := file.read(min(size, _PIECE))):
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)
