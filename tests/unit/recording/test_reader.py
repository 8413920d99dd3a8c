"""A file is read as far as it makes sense; what doesn't is told."""

from __future__ import annotations

import io
import os
import threading
import tracemalloc
import zlib
from pathlib import Path

import pytest

from devicehost.recording import (
    BadRecording,
    Event,
    Header,
    Lost,
    Packer,
    Recording,
    file_block,
    file_end,
    file_start,
)
from devicehost.recording.layout import CHUNK
from fuzz.recording import chunk
from unit.recording.samples import ACCESSES, EVENTS, HEADER, OTHERS, read, recorded

SMALL = [event for name, event in ACCESSES.items() if name != "a megabyte"] + [*OTHERS.values()]
FILE = recorded(SMALL)
START = len(file_start(HEADER))


def reading(data: bytes) -> tuple[list[Event], Recording]:
    recording = Recording.read(io.BytesIO(data))
    return list(recording), recording


def block(*events: Event) -> bytes:
    packer = Packer()
    for event in events:
        assert packer.event(event)
    return packer.take()


def places(data: bytes) -> list[int]:
    """Where the chunks behind the header begin."""
    found, at = [], START
    while at < len(data):
        found.append(at)
        at += CHUNK.size + CHUNK.unpack_from(data, at)[1]
    return found


def test_a_file_gives_its_header_and_events() -> None:
    events, recording = reading(recorded(EVENTS))
    assert recording.header == HEADER
    assert tuple(events) == EVENTS
    assert recording.is_complete
    assert recording.damage is None


def test_a_recording_is_complete_when_it_was_read_to_its_end() -> None:
    recording = Recording.read(io.BytesIO(FILE))
    assert not recording.is_complete
    events = iter(recording)
    next(events)
    assert not recording.is_complete
    list(events)
    assert recording.is_complete


def test_iterating_begins_anew_each_time(tmp_path: Path) -> None:
    path = tmp_path / "some.dhrec"
    path.write_bytes(FILE)
    for recording in (Recording.open(path), Recording.open(str(path)), reading(FILE)[1]):
        next(iter(recording))
        assert list(recording) == list(recording) == SMALL


def test_two_may_iterate_over_an_opened_file_at_once(tmp_path: Path) -> None:
    path = tmp_path / "some.dhrec"
    path.write_bytes(FILE)
    recording = Recording.open(path)
    assert list(zip(recording, recording, strict=True)) == [(each, each) for each in SMALL]


def opened(path: Path) -> int:
    """How many descriptors this process has of a file."""
    return sum(fd.exists() and fd.samefile(path) for fd in Path("/proc/self/fd").iterdir())


def test_a_file_stays_open_only_while_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "some.dhrec"
    path.write_bytes(FILE)
    recording = Recording.open(path)
    assert opened(path) == 0
    events = iter(recording)
    next(events)
    assert opened(path) == 1
    list(events)
    assert opened(path) == 0
    next(iter(recording))
    assert opened(path) == 0, "who stops early leaves nothing open"


def test_a_recording_may_begin_anywhere_in_a_file() -> None:
    file = io.BytesIO(b"something else" + FILE)
    file.seek(14)
    recording = Recording.read(file)
    assert list(recording) == list(recording) == SMALL


def test_a_recording_from_a_pipe_is_read_once() -> None:
    reader, writer = os.pipe()

    def send() -> None:
        with os.fdopen(writer, "wb") as pipe:
            pipe.write(FILE)

    sender = threading.Thread(target=send)
    sender.start()
    with os.fdopen(reader, "rb", buffering=0) as pipe:
        recording = Recording.read(pipe)
        assert list(recording) == SMALL
        assert recording.is_complete
        with pytest.raises(io.UnsupportedOperation, match="can be read only once"):
            next(iter(recording))
    sender.join()


# No recording.


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a recording: it is empty"),
        (b"\x7fELF\x02\x01\x01\0\0\0\0\0", r"begins with b'\x7fELF\x02\x01\x01\x00', and not"),
        (b"{}", "begins with b'{}', and not with"),
        (FILE[:8] + b"\2\0\0\0" + FILE[12:], "a recording of format 2; only format 1 can be read"),
        (FILE[:12] + FILE[START:], "begins with b'EVTS' instead of its header"),
        (FILE[:12] + bytes(100), "the header of this recording has a wrong checksum"),
        (FILE[:40] + b"?" + FILE[41:], "the header of this recording has a wrong checksum"),
        (FILE[:12] + chunk(b"HEAD", 0, b"[]", zlib.crc32(b"[]")), "must be a JSON object"),
        (FILE[:12] + chunk(b"HEAD", 0, b"{}", zlib.crc32(b"{}")), "devices of the header is None"),
        (
            FILE[:12] + chunk(b"HEAD", 0, bytes((16 << 20) + 1), 0)[:100],
            "the header has 16777217 bytes, but may have 16777216",
        ),
    ],
)
def test_what_is_no_recording_is_refused_with_a_reason(data: bytes, message: str) -> None:
    with pytest.raises(BadRecording) as raised:
        Recording.read(io.BytesIO(data))
    assert message in str(raised.value)


def test_a_file_that_was_cut_in_its_header_says_where() -> None:
    for size in range(1, START):
        message = f"within its header, after {size} bytes"
        with pytest.raises(BadRecording, match=message if size >= 8 else "header"):
            Recording.read(io.BytesIO(FILE[:size]))


def test_a_file_that_is_not_there_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Recording.open(tmp_path / "none")


# Damage.


def test_a_file_that_was_cut_gives_all_events_before_the_cut_and_says_where_it_is() -> None:
    sizes = set()
    for size in range(START, len(FILE)):
        events, recording = reading(FILE[:size])
        assert events == SMALL[: len(events)]
        assert recording.damage is not None
        assert f"it was cut at byte {size}" in recording.damage
        assert not recording.is_complete
        sizes.add(len(events))
    assert sizes == set(range(len(SMALL) + 1)), "each event is there as soon as it is whole"


def test_a_block_that_was_cut_says_that_it_could_not_be_checked() -> None:
    _, recording = reading(FILE[: START + CHUNK.size + 40])
    assert "whose checksum can't be checked" in str(recording.damage)


def test_a_block_with_a_wrong_checksum_is_lost_and_the_next_one_is_read() -> None:
    blocks = [block(read(data=bytes(4)), *[read()] * number) for number in range(3)]
    start = file_start(HEADER) + file_block(blocks[0])
    spoilt = bytearray(file_block(blocks[1]))
    spoilt[-1] ^= 1
    data = start + spoilt + file_block(blocks[2]) + file_end(6)
    events, recording = reading(data)
    assert events == [read(data=bytes(4)), Lost(2), read(data=bytes(4)), read(), read()]
    assert recording.damage == (
        f"the chunk at byte {len(start)} has a wrong checksum (2 events are lost)"
    )
    assert not recording.is_complete


def test_a_block_that_makes_no_sense_is_read_as_far_as_it_does() -> None:
    bad = block(read(), read()) + b"\x42\0\0\0\0"
    data = file_start(HEADER) + file_block(bad) + file_block(block(read())) + file_end()
    events, recording = reading(data)
    assert events == [read()] * 3
    assert "has the kind 0x42, which there isn't" in str(recording.damage)
    worse = bad[:8] + b"\7\0\0\0" + bad[12:]
    events, _ = reading(file_start(HEADER) + file_block(worse) + file_block(block(read())))
    assert events == [read(), read(), Lost(5), read()]


def test_a_chunk_whose_header_is_damaged_ends_the_reading() -> None:
    second = places(FILE)[1]
    for place in range(second, second + CHUNK.size):
        data = FILE[:place] + bytes([FILE[place] ^ 1]) + FILE[place + 1 :]
        events, recording = reading(data)
        assert events == reading(FILE[:second])[0]
        assert recording.damage == (
            f"nothing can be read from byte {second} on: no chunk begins there"
        )


def test_a_block_that_is_missing_is_noticed_at_the_end() -> None:
    first, second = places(FILE)[:2]
    events, recording = reading(FILE[:first] + FILE[second:])
    assert recording.damage == f"it had {len(SMALL)} events when it was made, and has {len(events)}"


@pytest.mark.parametrize("rest", [b"\0", FILE])
def test_what_follows_the_end_is_told(rest: bytes) -> None:
    events, recording = reading(FILE + rest)
    assert events == SMALL
    assert recording.damage == "something follows its end"


def test_an_end_that_is_damaged_is_told() -> None:
    for at in range(1, 20):
        data = FILE[:-at] + bytes([FILE[-at] ^ 1]) + FILE[len(FILE) - at + 1 :]
        events, recording = reading(data)
        assert events == SMALL
        assert recording.damage
    end = chunk(b"END ", 0, b"", zlib.crc32(b""))
    assert "the end isn't JSON" in str(reading(file_start(HEADER) + end)[1].damage)


def test_a_chunk_of_a_new_type_is_passed_over() -> None:
    news = chunk(b"NEWS", 0, b"what a later release has", zlib.crc32(b"what a later release has"))
    events, recording = reading(FILE[:START] + news + FILE[START:])
    assert events == SMALL
    assert recording.is_complete


def test_much_damage_is_told_in_one_line_that_ends() -> None:
    spoilt = file_block(block(read()))[:-1] + b"?"
    events, recording = reading(file_start(HEADER) + spoilt * 1000 + file_end())
    assert events == [Lost(1)] * 1000
    assert str(recording.damage).count("wrong checksum") == 5
    assert str(recording.damage).endswith("; and 995 more")


def test_damage_is_that_of_the_last_reading() -> None:
    file = io.BytesIO(FILE)
    recording = Recording.read(file)
    file.truncate(START)
    assert list(recording) == []
    assert recording.damage
    file.seek(0)
    file.write(FILE)
    assert list(recording) == SMALL
    assert recording.damage is None


# Limits.


@pytest.mark.parametrize("length", [(64 << 20) + 1, (1 << 32) - 1])
def test_a_chunk_may_not_promise_more_than_a_block_can_have(length: int) -> None:
    head = CHUNK.pack(b"EVTS", length, 1, 0, 0)[:16]
    data = file_start(HEADER) + head + zlib.crc32(head).to_bytes(4, "little") + bytes(100)
    events, recording = reading(data)
    assert events == []
    assert "no chunk begins there" in str(recording.damage)


def test_a_length_that_is_not_there_takes_no_memory() -> None:
    head = CHUNK.pack(b"EVTS", 64 << 20, 1, 0, 0)[:16]
    data = file_start(Header()) + head + zlib.crc32(head).to_bytes(4, "little") + bytes(100)
    tracemalloc.start()
    try:
        assert list(Recording.read(io.BytesIO(data))) == []
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_a_recording_with_the_largest_event_is_read_back() -> None:
    large = read(data=bytes((64 << 20) - 100))
    events, recording = reading(file_start(HEADER) + file_block(block(large)) + file_end(1))
    assert events == [large]
    assert recording.is_complete
