"""VERSION comes first, and only once."""

from __future__ import annotations

import struct
from errno import EBUSY, EINVAL

import pytest

from devicehost.vfio_user import (
    BadHandshake,
    ClientSession,
    Command,
    DmaRead,
    Limits,
    Negotiated,
    NotOpen,
    OutOfStep,
    ProtocolViolation,
    RegionRead,
    ServerSession,
    Session,
    State,
    StrayFds,
    UnexpectedReply,
    Violation,
)

COMMAND, REPLY, NO_REPLY, ERROR = 0x0, 0x1, 0x10, 0x20


def packed(
    command: int, payload: bytes = b"", flags: int = COMMAND, message_id: int = 0, error: int = 0
) -> bytes:
    return struct.pack("<HHIII", message_id, command, 16 + len(payload), flags, error) + payload


def version(major: int = 0, minor: int = 9, data: bytes = b"", flags: int = COMMAND) -> bytes:
    return packed(Command.VERSION, struct.pack("<HH", major, minor) + data, flags)


REFUSED = packed(Command.VERSION, b"", REPLY | ERROR, error=EINVAL)


@pytest.mark.parametrize("session", [ClientSession(), ServerSession()])
def test_a_session_is_new_at_first(session: Session) -> None:
    assert session.state is State.NEW


# The server.


def test_a_server_opens_with_the_clients_version() -> None:
    server = ServerSession()
    [opened] = server.receive_data(version(minor=2))
    assert isinstance(opened, Negotiated)
    assert opened.agreement.minor == 2
    assert opened.agreement == server.agreement
    assert server.state is State.OPEN
    assert opened.answer is not None
    assert opened.answer.data[:4] == b"\x00\x00\x01\x00", "the id of the command, and VERSION"
    assert opened.answer.data[8:12] == b"\x01\x00\x00\x00", "a reply"


def test_a_client_may_go_on_in_the_same_read() -> None:
    server = ServerSession()
    opened, request = server.receive_data(version() + packed(Command.DEVICE_RESET))
    assert isinstance(opened, Negotiated)
    assert not isinstance(request, Violation)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (packed(Command.DEVICE_RESET), "before VERSION"),
        (packed(Command.REGION_READ, RegionRead(0, 0, 4).encode()), "before VERSION"),
        (packed(999, b"whatever"), "before VERSION"),
        (version(major=1), "1.9"),
        (packed(Command.VERSION), "payload size"),
        (version(data=b"{}"), "last byte"),
        (version(data=b"{\0"), "JSON"),
        (version(data=b'{"capabilities":{"max_msg_fds":-1}}\0'), "max_msg_fds"),
        (version(data=b'{"capabilities":{"pgsizes":1073741824}}\0'), "pages"),
        (version(data=b"{" + b" " * 4096 + b"}\0"), "payload size"),
        (version(data=bytes(2 << 20)), "bytes"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_server_refuses_what_is_no_version_and_ends(data: bytes, words: str) -> None:
    server = ServerSession()
    [violation] = server.receive_data(data)
    assert isinstance(violation, Violation)
    assert isinstance(violation.fault, BadHandshake)
    assert words in str(violation.fault)
    assert violation.answer is not None
    command = struct.unpack_from("<H", data, 2)[0]
    assert violation.answer.data == packed(command, b"", REPLY | ERROR, error=EINVAL)
    assert server.state is State.OVER
    assert server.receive_data(version()) == []


def test_a_client_that_is_turned_away_learns_why() -> None:
    client, server = ClientSession(), ServerSession(turn_away=EBUSY)
    [violation] = server.receive_data(client.propose().data)
    assert isinstance(violation, Violation)
    assert violation.answer is not None
    assert server.state is State.OVER
    [refused] = client.receive_data(violation.answer.data)
    assert isinstance(refused, Violation)
    assert isinstance(refused.fault, BadHandshake)
    assert refused.fault.errno == EBUSY
    assert "Device or resource busy" in str(refused.fault)
    assert client.state is State.OVER


def test_a_server_ends_without_an_answer_when_none_is_wanted() -> None:
    for data in (version(flags=NO_REPLY), packed(Command.DEVICE_RESET, flags=NO_REPLY)):
        [violation] = ServerSession().receive_data(data)
        assert isinstance(violation, Violation)
        assert isinstance(violation.fault, BadHandshake)
        assert violation.answer is None


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (version(flags=REPLY), UnexpectedReply),
        (packed(Command.DMA_READ, flags=REPLY), UnexpectedReply),
        (version(flags=2), OutOfStep),
        (b"\0" * 16, OutOfStep),
        (b"\xff" * 16, OutOfStep),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_server_ends_when_the_first_message_is_no_command(
    data: bytes, kind: type[ProtocolViolation]
) -> None:
    [violation] = ServerSession().receive_data(data)
    assert isinstance(violation, Violation)
    assert type(violation.fault) is kind
    assert violation.answer is None


def test_fds_that_come_with_version_are_stray_and_end_the_session() -> None:
    stray, violation = ServerSession().receive_data(version(), [5])
    assert stray == StrayFds((5,))
    assert isinstance(violation, Violation)
    assert isinstance(violation.fault, BadHandshake)


def test_the_first_message_may_come_in_pieces() -> None:
    server = ServerSession()
    data = version(data=b'{"capabilities":{}}\0')
    events = [event for byte in data for event in server.receive_data(bytes([byte]))]
    assert [type(event) for event in events] == [Negotiated]


def test_a_server_with_a_small_limit_on_data_still_takes_the_first_message() -> None:
    server = ServerSession(Limits(max_data_xfer_size=8))
    [opened] = server.receive_data(version(data=b"{" + b" " * 1000 + b"}\0"))
    assert isinstance(opened, Negotiated)


# The client.


def test_a_client_proposes_once() -> None:
    client = ClientSession()
    client.propose()
    assert client.state is State.PROPOSED
    with pytest.raises(NotOpen, match="proposed"):
        client.propose()


def test_a_client_opens_with_the_servers_answer() -> None:
    client = ClientSession()
    client.propose()
    [opened] = client.receive_data(version(minor=2, flags=REPLY))
    assert isinstance(opened, Negotiated)
    assert opened.answer is None
    assert opened.agreement.minor == 2
    assert client.state is State.OPEN


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (REFUSED, BadHandshake),
        (packed(Command.VERSION, b"", REPLY | ERROR, error=0xFFFF_FFFF), BadHandshake),
        (packed(Command.VERSION, b"", REPLY), BadHandshake),
        (version(major=1, flags=REPLY), BadHandshake),
        (version(minor=10, flags=REPLY), BadHandshake),
        (version(data=b"{", flags=REPLY), BadHandshake),
        (version(data=bytes(2 << 20), flags=REPLY), BadHandshake),
        (
            version(data=b'{"capabilities":{"twin_socket":{"supported":true}}}\0', flags=REPLY),
            BadHandshake,
        ),
        (packed(Command.DMA_READ, DmaRead(0, 1).encode()), BadHandshake),
        (version(), BadHandshake),
        (packed(Command.VERSION, struct.pack("<HH", 0, 9), REPLY, message_id=1), UnexpectedReply),
        (packed(Command.DEVICE_RESET, b"", REPLY), UnexpectedReply),
        (version(flags=7), OutOfStep),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_a_client_ends_when_there_is_no_proper_answer(
    data: bytes, kind: type[ProtocolViolation]
) -> None:
    client = ClientSession()
    client.propose()
    *_, violation = client.receive_data(data)
    assert isinstance(violation, Violation)
    assert type(violation.fault) is kind
    assert client.state is State.OVER


def test_a_client_that_has_not_proposed_takes_no_answer() -> None:
    client = ClientSession()
    [violation] = client.receive_data(version(flags=REPLY))
    assert isinstance(violation, Violation)
    assert isinstance(violation.fault, UnexpectedReply)


def test_fds_that_come_with_the_answer_are_stray() -> None:
    client = ClientSession()
    client.propose()
    stray, opened = client.receive_data(version(flags=REPLY), [5])
    assert stray == StrayFds((5,))
    assert isinstance(opened, Negotiated)
