"""The floor of the local socket: two Python processes that send each other bytes.

A Unix stream socket, with messages as long as those of a 4-byte read by vfio-user: 32
bytes ask, 36 answer. Both ends block in the kernel, wherever the scheduler puts them, or
both spin, asking a socket that doesn't block until something is there.

Run as a program, it is the peer: `bare_socket.py FD ANSWER_SIZE spin|block`. It spins only
during a round, which ends with a request that says so.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from children import child, one_round, say
from measure import Case

REQUEST_SIZE = 32
_REQUEST = bytes(REQUEST_SIZE)
_LAST_REQUEST = b"\1" + bytes(REQUEST_SIZE - 1)


@contextmanager
def socket_floor(name: str, note: str, *, spin: bool, data_size: int = 4) -> Iterator[Case]:
    """A bare ping-pong.

    Args:
        name: of the case.
        note: of the case.
        spin: whether both ends spin, or both block.
        data_size: bytes that the answer brings.
    """
    answer_size = REQUEST_SIZE + data_size
    ours, theirs = socket.socketpair()
    receive = _receiver(ours, bytearray(answer_size), spin=spin)

    def ping(times: int) -> None:
        send = ours.send
        for _ in range(times):
            send(_REQUEST)
            receive()

    def end() -> None:
        ours.send(_LAST_REQUEST)
        receive()

    mode = "spin" if spin else "block"
    fd = theirs.fileno()
    with ours, theirs, child("bare_socket.py", fd, answer_size, mode, fds=(fd,)) as peer:
        theirs.close()  # so that we notice if the peer dies
        yield Case(name, note, ping, begin=lambda: peer.tell("begin"), end=end, peer=peer.pid)


def echo(sock: socket.socket, answer_size: int, *, spin: bool) -> None:
    """Answer requests, for a round from each line on."""
    request, answer = bytearray(REQUEST_SIZE), bytes(answer_size)
    receive = _receiver(sock, request, spin=spin)
    say("ready")
    for _ in sys.stdin:
        with one_round():
            request[0] = 0
            while not request[0]:
                receive()
                sock.send(answer)


def _receiver(sock: socket.socket, buffer: bytearray, *, spin: bool) -> Callable[[], None]:
    """Fills `buffer` with one message as long, which the kernel hands over whole."""
    size = len(buffer)
    sock.setblocking(not spin)
    receive_into = sock.recv_into

    def receive() -> None:
        if receive_into(buffer) != size:
            raise ConnectionError("the other end is gone")

    def spin_and_receive() -> None:
        while True:
            try:
                return receive()
            except BlockingIOError:
                continue

    return spin_and_receive if spin else receive


if __name__ == "__main__":
    _fd, _answer_size, _mode = sys.argv[1:]
    echo(socket.socket(fileno=int(_fd)), int(_answer_size), spin=_mode == "spin")
