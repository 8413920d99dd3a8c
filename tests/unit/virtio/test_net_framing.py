"""Frames on a stream, in whatever pieces they come."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devicehost_server.devices.virtio.net.framing import (
    BUFFER_SIZE,
    LENGTH,
    SIZE_MAX,
    BadLength,
    FrameReader,
)


def feed(reader: FrameReader, data: bytes) -> list[bytes]:
    """Read `data`, and take all frames that are whole."""
    frames = []
    while data:
        room = reader.room()
        count = min(len(room), len(data))
        assert count, "no room, though all frames were taken"
        room[:count] = data[:count]
        reader.filled(count)
        data = data[count:]
        while (frame := reader.frame()) is not None:
            frames.append(bytes(frame))
            reader.frame_done()
    return frames


@given(
    frames=st.lists(st.binary(max_size=300), max_size=20),
    cuts=st.lists(st.integers(1, 400), min_size=1),
)
def test_frames_come_out_as_they_went_in(frames: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(LENGTH.pack(len(frame)) + frame for frame in frames)
    reader = FrameReader()
    found, first, turn = [], 0, 0
    while first < len(stream):
        size = cuts[turn % len(cuts)]
        found += feed(reader, stream[first : first + size])
        first += size
        turn += 1
    assert found == frames


def test_the_longest_frames_fit_at_any_place_in_the_buffer() -> None:
    chance = random.Random(5)
    frames = [chance.randbytes(chance.choice((1, 60, SIZE_MAX - 1, SIZE_MAX))) for _ in range(200)]
    stream = b"".join(LENGTH.pack(len(frame)) + frame for frame in frames)
    assert feed(FrameReader(), stream) == frames


def test_a_frame_that_nobody_takes_stays_and_the_buffer_fills_up() -> None:
    reader = FrameReader()
    stream = (LENGTH.pack(1000) + bytes(1000)) * 1000
    while room := reader.room():
        room[:] = stream[: len(room)]
        reader.filled(len(room))
    assert reader.frame() is not None
    assert not reader.room()
    assert reader.clear() == BUFFER_SIZE // 1004
    assert len(reader.room()) == BUFFER_SIZE


@pytest.mark.parametrize("size", [SIZE_MAX + 1, 0x7FFF_FFFF, 0xFFFF_FFFF])
def test_an_absurd_length_is_told(size: int) -> None:
    reader = FrameReader()
    reader.room()[:4] = LENGTH.pack(size)
    reader.filled(4)
    with pytest.raises(BadLength) as bad:
        reader.frame()
    assert bad.value.args == (size,)
