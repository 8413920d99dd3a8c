"""The fast way of an access gives what the general way gives, or leaves it to that."""

from __future__ import annotations

import struct

import pytest

from devicehost.vfio_user import (
    BadValue,
    ClientSession,
    Command,
    DmaRead,
    Ended,
    Failed,
    Limits,
    NotOpen,
    OverPeerLimit,
    RegionData,
    RegionRead,
    RegionWrite,
    RegionWritten,
    Rejected,
    Reply,
    Request,
    ServerSession,
    State,
    TooManyInFlight,
)
from devicehost.vfio_user.fast_access import DATA, pack_read_reply, pack_write_reply

TOP = (1 << 64) - 1


def access(
    command: int, region: int, offset: int, count: int, data: bytes = b"", *, flags: int = 0
) -> bytes:
    header = struct.pack("<HHIII", 7, command, 32 + len(data), flags, 0)
    return header + struct.pack("<QII", offset, region, count) + data


@pytest.fixture
def buffer() -> bytearray:
    return bytearray(4096)


# Both sides together.


def test_a_read_goes_there_and_back(
    client: ClientSession, server: ServerSession, buffer: bytearray
) -> None:
    message_id = client.start_read(buffer, region=1, offset=0xFE00_0000, count=4)
    fields = server.next_access(buffer, 0, 32)
    assert fields == (message_id, Command.REGION_READ, 32, 0, 0, 0xFE00_0000, 1, 4)
    buffer[DATA : DATA + 4] = b"abcd"
    size = pack_read_reply(buffer, message_id, 1, 0xFE00_0000, 4)
    assert size == 36
    assert client.finish(buffer, size, message_id)
    assert buffer[DATA:size] == b"abcd"
    assert client.receive_eof() == [Ended((), within_message=False)]


def test_a_write_goes_there_and_back(
    client: ClientSession, server: ServerSession, buffer: bytearray
) -> None:
    buffer[DATA : DATA + 2] = b"ab"
    message_id = client.start_write(buffer, region=0, offset=0x3F8, count=2)
    fields = server.next_access(buffer, 0, 34)
    assert fields == (message_id, Command.REGION_WRITE, 34, 0, 0, 0x3F8, 0, 2)
    assert buffer[DATA:34] == b"ab"
    size = pack_write_reply(buffer, message_id, 0, 0x3F8, 2)
    assert client.finish(buffer, size, message_id)
    assert client.receive_eof() == [Ended((), within_message=False)]


def test_a_posted_write_says_so_and_waits_for_nothing(
    client: ClientSession, server: ServerSession, buffer: bytearray
) -> None:
    buffer[DATA : DATA + 2] = b"ab"
    message_id = client.post_write(buffer, region=0, offset=0x3F8, count=2)
    fields = server.next_access(buffer, 0, 34)
    assert fields == (message_id, Command.REGION_WRITE, 34, 0x10, 0, 0x3F8, 0, 2)
    assert client.receive_eof() == [Ended((), within_message=False)]


def test_the_bytes_are_those_of_the_general_way(
    client: ClientSession, server: ServerSession, buffer: bytearray
) -> None:
    buffer[DATA : DATA + 2] = b"ab"
    for payload, posted in (
        (RegionRead(1, 0x100, 4), False),
        (RegionWrite(1, 0x100, b"ab"), False),
        (RegionWrite(1, 0x100, b"ab"), True),
    ):
        general = client.request(payload, posted=posted).data
        if isinstance(payload, RegionRead):
            client.start_read(buffer, 1, 0x100, 4)
        elif posted:
            client.post_write(buffer, 1, 0x100, 2)
        else:
            client.start_write(buffer, 1, 0x100, 2)
        assert buffer[2 : len(general)] == general[2:], "all but the id"
        assert server.receive_data(buffer[: len(general)]), "and the general way takes them"


def test_many_accesses_in_one_read_are_taken_one_by_one(server: ServerSession) -> None:
    writes = [access(Command.REGION_WRITE, 1, at, 4, b"abcd", flags=0x10) for at in range(100)]
    data = b"".join(writes) + access(Command.REGION_READ, 1, 0, 4)[:20]
    at, offsets = 0, []
    while fields := server.next_access(data, at, len(data)):
        offsets.append(fields[5])
        at += fields[2]
    assert offsets == list(range(100))
    assert server.receive_data(data[at:]) == []
    assert server.next_access(data, 0, len(data)) is None, "a message is unfinished"
    [request] = server.receive_data(access(Command.REGION_READ, 1, 0, 4)[20:])
    assert isinstance(request, Request)
    assert server.next_access(data, 0, len(data)) is not None


# What isn't plain is left to the general way.


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes(32),
        access(Command.REGION_READ, 0, 0, 4)[:31],
        access(Command.REGION_READ, 0, 0, 4, b"x"),
        access(Command.REGION_READ, 0, 0, 0),
        access(Command.REGION_READ, 0, 0, 0x10_0001),
        access(Command.REGION_READ, 0, TOP, 2),
        access(Command.REGION_READ, 0, 0, 4, flags=1),
        access(Command.REGION_READ, 0, 0, 4, flags=0x20),
        access(Command.REGION_READ, 0, 0, 4, flags=0x100),
        access(Command.REGION_WRITE, 0, 0, 4, b"abc"),
        access(Command.REGION_WRITE, 0, 0, 3, b"abcd"),
        access(Command.REGION_WRITE, 0, 0, 4, b"abcd")[:35],
        access(Command.REGION_WRITE, 0, 0, 0),
        access(Command.DMA_READ, 0, 0, 4),
        access(Command.DMA_WRITE, 0, 0, 4, b"abcd"),
        access(0xFFFF, 0, 0, 4),
    ],
    ids=lambda data: data.hex(),
)
def test_the_server_takes_nothing_that_is_not_a_plain_access(
    server: ServerSession, data: bytes
) -> None:
    assert server.next_access(data, 0, len(data)) is None


def test_the_server_takes_nothing_before_the_session_is_open_or_after_it_is_over() -> None:
    read = access(Command.REGION_READ, 0, 0, 1)
    server = ServerSession()
    assert server.next_access(read, 0, 32) is None
    server.receive_data(struct.pack("<HHIIIHH", 0, 1, 20, 0, 0, 0, 0))
    assert server.next_access(read, 0, 32) is not None
    server.receive_eof()
    assert server.next_access(read, 0, 32) is None


def test_the_server_takes_no_more_data_than_its_limit() -> None:
    server = ServerSession(Limits(max_data_xfer_size=8))
    server.receive_data(struct.pack("<HHIIIHH", 0, 1, 20, 0, 0, 0, 0))
    assert server.next_access(access(Command.REGION_READ, 0, 0, 8), 0, 32) is not None
    assert server.next_access(access(Command.REGION_READ, 0, 0, 9), 0, 32) is None


def test_an_access_that_is_cut_behind_another_one_is_not_taken(server: ServerSession) -> None:
    write = access(Command.REGION_WRITE, 0, 0, 4, b"abcd")
    data = write + write
    assert server.next_access(data, 36, 72) is not None
    assert server.next_access(data, 36, 71) is None


def test_an_access_at_the_very_end_of_64_bits_is_plain(server: ServerSession) -> None:
    assert server.next_access(access(Command.REGION_READ, 0, TOP, 1), 0, 32) is not None


def test_a_reply_with_something_else_in_the_same_read_comes_the_general_way(
    client: ClientSession, server: ServerSession, buffer: bytearray
) -> None:
    message_id = client.start_read(buffer, 1, 0x100, 4)
    buffer[DATA : DATA + 4] = b"abcd"
    size = pack_read_reply(buffer, message_id, 1, 0x100, 4)
    data = server.request(DmaRead(0x1000, 4)).data + buffer[:size]
    assert not client.finish(data, len(data), message_id)
    request, reply = client.receive_data(data)
    assert isinstance(request, Request)
    assert reply == Reply(message_id, RegionData(b"abcd"))


def test_the_general_way_knows_a_write_that_was_started_the_fast_way(
    client: ClientSession, server: ServerSession, buffer: bytearray
) -> None:
    buffer[DATA : DATA + 4] = b"abcd"
    message_id = client.start_write(buffer, 1, 0x100, 4)
    [request] = server.receive_data(buffer[:36])
    assert isinstance(request, Request)
    assert request.payload == RegionWrite(1, 0x100, b"abcd")
    answer = server.reply(request, RegionWritten(3))
    assert answer is not None
    assert not client.finish(answer.data, len(answer.data), message_id), "not all was written"
    assert client.receive_data(answer.data) == [Reply(message_id, RegionWritten(3))]


def test_a_failure_comes_the_general_way(
    client: ClientSession, server: ServerSession, buffer: bytearray
) -> None:
    message_id = client.start_read(buffer, 1, 0x100, 4)
    [request] = server.receive_data(buffer[:32])
    assert isinstance(request, Request)
    answer = server.fail(request, 5)
    assert answer is not None
    assert not client.finish(answer.data, len(answer.data), message_id)
    assert client.receive_data(answer.data) == [Failed(message_id, 5)]


@pytest.mark.parametrize(
    "wrong", [(8, 1, 0x100, 4), (7, 0, 0x100, 4), (7, 1, 0, 4), (7, 1, 0x100, 3)]
)
def test_a_reply_to_something_else_is_not_the_reply(
    client: ClientSession,
    server: ServerSession,
    buffer: bytearray,
    wrong: tuple[int, int, int, int],
) -> None:
    assert server.state is State.OPEN
    while (message_id := client.start_read(buffer, 1, 0x100, 4)) < 7:
        pass
    for fast_reply in (pack_read_reply, pack_write_reply):
        size = fast_reply(buffer, *wrong)
        assert not client.finish(buffer, size, message_id)
    size = pack_read_reply(buffer, 7, 1, 0x100, 4)
    assert not client.finish(buffer, size - 1, message_id)
    assert not client.finish(buffer, size + 1, message_id)
    assert client.finish(buffer, size, message_id)
    assert not client.finish(buffer, size, message_id), "it is finished"


def test_a_reply_in_pieces_comes_the_general_way(
    client: ClientSession, server: ServerSession, buffer: bytearray
) -> None:
    assert server.state is State.OPEN
    message_id = client.start_read(buffer, 1, 0x100, 4)
    size = pack_read_reply(buffer, message_id, 1, 0x100, 4)
    whole = bytes(buffer[:size])
    assert not client.finish(whole, 20, message_id)
    assert client.receive_data(whole[:20]) == []
    assert not client.finish(whole, size, message_id), "these would be the middle of a message"
    assert client.receive_data(whole[20:]) == [Reply(message_id, RegionData(bytes(4)))]


def test_an_abandoned_access_is_not_finished(
    client: ClientSession, server: ServerSession, buffer: bytearray
) -> None:
    assert server.state is State.OPEN
    message_id = client.start_read(buffer, 1, 0x100, 4)
    client.abandon(message_id)
    size = pack_read_reply(buffer, message_id, 1, 0x100, 4)
    assert not client.finish(buffer, size, message_id)
    assert client.receive_data(buffer[:size]) == []


# Faults of ours.


def test_an_access_needs_an_open_session(buffer: bytearray) -> None:
    client = ClientSession()
    for start in (client.start_read, client.start_write, client.post_write):
        with pytest.raises(NotOpen):
            start(buffer, 0, 0, 4)
    client.receive_eof()
    with pytest.raises(NotOpen, match="over"):
        client.start_read(buffer, 0, 0, 4)


def test_an_access_has_at_least_one_byte_and_at_most_what_the_peer_takes(
    client: ClientSession, server: ServerSession, buffer: bytearray
) -> None:
    assert server.state is State.OPEN
    for start in (client.start_read, client.start_write, client.post_write):
        for count in (0, -1, (1 << 20) + 1):
            with pytest.raises(OverPeerLimit, match=f"{count} bytes"):
                start(buffer, 0, 0, count)


def test_an_access_that_no_message_can_hold_is_our_fault(
    client: ClientSession, server: ServerSession, buffer: bytearray
) -> None:
    assert server.state is State.OPEN
    for start in (client.start_read, client.start_write, client.post_write):
        with pytest.raises(BadValue, match="region 4294967296"):
            start(buffer, 1 << 32, 0, 4)
        with pytest.raises(BadValue):
            start(buffer, 0, -1, 4)
        with pytest.raises(BadValue):
            start(bytearray(31), 0, 0, 4)
    assert client.receive_eof() == [Ended((), within_message=False)]


def test_accesses_need_ids_like_all_requests(
    client: ClientSession, server: ServerSession, buffer: bytearray
) -> None:
    assert server.state is State.OPEN
    for _ in range(1 << 16):
        client.start_read(buffer, 0, 0, 4)
    for start in (client.start_read, client.start_write, client.post_write):
        with pytest.raises(TooManyInFlight):
            start(buffer, 0, 0, 4)


def test_the_general_way_finds_the_words_for_what_the_fast_way_left(server: ServerSession) -> None:
    data = access(Command.REGION_READ, 0, TOP, 2)
    assert server.next_access(data, 0, 32) is None
    [rejected] = server.receive_data(data)
    assert isinstance(rejected, Rejected)
    assert "offset + size is 0x10000000000000001" in str(rejected.fault)
