"""Events go to a file block by block."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from devicehost.recording import (
    Access,
    Event,
    Operation,
    Packer,
    Recording,
    RecordingWriter,
    Space,
    Told,
    file_block,
    file_end,
    file_start,
)
from unit.recording.samples import EVENTS, HEADER, T0, read


def test_a_file_without_events_has_a_header_and_an_end() -> None:
    file = io.BytesIO()
    RecordingWriter(file, HEADER).close()
    assert file.getvalue() == file_start(HEADER) + file_end(0)


def test_what_a_server_writes_from_blocks_is_what_a_writer_writes() -> None:
    file, packer = io.BytesIO(), Packer(4 << 20)
    writer = RecordingWriter(file, HEADER, capacity=4 << 20)
    for event in EVENTS:
        writer.write(event)
        packer.event(event)
    writer.close()
    start, end = file_start(HEADER), file_end(len(EVENTS))
    assert file.getvalue() == start + file_block(packer.take()) + end


def test_all_but_the_last_block_is_in_the_file_whatever_happens_then(tmp_path: Path) -> None:
    path = tmp_path / "some.dhrec"
    with path.open("wb") as file:
        writer = RecordingWriter(file, HEADER, capacity=4096)
        assert list(Recording.open(path)) == []
        for number in range(1000):
            writer.write(read(T0 + number))
        recording = Recording.open(path)
        events = list(recording)
        assert events == [read(T0 + number) for number in range(len(events))]
        assert 1000 - 4096 // 16 <= len(events) < 1000
        assert not recording.is_complete
        writer.flush()
        assert len(list(recording)) == 1000
        writer.close()
        assert list(recording)[-1] == read(T0 + 999)
        assert recording.is_complete


def test_an_event_that_cannot_be_written_does_not_spoil_the_file() -> None:
    file = io.BytesIO()
    writer = RecordingWriter(file, HEADER)
    events: list[Event] = [read(), Told(T0, "a", b"b")]
    writer.write(events[0])
    with pytest.raises(ValueError, match="address is -1"):
        writer.write(Access(T0, 1, 0, Space.MMIO, Operation.READ, -1, 1, b"a"))
    writer.write(events[1])
    writer.close()
    recording = Recording.read(io.BytesIO(file.getvalue()))
    assert list(recording) == events
    assert recording.is_complete
