"""Events into a file.

    with path.open("wb") as file:
        writer = RecordingWriter(file, header)
        for event in events:
            writer.write(event)
        writer.close()

A server has its events in blocks already: it writes `file_start(header)`, then
`file_block(block)` for each of them, then `file_end()`.
"""

from __future__ import annotations

import zlib
from typing import BinaryIO

from devicehost.recording import strict_json
from devicehost.recording.events import Event
from devicehost.recording.header import Header
from devicehost.recording.layout import (
    BLOCK,
    BLOCK_MAX,
    CAPACITY,
    CHUNK,
    CHUNK_CHECKED,
    END,
    EVENTS,
    HEAD,
    MAGIC,
    START,
    VERSION,
    BadRecording,
)
from devicehost.recording.packer import Packer


def file_start(header: Header) -> bytes:
    """Return what a file begins with.

    Raises:
        ValueError: what is in the header isn't JSON, or too much.
    """
    head = strict_json.dump("the header of a recording", header.to_json())
    return START.pack(MAGIC, VERSION) + _chunk(HEAD, 0, head)


def file_block(block: bytes) -> bytes:
    """Return a block from a `Packer` as it stands in a file; of no bytes, no bytes.

    Raises:
        BadRecording: it is no block.
    """
    if not block:
        return b""
    if not BLOCK.size <= len(block) <= BLOCK_MAX:
        raise BadRecording(
            f"a block has {len(block)} bytes, but must have {BLOCK.size} to {BLOCK_MAX}"
        )
    _, count = BLOCK.unpack_from(block)
    return _chunk(EVENTS, count, block)


def file_end(events: int | None = None) -> bytes:
    """Return what a file ends with.

    Args:
        events: how many there are in all blocks; None if nobody counted.
    """
    totals: dict[str, object] = {} if events is None else {"events": events}
    return _chunk(END, 0, strict_json.dump("the end of a recording", totals))


def _chunk(kind: bytes, events: int, payload: bytes) -> bytes:
    head = CHUNK.pack(kind, len(payload), events, zlib.crc32(payload), 0)[:CHUNK_CHECKED]
    return b"".join((head, zlib.crc32(head).to_bytes(4, "little"), payload))


class RecordingWriter:
    """Writes a recording, block by block: what a crash may cost is the last one.

    Args:
        file: written to, and flushed after each block; it stays its owner's to close.
        header: what the recording begins with.
        capacity: how long a block may get, in bytes.

    Raises:
        ValueError: what is in the header isn't JSON, or too much.
    """

    def __init__(self, file: BinaryIO, header: Header, *, capacity: int = CAPACITY) -> None:
        self._file = file
        self._packer = Packer(capacity)
        self._events = 0
        self._put(file_start(header))

    def write(self, event: Event) -> None:
        """Add an event.

        Raises:
            ValueError: it has a value that can't be.
        """
        if not self._packer.event(event):
            self.flush()
            self._packer.event(event)

    def flush(self) -> None:
        """Write what there is so far."""
        self._events += self._packer.count
        self._put(file_block(self._packer.take()))

    def close(self) -> None:
        """Write the rest, and the end. A file without an end counts as one that was cut."""
        self.flush()
        self._put(file_end(self._events))

    def _put(self, data: bytes) -> None:
        self._file.write(data)
        self._file.flush()
