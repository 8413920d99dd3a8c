"""From bytes to messages: whole, in pieces, too long, with file descriptors, and out of step."""

from __future__ import annotations

import struct

import pytest

from devicehost.vfio_user import Limits, MalformedMessage, MessageTooLong, OutOfStep, ReceiveBuffer
from devicehost.vfio_user.framing import Item, Message, StrayFds

LIMITS = Limits(max_data_xfer_size=64, max_version_data=64, max_msg_fds=2, max_drained_size=200)
LONGEST = 96


def packed(message_id: int, payload: bytes = b"", size: int | None = None) -> bytes:
    size = 16 + len(payload) if size is None else size
    return struct.pack("<HHIII", message_id, 13, size, 0, 0) + payload


@pytest.fixture
def buffer() -> ReceiveBuffer:
    return ReceiveBuffer(LIMITS)


def seen(items: list[Item]) -> list[tuple[int, bytes, tuple[int, ...]] | StrayFds]:
    """Messages as (id, payload, fds)."""
    found: list[tuple[int, bytes, tuple[int, ...]] | StrayFds] = []
    for item in items:
        assert not isinstance(item, OutOfStep), item
        if isinstance(item, Message):
            assert item.fault is None
            found.append((item.header.message_id, bytes(item.payload), item.fds))
        else:
            found.append(item)
    return found


# Bytes.


def test_one_message_in_one_read(buffer: ReceiveBuffer) -> None:
    assert seen(buffer.feed(packed(1, b"abc"))) == [(1, b"abc", ())]
    assert buffer.empty


def test_many_messages_in_one_read(buffer: ReceiveBuffer) -> None:
    data = packed(1, b"abc") + packed(2) + packed(3, b"d")
    assert seen(buffer.feed(data)) == [(1, b"abc", ()), (2, b"", ()), (3, b"d", ())]


@pytest.mark.parametrize("cut", range(1, 37))
def test_a_read_may_end_anywhere(buffer: ReceiveBuffer, cut: int) -> None:
    data = packed(1, b"abc") + packed(2, b"") + packed(3, b"de")
    items = buffer.feed(data[:cut])
    assert buffer.empty is (cut in {19, 35})
    items += buffer.feed(data[cut:])
    assert seen(items) == [(1, b"abc", ()), (2, b"", ()), (3, b"de", ())]


def test_a_message_may_come_byte_by_byte(buffer: ReceiveBuffer) -> None:
    data = packed(1, b"abc") + packed(2)
    items = [item for byte in data for item in buffer.feed(bytes([byte]))]
    assert seen(items) == [(1, b"abc", ()), (2, b"", ())]


def test_nothing_is_copied_of_a_message_that_came_whole(buffer: ReceiveBuffer) -> None:
    data = bytearray(packed(1, b"abc"))
    [message] = buffer.feed(data)
    assert isinstance(message, Message)
    data[16:] = b"xyz"
    assert bytes(message.payload) == b"xyz"


def test_what_was_unfinished_is_kept_when_the_reader_reuses_its_buffer(
    buffer: ReceiveBuffer,
) -> None:
    data = bytearray(packed(1, b"abcdef"))
    reused = bytearray(data[:18])
    assert buffer.feed(reused) == []
    reused[:] = bytes(18)
    assert seen(buffer.feed(data[18:])) == [(1, b"abcdef", ())]


def test_an_empty_read_changes_nothing(buffer: ReceiveBuffer) -> None:
    assert buffer.feed(packed(1, b"abc")[:10]) == []
    assert buffer.feed(b"") == []
    assert seen(buffer.feed(packed(1, b"abc")[10:])) == [(1, b"abc", ())]


def test_the_longest_message_is_taken(buffer: ReceiveBuffer) -> None:
    assert seen(buffer.feed(packed(1, bytes(LONGEST - 16)))) == [(1, bytes(LONGEST - 16), ())]


# Too long.


@pytest.mark.parametrize("size", [LONGEST + 1, 199, 200])
@pytest.mark.parametrize("step", [1, 7, 16, 300])
def test_a_message_that_is_too_long_is_thrown_away_and_the_next_one_is_read(
    buffer: ReceiveBuffer, size: int, step: int
) -> None:
    data = packed(0) + packed(1, bytes(size - 16)) + packed(2, b"abc")
    items = [item for at in range(0, len(data), step) for item in buffer.feed(data[at : at + step])]
    before, long, after = items
    assert isinstance(long, Message)
    assert isinstance(long.fault, MessageTooLong)
    assert (long.header.message_id, long.header.size) == (1, size)
    assert bytes(long.payload) == b""
    assert long.fault.errno == 7, "E2BIG"
    assert seen([before, after]) == [(0, b"", ()), (2, b"abc", ())]
    assert buffer.empty


def test_a_message_that_is_too_long_costs_no_memory(buffer: ReceiveBuffer) -> None:
    buffer.feed(packed(1, bytes(100), size=200))
    assert not buffer.empty
    assert len(buffer._partial) == 0


# Out of step.


@pytest.mark.parametrize("size", [0, 1, 15, 201, 0xFFFF_FFFF])
@pytest.mark.parametrize("step", [1, 16, 300])
def test_a_size_that_cannot_be_ends_it_all(buffer: ReceiveBuffer, size: int, step: int) -> None:
    data = packed(1) + packed(2, b"abc", size=size) + packed(3)
    items = [item for at in range(0, len(data), step) for item in buffer.feed(data[at : at + step])]
    assert seen(items[:1]) == [(1, b"", ())]
    [error] = items[1:]
    assert isinstance(error, OutOfStep)
    assert error.metadata == {"size": str(size)}
    assert not buffer.empty
    assert buffer.feed(packed(4)) == []


# File descriptors.


def test_fds_belong_to_the_message_that_came_with_them(buffer: ReceiveBuffer) -> None:
    assert seen(buffer.feed(packed(1, b"abc"), [5, 6])) == [(1, b"abc", (5, 6))]
    assert seen(buffer.feed(packed(2))) == [(2, b"", ())]


def test_fds_belong_to_the_last_message_of_a_read(buffer: ReceiveBuffer) -> None:
    # The kernel joins what came before without any, and ends the read behind them.
    data = packed(1) + packed(2) + packed(3, b"abc")
    assert seen(buffer.feed(data, [5])) == [(1, b"", ()), (2, b"", ()), (3, b"abc", (5,))]


@pytest.mark.parametrize("cut", range(1, 19))
@pytest.mark.parametrize("with_first", [True, False])
def test_fds_may_come_with_any_segment_of_a_message(
    buffer: ReceiveBuffer, cut: int, *, with_first: bool
) -> None:
    data = packed(1, b"abc")
    items = buffer.feed(packed(0) + data[:cut], [5] if with_first else [])
    items += buffer.feed(data[cut:], [] if with_first else [5])
    assert seen(items) == [(0, b"", ()), (1, b"abc", (5,))]


def test_fds_of_several_segments_are_put_together_in_order(buffer: ReceiveBuffer) -> None:
    data = packed(1, b"abc")
    items = buffer.feed(data[:5], [7]) + buffer.feed(data[5:17]) + buffer.feed(data[17:], [3])
    assert seen(items) == [(1, b"abc", (7, 3))]


def test_fds_that_come_with_the_end_of_one_message_and_the_beginning_of_another_are_the_laters(
    buffer: ReceiveBuffer,
) -> None:
    first, second = packed(1, b"abc"), packed(2, b"def")
    items = buffer.feed(first[:17]) + buffer.feed(first[17:] + second[:17], [5])
    items += buffer.feed(second[17:])
    assert seen(items) == [(1, b"abc", ()), (2, b"def", (5,))]


def test_too_many_fds_are_stray_and_their_message_is_at_fault(buffer: ReceiveBuffer) -> None:
    stray, message = buffer.feed(packed(1, b"abc"), [5, 6, 7])
    assert stray == StrayFds((5, 6, 7))
    assert isinstance(message, Message)
    assert isinstance(message.fault, MalformedMessage)
    assert message.fault.metadata["field"] == "number of fds"
    assert message.fault.metadata["value"] == "3"
    assert message.fds == ()
    assert seen(buffer.feed(packed(2), [5, 6])) == [(2, b"", (5, 6))]


def test_an_unfinished_message_does_not_collect_fds_without_end(buffer: ReceiveBuffer) -> None:
    data = packed(1, b"abcdefgh")
    strays = []
    for fd in range(20):
        strays += buffer.feed(data[fd : fd + 1], [fd, 100 + fd])
        assert len(buffer._fds) <= LIMITS.max_msg_fds
    *more, message = buffer.feed(data[20:])
    assert isinstance(message, Message)
    assert message.fault is not None
    assert message.fault.metadata["value"] == "40"
    closed = [fd for item in strays + more if isinstance(item, StrayFds) for fd in item.fds]
    assert sorted(closed) == sorted([*range(20), *range(100, 120)])


def test_fds_of_a_message_that_is_thrown_away_are_stray(buffer: ReceiveBuffer) -> None:
    data = packed(1, bytes(150))
    assert buffer.feed(data[:20], [5]) == []
    stray, message = buffer.feed(data[20:])
    assert stray == StrayFds((5,))
    assert isinstance(message, Message)
    assert message.fds == ()


def test_fds_without_a_byte_are_stray(buffer: ReceiveBuffer) -> None:
    assert buffer.feed(b"", [5]) == [StrayFds((5,))]


def test_fds_are_stray_when_the_stream_is_out_of_step(buffer: ReceiveBuffer) -> None:
    assert buffer.feed(packed(1)[:4], [4]) == []
    stray, error = buffer.feed(bytes(12), [5])  # a size of 0
    assert stray == StrayFds((4, 5))
    assert isinstance(error, OutOfStep)
    assert buffer.feed(packed(1), [6]) == [StrayFds((6,))]


def test_fds_of_an_unfinished_message_are_stray_at_the_end(buffer: ReceiveBuffer) -> None:
    assert buffer.feed(packed(1, b"abc")[:10], [4, 5]) == []
    assert buffer.close() == [StrayFds((4, 5))]
    assert buffer.close() == []
    assert buffer.feed(packed(1), [6]) == [StrayFds((6,))]
    assert not buffer.empty
