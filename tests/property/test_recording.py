"""Recordings of events that nobody thought of, whole and spoilt."""

from __future__ import annotations

import io
from contextlib import suppress

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from devicehost.access_status import AccessStatus
from devicehost.recording import (
    Access,
    BadRecording,
    Dma,
    Event,
    Header,
    Interrupt,
    InterruptKind,
    Learned,
    Lost,
    Operation,
    Packer,
    Plugged,
    Recording,
    RecordingWriter,
    Space,
    Told,
    Unplugged,
    Woken,
    decode_block,
    file_start,
)
from devicehost.recording.layout import CHUNK, MAGIC
from fuzz import recording_reference as reference

HEADER = Header(note="a header")
START = len(file_start(HEADER))

u64 = st.integers(0, (1 << 64) - 1)
now = st.integers(-(1 << 34), 1 << 34).map(lambda since: (1 << 42) + since)
times = now | u64
durations = st.integers(0, 1 << 17) | u64
vcpus = st.none() | st.integers(0, 300) | st.integers(0, 1 << 40)
spaces, operations = st.sampled_from(Space), st.sampled_from(Operation)
near = st.integers(0, 1 << 17) | st.integers(-8, 8).map(lambda at: (1 << 32) + at)
addresses = near | u64
names = st.sampled_from(["uart0", "", "a.b-c"]) | st.text(max_size=20)
small = st.binary(max_size=40)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=10,
)


@st.composite
def accesses(draw: st.DrawFn) -> Access:
    """Most of them as they are in practice, and some as they can be at all."""
    size = draw(st.sampled_from((1, 2, 4, 8)) | st.integers(0, 40) | u64)
    is_usual = size <= 40 and draw(st.booleans())
    data = draw(st.binary(min_size=size, max_size=size) if is_usual else small)
    status = draw(st.just(AccessStatus.OK) | st.sampled_from(AccessStatus))
    begin = draw(times), draw(durations), draw(vcpus)
    return Access(*begin, draw(spaces), draw(operations), draw(addresses), size, data, status)


signed = st.integers(-(1 << 63), (1 << 63) - 1)
events: st.SearchStrategy[Event] = (
    accesses()
    | accesses()
    | st.builds(Interrupt, times, u64, st.sampled_from(InterruptKind), names)
    | st.builds(Dma, times, names, operations, u64, small)
    | st.builds(Plugged, times, st.dictionaries(st.text(max_size=5), json_values, max_size=3))
    | st.builds(Unplugged, times, names)
    | st.builds(Learned, times, names, names, signed | small)
    | st.builds(Woken, times, names, names)
    | st.builds(Told, times, names, small)
    | st.builds(Lost, u64)
)
lists = st.lists(events, max_size=20)
capacities = st.sampled_from((36, 64, 200, 1000, 256 << 10))


def recorded(some: list[Event], capacity: int) -> bytes:
    file = io.BytesIO()
    writer = RecordingWriter(file, HEADER, capacity=capacity)
    for event in some:
        writer.write(event)
    writer.close()
    return file.getvalue()


def chunk_places(data: bytes) -> list[int]:
    """Where the chunks behind the header begin."""
    places, at = [], START
    while at < len(data):
        places.append(at)
        at += CHUNK.size + CHUNK.unpack_from(data, at)[1]
    return places


@given(lists)
def test_any_events_come_out_of_a_block_as_they_went_in(some: list[Event]) -> None:
    packer = Packer()
    assert all(packer.event(event) for event in some)
    assert packer.count == len(some)
    block = packer.take()
    assert list(decode_block(block)) == some
    assert reference.block_events(block) == (some, True)


@given(lists, capacities)
def test_any_events_come_out_of_a_file_as_they_went_in(some: list[Event], capacity: int) -> None:
    recording = Recording.read(io.BytesIO(recorded(some, capacity)))
    assert list(recording) == list(recording) == some
    assert recording.is_complete
    assert recording.header == HEADER


@given(lists, capacities)
def test_blocks_keep_to_their_capacity_unless_one_event_is_too_long(
    some: list[Event], capacity: int
) -> None:
    packer, taken = Packer(capacity), list[Event]()
    for event in some:
        if not packer.event(event):
            count, block = packer.count, packer.take()
            assert count
            assert len(block) <= capacity or count == 1
            taken += decode_block(block)
            assert packer.event(event)
    assert taken + list(decode_block(packer.take())) == some


@given(lists, capacities, st.data())
def test_a_file_that_was_cut_anywhere_gives_the_events_before_the_cut(
    some: list[Event], capacity: int, data: st.DataObject
) -> None:
    file = recorded(some, capacity)
    size = data.draw(st.integers(0, len(file) - 1))
    if size < START:
        with pytest.raises(BadRecording, match=r"header|empty"):
            Recording.read(io.BytesIO(file[:size]))
        return
    recording = Recording.read(io.BytesIO(file[:size]))
    found = list(recording)
    assert found == some[: len(found)]
    assert recording.damage
    whole = [place for place in chunk_places(file) if place <= size]
    in_whole_blocks = sum(CHUNK.unpack_from(file, place)[2] for place in whole[:-1])
    assert len(found) >= in_whole_blocks


@given(lists, capacities, st.data(), st.integers(1, 255))
@settings(max_examples=300)
def test_a_byte_that_is_wrong_costs_at_most_its_block_and_makes_up_nothing(
    some: list[Event], capacity: int, data: st.DataObject, change: int
) -> None:
    file = bytearray(recorded(some, capacity))
    places = chunk_places(bytes(file))
    at = data.draw(st.integers(0, len(file) - 1))
    before = sum(CHUNK.unpack_from(file, place)[2] for place in places if place + CHUNK.size <= at)
    file[at] ^= change
    try:
        recording = Recording.read(io.BytesIO(bytes(file)))
    except BadRecording:
        assert at < START
        return
    assert at >= START
    found = list(recording)
    assert recording.damage
    place = max(place for place in places if place <= at)
    if at < place + CHUNK.size:  # where the next chunk begins can't be known
        assert found == some[: len(found)]
        return
    lost = CHUNK.unpack_from(file, place)[2]
    expected = [*some[: before - lost], *([Lost(lost)] if lost else []), *some[before:]]
    assert found == expected


@given(st.binary(max_size=300))
@example(b"")
def test_any_bytes_are_a_block_or_refused(data: bytes) -> None:
    found, is_whole = list[Event](), False
    with suppress(BadRecording):
        found.extend(decode_block(data))
        is_whole = True
    expected, expected_whole = reference.block_events(data)
    assert len(found) <= len(expected)
    assert is_whole == expected_whole
    assert not is_whole or found == expected


@given(st.binary(max_size=300), st.integers(0, 60))
def test_any_bytes_behind_a_header_are_read_without_an_error(data: bytes, kept: int) -> None:
    file = recorded([Lost(1)], 64)[: START + kept] + data
    recording = Recording.read(io.BytesIO(file))
    found = list(recording)
    assert len(found) <= len(file)
    assert recording.is_complete is (recording.damage is None)
    assert (found, recording.is_complete) == reference.recording_events(file)


@given(st.binary(max_size=100))
@example(MAGIC)
def test_any_bytes_are_a_recording_or_refused(data: bytes) -> None:
    with pytest.raises(BadRecording):
        Recording.read(io.BytesIO(data))
