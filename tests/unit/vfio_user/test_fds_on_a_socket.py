"""Which message file descriptors belong to: what `framing` assumes of Linux, on real sockets."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from devicehost.vfio_user import Limits, ReceiveBuffer
from devicehost.vfio_user.framing import Message

Ends = tuple[socket.socket, socket.socket]


def packed(message_id: int, payload: bytes = b"") -> bytes:
    header = b"".join(
        number.to_bytes(size, "little")
        for number, size in ((message_id, 2), (13, 2), (16 + len(payload), 4), (0, 4), (0, 4))
    )
    return header + payload


@pytest.fixture
def ends() -> Iterator[Ends]:
    sender, receiver = socket.socketpair()
    receiver.settimeout(0)
    with sender, receiver:
        yield sender, receiver


@pytest.fixture
def fd() -> Iterator[int]:
    number = os.memfd_create("passed")
    yield number
    os.close(number)


def received(receiver: socket.socket, size: int) -> list[tuple[int, int]]:
    """Read all there is, `size` bytes at a time: (message id, number of fds) of each message."""
    buffer = ReceiveBuffer(Limits())
    found: list[tuple[int, int]] = []
    while True:
        try:
            data, fds, flags, _ = socket.recv_fds(receiver, size, 9)
        except BlockingIOError:
            assert buffer.empty
            return found
        assert not flags & socket.MSG_CTRUNC
        for item in buffer.feed(data, fds):
            assert isinstance(item, Message)
            found.append((item.header.message_id, len(item.fds)))
            for passed in item.fds:
                os.close(passed)


@pytest.mark.parametrize("size", [1, 5, 16, 17, 40, 100, 4096])
def test_fds_come_out_with_the_message_they_were_sent_with_however_it_is_read(
    ends: Ends, fd: int, size: int
) -> None:
    sender, receiver = ends
    expected = []
    for message_id, number in enumerate([0, 0, 1, 0, 2, 3, 0, 0, 0, 8, 0]):
        data = packed(message_id, b"x" * (message_id * 7 % 30))
        if number:
            socket.send_fds(sender, [data], [fd] * number)
        else:
            sender.sendall(data)
        expected.append((message_id, number))
    assert received(receiver, size) == expected


def test_a_read_joins_what_had_no_fds_and_ends_behind_what_had_some(ends: Ends, fd: int) -> None:
    sender, receiver = ends
    sender.sendall(b"none")
    socket.send_fds(sender, [b"some"], [fd])
    sender.sendall(b"none")
    first, fds, _, _ = socket.recv_fds(receiver, 100, 1)
    assert (first, len(fds)) == (b"nonesome", 1)
    os.close(fds[0])
    assert receiver.recv(100) == b"none"


def test_fds_come_with_the_first_bytes_of_a_message_that_is_sent_in_segments(
    ends: Ends, fd: int
) -> None:
    sender, receiver = ends
    sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    data = packed(1, bytes(300_000))  # more than the kernel puts in one segment
    assert socket.send_fds(sender, [data], [fd]) == len(data)
    assert received(receiver, 1 << 20) == [(1, 1)]
