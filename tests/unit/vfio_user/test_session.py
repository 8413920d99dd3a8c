"""What is the same for both ends: requests and their replies, faults, and the end."""

from __future__ import annotations

import struct
from errno import E2BIG, EINVAL, EIO, ENOENT, ENOSYS, ENOTSUP, ENOTTY, EPROTO
from typing import Any

import pytest

from devicehost.vfio_user import (
    AlreadyAnswered,
    BadMessage,
    BadValue,
    ClientSession,
    Command,
    DeviceFlags,
    DeviceInfo,
    DeviceReset,
    DmaData,
    DmaFlags,
    DmaMap,
    DmaRead,
    DmaWrite,
    DmaWritten,
    Done,
    Ended,
    Event,
    Failed,
    GetDeviceInfo,
    GetRegionInfo,
    GetRegionIoFds,
    IoEventFd,
    IrqAction,
    IrqData,
    Limits,
    MalformedMessage,
    MessageTooLong,
    MisplacedCommand,
    Negotiated,
    NotOpen,
    OutOfStep,
    OverPeerLimit,
    RegionData,
    RegionFlags,
    RegionInfo,
    RegionIoFds,
    RegionRead,
    RegionWrite,
    RegionWriteMulti,
    RegionWritesDone,
    RegionWritten,
    Rejected,
    Reply,
    Request,
    RequestPayload,
    ServerSession,
    Session,
    SetIrqs,
    State,
    StrayFds,
    TooManyInFlight,
    UnexpectedReply,
    UnknownCommand,
    UnsupportedCommand,
    Violation,
)

READ = RegionRead(1, 0x100, 4)
COMMAND, REPLY, NO_REPLY, ERROR = 0x0, 0x1, 0x10, 0x20


def packed(
    command: int, payload: bytes = b"", flags: int = COMMAND, message_id: int = 7, error: int = 0
) -> bytes:
    return struct.pack("<HHIII", message_id, command, 16 + len(payload), flags, error) + payload


def agreed(client: Limits, server: Limits) -> tuple[ClientSession, ServerSession]:
    ours, theirs = ClientSession(client), ServerSession(server)
    [opened] = theirs.receive_data(ours.propose().data)
    assert isinstance(opened, Negotiated)
    assert opened.answer is not None
    ours.receive_data(opened.answer.data)
    return ours, theirs


def received(session: Session, data: bytes) -> Request:
    [request] = session.receive_data(data)
    assert isinstance(request, Request)
    return request


def only(events: list[Event]) -> Event:
    [event] = events
    return event


# There and back.


@pytest.mark.parametrize(
    ("payload", "answer"),
    [
        (READ, RegionData(b"abcd")),
        (RegionWrite(1, 0x100, b"abcd"), RegionWritten(4)),
        (RegionWriteMulti((RegionWrite(1, 0, b"a"),)), RegionWritesDone(1)),
        (GetDeviceInfo(), DeviceInfo(DeviceFlags.PLATFORM, 3, 1)),
        (DmaMap(0, 0x1000, DmaFlags.READ), Done()),
        (DeviceReset(), Done()),
    ],
    ids=repr,
)
def test_a_request_of_the_client_reaches_the_server_and_its_reply_the_client(
    client: ClientSession, server: ServerSession, payload: RequestPayload, answer: Any
) -> None:
    sent = client.request(payload)
    request = received(server, sent.data)
    assert (request.payload, request.message_id) == (payload, sent.message_id)
    answered = server.reply(request, answer)
    assert answered is not None
    assert client.receive_data(answered.data) == [Reply(sent.message_id, answer)]


@pytest.mark.parametrize(
    ("payload", "answer"),
    [(DmaRead(0x1000, 4), DmaData(b"abcd")), (DmaWrite(0x1000, b"abcd"), DmaWritten(4))],
    ids=repr,
)
def test_a_request_of_the_server_reaches_the_client_and_its_reply_the_server(
    client: ClientSession, server: ServerSession, payload: RequestPayload, answer: Any
) -> None:
    sent = server.request(payload)
    answered = client.reply(received(client, sent.data), answer)
    assert answered is not None
    assert server.receive_data(answered.data) == [Reply(sent.message_id, answer)]


def test_requests_cross_on_the_same_socket_though_their_ids_are_equal(
    client: ClientSession, server: ServerSession
) -> None:
    server.request(DmaRead(0, 1))  # brings the server's ids to where the client's are
    to_server, to_client = client.request(READ), server.request(DmaRead(0x1000, 2))
    assert to_server.message_id == to_client.message_id
    by_server, by_client = received(server, to_server.data), received(client, to_client.data)
    answer = client.reply(by_client, DmaData(b"ab"))
    assert answer is not None
    assert only(server.receive_data(answer.data)) == Reply(to_client.message_id, DmaData(b"ab"))
    answer = server.reply(by_server, RegionData(b"abcd"))
    assert answer is not None
    assert only(client.receive_data(answer.data)) == Reply(1, RegionData(b"abcd"))


def test_replies_may_come_in_any_order(client: ClientSession, server: ServerSession) -> None:
    sent = [client.request(RegionRead(0, offset, 1)) for offset in range(5)]
    requests = server.receive_data(b"".join(message.data for message in sent))
    answers = b""
    for request in reversed(requests):
        assert isinstance(request, Request)
        assert isinstance(request.payload, RegionRead)
        answer = server.reply(request, RegionData(bytes([request.payload.offset])))
        assert answer is not None
        answers += answer.data
    replies = client.receive_data(answers)
    assert replies == [
        Reply(message.message_id, RegionData(bytes([offset])))
        for offset, message in reversed(list(enumerate(sent)))
    ]


def test_a_failure_is_told_with_its_errno(client: ClientSession, server: ServerSession) -> None:
    sent = client.request(READ)
    answer = server.fail(received(server, sent.data), ENOENT)
    assert answer is not None
    assert client.receive_data(answer.data) == [Failed(sent.message_id, ENOENT)]


@pytest.mark.parametrize("errno", [1, 22, 4095])
def test_each_errno_that_linux_can_return_gets_through(
    client: ClientSession, server: ServerSession, errno: int
) -> None:
    sent = client.request(READ)
    answer = server.fail(received(server, sent.data), errno)
    assert answer is not None
    assert client.receive_data(answer.data) == [Failed(sent.message_id, errno)]


@pytest.mark.parametrize("errno", [0, 4096, 0xFFFF_FFFF])
def test_a_failure_without_a_real_errno_is_an_io_error(
    client: ClientSession, server: ServerSession, errno: int
) -> None:
    assert server.state is State.OPEN
    sent = client.request(READ)
    data = packed(Command.REGION_READ, flags=REPLY | ERROR, message_id=sent.message_id, error=errno)
    assert client.receive_data(data) == [Failed(sent.message_id, EIO)]


def test_a_failure_with_a_payload_is_a_failure(
    client: ClientSession, server: ServerSession
) -> None:
    assert server.state is State.OPEN
    sent = client.request(READ)
    data = packed(Command.REGION_READ, b"what?", REPLY | ERROR, sent.message_id, EINVAL)
    assert client.receive_data(data) == [Failed(sent.message_id, EINVAL)]


# File descriptors.


def test_the_fds_of_a_request_are_its_receivers(
    client: ClientSession, server: ServerSession
) -> None:
    sent = client.request(DmaMap(0, 0x1000, DmaFlags.READ), [5])
    assert sent.fds == (5,)
    assert only(server.receive_data(sent.data, [105])) == Request(
        sent.message_id, 1, DmaMap(0, 0x1000, DmaFlags.READ), fds=(105,)
    )


def test_the_fds_of_a_reply_are_its_receivers(client: ClientSession, server: ServerSession) -> None:
    sent = client.request(GetRegionInfo(2))
    info = RegionInfo(0x1000, RegionFlags.MMAP)
    answer = server.reply(received(server, sent.data), info, [5])
    assert answer is not None
    assert answer.fds == (5,)
    assert client.receive_data(answer.data, [105]) == [Reply(sent.message_id, info, (105,))]


def test_fds_that_a_request_has_no_use_for_are_stray_and_it_is_refused(
    client: ClientSession, server: ServerSession
) -> None:
    stray, rejected = server.receive_data(client.request(READ).data, [5])
    assert stray == StrayFds((5,))
    assert isinstance(rejected, Rejected)
    assert rejected.fault.metadata["field"] == "number of fds"


def test_fds_that_a_reply_has_no_use_for_are_stray_and_it_is_a_failure(
    client: ClientSession, server: ServerSession
) -> None:
    sent = client.request(READ)
    answer = server.reply(received(server, sent.data), RegionData(b"abcd"))
    assert answer is not None
    stray, failed = client.receive_data(answer.data, [5])
    assert stray == StrayFds((5,))
    assert isinstance(failed, Failed)
    assert failed.errno == EPROTO


def test_the_fds_of_a_failure_are_stray(client: ClientSession, server: ServerSession) -> None:
    sent = client.request(GetRegionInfo(2))
    answer = server.fail(received(server, sent.data), EINVAL)
    assert answer is not None
    assert client.receive_data(answer.data, [5]) == [
        StrayFds((5,)),
        Failed(sent.message_id, EINVAL),
    ]


# Posted commands.


def test_a_posted_command_has_no_reply_and_a_failed_one_neither(
    client: ClientSession, server: ServerSession
) -> None:
    sent = client.request(RegionWrite(1, 0, b"a"), posted=True)
    request = received(server, sent.data)
    assert request.posted
    assert server.reply(request, RegionWritten(1)) is None
    assert server.fail(request, EINVAL) is None
    assert client.receive_eof() == [Ended((), within_message=False)]


def test_a_posted_command_that_is_malformed_is_reported_but_not_answered(
    server: ServerSession,
) -> None:
    rejected = only(server.receive_data(packed(Command.REGION_WRITE, b"?", NO_REPLY)))
    assert isinstance(rejected, Rejected)
    assert rejected.answer is None


# Commands that are refused.

IO_FDS_1 = struct.pack("<IIII", 16, 0, 1, 0)


@pytest.mark.parametrize(
    ("data", "kind", "errno"),
    [
        (packed(Command.REGION_READ, b"short"), MalformedMessage, EINVAL),
        (packed(Command.REGION_READ, struct.pack("<QII", 0, 0, 1), 0x20), MalformedMessage, EINVAL),
        (packed(Command.DEVICE_RESET, b"", 0x40), MalformedMessage, EINVAL),
        (packed(Command.DEVICE_RESET, b"", 0x8000_0000), MalformedMessage, EINVAL),
        (
            packed(Command.REGION_READ, struct.pack("<QII", 0, 0, 0x10_0001)),
            MalformedMessage,
            EINVAL,
        ),
        (
            packed(Command.REGION_READ, struct.pack("<QII", 0, 0, 0xFFFF_FFFF)),
            MalformedMessage,
            EINVAL,
        ),
        (packed(Command.REGION_WRITE, bytes(0x10_0011)), MessageTooLong, E2BIG),
        (packed(0), UnknownCommand, ENOSYS),
        (packed(19), UnknownCommand, ENOSYS),
        (packed(0xFFFF, b"whatever"), UnknownCommand, ENOSYS),
        (packed(Command.DMA_READ, struct.pack("<QQ", 0, 1)), UnknownCommand, ENOSYS),
        (packed(Command.DMA_WRITE, struct.pack("<QQ1s", 0, 1, b"a")), UnknownCommand, ENOSYS),
        (packed(Command.DIRTY_PAGES), UnsupportedCommand, ENOTSUP),
        (
            packed(Command.DEVICE_FEATURE, struct.pack("<II", 8, 0x1_0001)),
            UnsupportedCommand,
            ENOTTY,
        ),
        (packed(Command.MIG_DATA_READ, struct.pack("<II", 8, 0)), UnsupportedCommand, ENOTSUP),
        (packed(Command.MIG_DATA_WRITE), UnsupportedCommand, ENOTSUP),
        (packed(Command.VERSION, struct.pack("<HH", 0, 9)), MisplacedCommand, EINVAL),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_a_command_that_the_server_refuses_is_answered_and_the_stream_goes_on(
    client: ClientSession, server: ServerSession, data: bytes, kind: type[BadMessage], errno: int
) -> None:
    reset = client.request(DeviceReset())
    rejected, request = server.receive_data(data + reset.data)
    assert isinstance(rejected, Rejected)
    assert type(rejected.fault) is kind
    assert rejected.answer is not None
    command = struct.unpack_from("<H", data, 2)[0]
    assert rejected.answer.data == packed(command, b"", REPLY | ERROR, error=errno)
    assert isinstance(request, Request)
    assert request.payload == DeviceReset()


@pytest.mark.parametrize(
    "command", [*set(Command) - {Command.DMA_READ, Command.DMA_WRITE}, 0, 19, 999], ids=str
)
def test_a_command_that_is_not_the_servers_to_send_is_refused_by_the_client(
    client: ClientSession, server: ServerSession, command: int
) -> None:
    assert server.state is State.OPEN
    rejected = only(client.receive_data(packed(command, b"whatever")))
    assert isinstance(rejected, Rejected)
    assert isinstance(rejected.fault, UnknownCommand)
    assert rejected.answer is not None
    assert rejected.answer.data == packed(command, b"", REPLY | ERROR, error=ENOSYS)


def test_several_writes_in_one_message_are_refused_if_they_were_not_agreed_on() -> None:
    server = ServerSession()
    server.receive_data(packed(Command.VERSION, struct.pack("<HH", 0, 0)))
    multi = RegionWriteMulti((RegionWrite(0, 0, b"a"),)).encode()
    rejected = only(server.receive_data(packed(Command.REGION_WRITE_MULTI, multi)))
    assert isinstance(rejected, Rejected)
    assert rejected.fault.errno == ENOTSUP


def test_ids_of_the_peer_may_repeat(server: ServerSession) -> None:
    data = packed(Command.DEVICE_RESET)
    first, second = server.receive_data(data + data)
    assert isinstance(first, Request)
    assert isinstance(second, Request)
    assert first.message_id == second.message_id
    assert server.reply(second) == server.reply(first)


# Replies that are refused.


def test_a_reply_that_cannot_be_understood_fails_its_request_and_the_stream_goes_on(
    client: ClientSession, server: ServerSession
) -> None:
    first, second = client.request(READ), client.request(DeviceReset())
    done = server.receive_data(first.data + second.data)[1]
    assert isinstance(done, Request)
    answer = server.reply(done)
    assert answer is not None
    wrong = packed(Command.REGION_READ, b"?", REPLY, first.message_id)
    failed, reply = client.receive_data(wrong + answer.data)
    assert isinstance(failed, Failed)
    assert (failed.message_id, failed.errno) == (first.message_id, EPROTO)
    assert isinstance(failed.fault, MalformedMessage)
    assert reply == Reply(second.message_id, Done())


def test_a_reply_that_is_too_long_fails_its_request() -> None:
    client, server = agreed(Limits(max_data_xfer_size=64), Limits())
    sent = client.request(READ)
    assert server.state is State.OPEN
    failed = only(client.receive_data(packed(Command.REGION_READ, bytes(5000), REPLY, 1)))
    assert isinstance(failed, Failed)
    assert (failed.message_id, failed.errno) == (sent.message_id, EPROTO)
    assert isinstance(failed.fault, MessageTooLong)


@pytest.mark.parametrize(
    ("command", "message_id"),
    [(Command.REGION_READ, 2), (Command.REGION_WRITE, 1), (Command.VERSION, 0), (99, 1)],
)
def test_a_reply_to_nothing_that_was_asked_ends_the_session(
    client: ClientSession, server: ServerSession, command: int, message_id: int
) -> None:
    assert server.state is State.OPEN
    assert client.request(READ).message_id == 1
    violation = only(client.receive_data(packed(command, b"", REPLY, message_id)))
    assert isinstance(violation, Violation)
    assert isinstance(violation.fault, UnexpectedReply)
    assert violation.answer is None
    assert client.state is State.OVER


def test_a_second_reply_to_the_same_request_ends_the_session(
    client: ClientSession, server: ServerSession
) -> None:
    answer = server.reply(received(server, client.request(DeviceReset()).data))
    assert answer is not None
    reply, violation = client.receive_data(answer.data + answer.data)
    assert isinstance(reply, Reply)
    assert isinstance(violation, Violation)


@pytest.mark.parametrize("message_type", [2, 3, 15])
def test_a_message_that_is_neither_a_command_nor_a_reply_ends_the_session(
    server: ServerSession, message_type: int
) -> None:
    stray, violation = server.receive_data(packed(Command.DEVICE_RESET, b"", message_type), [5])
    assert stray == StrayFds((5,))
    assert isinstance(violation, Violation)
    assert isinstance(violation.fault, OutOfStep)
    assert violation.answer is None


# The end.


def test_nothing_happens_after_a_violation_but_fds_are_handed_back(
    client: ClientSession, server: ServerSession
) -> None:
    reset = client.request(DeviceReset()).data
    request, violation = server.receive_data(reset + packed(0, flags=REPLY) + reset)
    assert isinstance(request, Request)
    assert isinstance(violation, Violation)
    assert server.receive_data(reset, [5]) == [StrayFds((5,))]
    assert server.reply(request) is not None, "it was asked before, and may still be answered"


def test_fds_behind_a_violation_in_the_same_read_are_stray(
    client: ClientSession, server: ServerSession
) -> None:
    mapping = client.request(DmaMap(0, 0x1000, DmaFlags.READ), [5]).data
    violation, stray = server.receive_data(packed(0, flags=REPLY) + mapping, [5])
    assert isinstance(violation, Violation)
    assert stray == StrayFds((5,))


def test_the_end_of_the_connection_tells_what_was_not_answered(
    client: ClientSession, server: ServerSession
) -> None:
    sent = [client.request(READ) for _ in range(3)]
    answer = server.fail(received(server, sent[1].data), EINVAL)
    assert answer is not None
    client.receive_data(answer.data)
    assert client.receive_eof() == [
        Ended((sent[0].message_id, sent[2].message_id), within_message=False)
    ]
    assert client.state is State.OVER
    assert client.receive_eof() == [Ended((), within_message=False)]


def test_the_end_of_the_connection_within_a_message_hands_its_fds_back(
    client: ClientSession, server: ServerSession
) -> None:
    mapping = client.request(DmaMap(0, 0x1000, DmaFlags.READ), [5]).data
    assert server.receive_data(mapping[:20], [5]) == []
    assert server.receive_eof() == [StrayFds((5,)), Ended((), within_message=True)]


def test_after_a_violation_the_end_still_tells_what_was_not_answered(
    client: ClientSession, server: ServerSession
) -> None:
    assert server.state is State.OPEN
    sent = client.request(READ)
    client.receive_data(packed(0, flags=REPLY, message_id=99))
    assert client.receive_eof() == [Ended((sent.message_id,), within_message=False)]


# Requests that nobody waits for.


def test_the_reply_to_an_abandoned_request_is_dropped_with_its_fds(
    client: ClientSession, server: ServerSession
) -> None:
    sent = client.request(GetRegionInfo(2))
    client.abandon(sent.message_id)
    info = RegionInfo(0x1000, RegionFlags.MMAP)
    answer = server.reply(received(server, sent.data), info, [5])
    assert answer is not None
    assert client.receive_data(answer.data, [105]) == [StrayFds((105,))]


def test_the_id_of_an_abandoned_request_is_not_used_until_its_reply_came(
    client: ClientSession, server: ServerSession
) -> None:
    sent = client.request(DeviceReset())
    client.abandon(sent.message_id)
    for _ in range(1 << 16):
        assert client.request(DeviceReset(), posted=True).message_id != sent.message_id
    answer = server.reply(received(server, sent.data))
    assert answer is not None
    assert client.receive_data(answer.data) == []
    used = {client.request(DeviceReset(), posted=True).message_id for _ in range(1 << 16)}
    assert sent.message_id in used


def test_an_abandoned_request_is_not_told_of_at_the_end(
    client: ClientSession, server: ServerSession
) -> None:
    assert server.state is State.OPEN
    client.abandon(client.request(READ).message_id)
    assert client.receive_eof() == [Ended((), within_message=False)]


def test_only_what_is_in_flight_can_be_abandoned(
    client: ClientSession, server: ServerSession
) -> None:
    assert server.state is State.OPEN
    sent = client.request(READ)
    client.abandon(sent.message_id)
    for message_id in (sent.message_id, 99):
        with pytest.raises(BadValue, match=f"id {message_id} "):
            client.abandon(message_id)


def test_there_are_as_many_requests_in_flight_as_there_are_ids(
    client: ClientSession, server: ServerSession
) -> None:
    assert server.state is State.OPEN
    ids = {client.request(DeviceReset()).message_id for _ in range(1 << 16)}
    assert len(ids) == 1 << 16
    with pytest.raises(TooManyInFlight):
        client.request(DeviceReset())


# Faults of ours.


def test_nothing_is_asked_before_the_session_is_open_or_after_it_is_over() -> None:
    client = ClientSession()
    for _ in range(2):
        with pytest.raises(NotOpen):
            client.request(READ)
        with pytest.raises(NotOpen):
            _ = client.agreement
        if client.state is State.NEW:
            client.propose()
    server = ServerSession()
    with pytest.raises(NotOpen):
        server.request(DmaRead(0, 1))
    client.receive_eof()
    with pytest.raises(NotOpen, match="over"):
        client.request(READ)


def test_a_side_sends_only_its_own_commands(client: ClientSession, server: ServerSession) -> None:
    with pytest.raises(BadValue, match="DMA_READ isn't for a client"):
        client.request(DmaRead(0, 1))
    with pytest.raises(BadValue, match="REGION_READ isn't for a server"):
        server.request(READ)


@pytest.mark.parametrize(
    "payload",
    [
        RegionRead(1 << 32, 0, 4),
        RegionRead(0, -1, 4),
        RegionWriteMulti((RegionWrite(0, 0, b"123456789"),)),
        RegionWriteMulti((RegionWrite(0, 0, b""),)),
        SetIrqs(0, 0, 2, IrqAction.MASK, IrqData.BOOL, b"\1"),
        SetIrqs(0, 0, 1, IrqAction.MASK, IrqData.NONE, b"\1"),
    ],
    ids=repr,
)
def test_a_value_that_no_message_can_hold_is_our_fault(
    client: ClientSession, server: ServerSession, payload: RequestPayload
) -> None:
    assert server.state is State.OPEN
    with pytest.raises(BadValue):
        client.request(payload)
    assert client.receive_eof() == [Ended((), within_message=False)]


def test_fds_that_a_message_has_no_use_for_are_our_fault(
    client: ClientSession, server: ServerSession
) -> None:
    with pytest.raises(BadValue, match="number of fds"):
        client.request(READ, [5])
    request = received(server, client.request(DeviceReset()).data)
    with pytest.raises(BadValue, match="number of fds"):
        server.reply(request, Done(), [5])
    assert server.reply(request) is not None, "the fault changed nothing"


def test_nothing_is_sent_that_the_peer_does_not_take() -> None:
    client, server = agreed(
        Limits(max_data_xfer_size=100, max_msg_fds=1), Limits(max_data_xfer_size=200, max_msg_fds=2)
    )
    with pytest.raises(OverPeerLimit, match="101 bytes"):
        client.request(RegionRead(0, 0, 101))
    with pytest.raises(OverPeerLimit, match="101 bytes"):
        server.request(DmaWrite(0, bytes(101)))
    with pytest.raises(OverPeerLimit, match="3 file descriptors"):
        client.request(SetIrqs(0, 0, 3, IrqAction.TRIGGER, IrqData.EVENTFD), [5, 6, 7])
    request = received(server, client.request(GetRegionIoFds(0, 1000)).data)
    two = RegionIoFds((IoEventFd(0, 4, 0), IoEventFd(4, 4, 1)))
    with pytest.raises(OverPeerLimit, match="2 file descriptors"):
        server.reply(request, two, [5, 6])
    assert server.fail(request, EINVAL) is not None


def test_as_much_as_the_peer_takes_is_sent_and_taken() -> None:
    client, server = agreed(
        Limits(max_data_xfer_size=100, max_msg_fds=2), Limits(max_data_xfer_size=100, max_msg_fds=2)
    )
    for payload in (RegionRead(0, 0, 100), RegionWrite(0, 0, bytes(100))):
        assert received(server, client.request(payload).data).payload == payload
    write = DmaWrite(0, bytes(100))
    assert received(client, server.request(write).data).payload == write
    irqs = SetIrqs(0, 0, 2, IrqAction.TRIGGER, IrqData.EVENTFD)
    [request] = server.receive_data(client.request(irqs, [5, 6]).data, [105, 106])
    assert isinstance(request, Request)
    assert request.fds == (105, 106)
    assert client.start_read(bytearray(132), 0, 0, 100)


def test_nothing_is_asked_when_an_open_session_is_over(
    client: ClientSession, server: ServerSession
) -> None:
    client.receive_eof()
    server.receive_eof()
    with pytest.raises(NotOpen, match="over"):
        client.request(READ)
    with pytest.raises(NotOpen, match="over"):
        server.request(DmaRead(0, 1))
    with pytest.raises(NotOpen, match="over"):
        client.start_read(bytearray(32), 0, 0, 4)


def test_several_writes_in_one_message_are_not_sent_if_they_were_not_agreed_on() -> None:
    client = ClientSession()
    client.propose()
    client.receive_data(packed(Command.VERSION, struct.pack("<HH", 0, 2), REPLY, 0))
    with pytest.raises(OverPeerLimit, match="REGION_WRITE_MULTI"):
        client.request(RegionWriteMulti((RegionWrite(0, 0, b"a"),)))


@pytest.mark.parametrize(
    ("payload", "answer"),
    [
        (READ, Done()),
        (READ, RegionWritten(4)),
        (READ, RegionData(b"abcde")),
        (RegionWrite(0, 0, b"a"), RegionWritten(2)),
        (RegionWriteMulti((RegionWrite(0, 0, b"a"),)), RegionWritesDone(2)),
        (GetDeviceInfo(), DeviceInfo(DeviceFlags.PCI, -1, 0)),
    ],
    ids=repr,
)
def test_a_reply_that_does_not_fit_its_request_is_our_fault(
    client: ClientSession, server: ServerSession, payload: RequestPayload, answer: Any
) -> None:
    request = received(server, client.request(payload).data)
    with pytest.raises(BadValue):
        server.reply(request, answer)
    assert server.fail(request, EIO) is not None, "the fault changed nothing"


@pytest.mark.parametrize(
    ("payload", "answer"),
    [(DmaRead(0, 4), DmaData(b"abcde")), (DmaWrite(0, b"a"), DmaWritten(2))],
    ids=repr,
)
def test_a_reply_of_the_client_that_does_not_fit_its_request_is_our_fault(
    client: ClientSession, server: ServerSession, payload: RequestPayload, answer: Any
) -> None:
    request = received(client, server.request(payload).data)
    with pytest.raises(BadValue):
        client.reply(request, answer)


@pytest.mark.parametrize("errno", [0, -1, 4096])
def test_a_failure_needs_a_real_errno(
    client: ClientSession, server: ServerSession, errno: int
) -> None:
    request = received(server, client.request(DeviceReset()).data)
    with pytest.raises(BadValue, match=f"errno is {errno}"):
        server.fail(request, errno)


def test_a_request_is_answered_once(client: ClientSession, server: ServerSession) -> None:
    request = received(server, client.request(DeviceReset()).data)
    assert server.reply(request) is not None
    with pytest.raises(AlreadyAnswered):
        server.reply(request)
    with pytest.raises(AlreadyAnswered):
        server.fail(request, EIO)


def test_a_session_ends_once_though_what_follows_is_out_of_step_as_well(
    server: ServerSession,
) -> None:
    events = server.receive_data(packed(0, flags=REPLY) + bytes(16), [5])
    assert [type(event) for event in events] == [Violation, StrayFds]
