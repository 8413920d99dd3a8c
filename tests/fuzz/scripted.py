"""A connection of a local socket that follows a script, and what has to hold of any.

An input is what a client sends, cut into reads: requests, accesses, rubbish, replies to
what the device asks of the client's memory, and descriptors of several kinds. The server
has the one end of a socket pair. The script has the other, and writes the next piece
whenever the last one was taken; so the connection runs on the fuzzer's own thread.

What holds:
    Nothing is raised, and nothing is logged as an error of ours.
    What comes back are whole messages: replies, and requests for the client's memory.
    Each command that wants an answer gets one, and no other does.
    Afterwards no descriptor, thread, memory block or eventfd is left.
"""

from __future__ import annotations

import gc
import os
import socket
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from structlog.testing import capture_logs

from devicehost.bus_regions import LIMITS
from devicehost.vfio_user import (
    ClientSession,
    Command,
    Header,
    Request,
    ServerSession,
    UnexpectedReply,
    Violation,
)
from devicehost.vfio_user.header import COMMAND_TYPE, REPLY_TYPE
from devicehost_server.endpoints.connection import Connection
from devicehost_server.endpoints.endpoint import Endpoint
from devicehost_server.model.device_io import DeviceIo, ReadableBuffer, WritableBuffer
from devicehost_server.model.guest_memory import GuestMemory
from devicehost_server.model.interrupts import InterruptController
from fuzz.bus_script import DMA, SIZE, Piece, Script, palette
from fuzz.framer import Framer
from fuzz.source import Source

IRQ: Final = 0x40
"""Register: the byte written is an interrupt, of which the next one is the level."""

OPERATIONS_MAX: Final = 64
THREAD_S: Final = 10.0
"""How long a thread may take to end, in seconds. The machine may be busy."""
FDS_TAKEN: Final = LIMITS.max_msg_fds + 1
"""With more than these by one message, the kernel tells that some are missing."""

_OF_CLIENTS = ("ring", "unmasking")


class Device(DeviceIo):
    """Memory, with a register that interrupts, and one that goes to the guest's memory."""

    def __init__(self, interrupts: InterruptController, memory: GuestMemory) -> None:
        self._content = bytearray(SIZE)
        self._interrupts = interrupts
        self._memory = memory

    def read(self, base: int, offset: int, data: WritableBuffer) -> None:
        del base
        data[:] = self._content[offset : offset + len(data)]

    def write(self, base: int, offset: int, data: ReadableBuffer) -> None:
        del base
        if offset == IRQ and len(data) > 1:
            self._interrupts.line(data[0], "fuzzed").set_level(asserted=bool(data[1]))
        elif offset == DMA:
            address = int.from_bytes(data, "little")
            self._memory.write(address, self._memory.read(address, 4)[::-1])
        else:
            self._content[offset : offset + len(data)] = data

    pio_read = read
    pio_write = write

    def reset(self) -> None:
        """Forget everything."""
        self._content[:] = bytes(SIZE)


class ScriptedSocket(socket.socket):
    """The server's end of a pair, whose other end follows a script.

    Attributes:
        peer: the other end.
        received: what came out of it.
    """

    def __init__(self, fileno: int, peer: socket.socket, script: list[Piece]) -> None:
        super().__init__(fileno=fileno)
        self.peer = peer
        self.received = b""
        self._script = script
        self._next()

    def recvmsg_into(self, *arguments: Any) -> Any:
        """Read, as ever, and have the next piece written: a read never takes two."""
        found = super().recvmsg_into(*arguments)
        self._next()
        return found

    def drain(self) -> None:
        """Take what the server has sent; close descriptors that came along."""
        with suppress(BlockingIOError, ConnectionResetError):  # reset: all was read before
            while True:
                data, fds, _, _ = socket.recv_fds(self.peer, 1 << 16, LIMITS.max_msg_fds)
                for fd in fds:
                    os.close(fd)
                self.received += data
                if not data:
                    return

    def _next(self) -> None:
        self.drain()
        if self._script:
            data, fds = self._script.pop(0)
            with suppress(BrokenPipeError):
                socket.send_fds(self.peer, [data], fds)
        else:
            with suppress(OSError):
                self.peer.shutdown(socket.SHUT_WR)


def follow(
    source: Source, script: Script, make: Callable[[], tuple[Endpoint, GuestMemory]]
) -> None:
    """Be the client that an input describes, and look at what the server did.

    Args:
        source: the input.
        script: makes what is sent.
        make: makes what is served, and the memory in which devices find the client's.
    """
    if source.byte() & 1:
        script.pieces.append((ClientSession(LIMITS).propose().data, []))
    operations = (
        script.access,
        script.message,
        script.memory,
        script.transfer,
        script.reply,
        script.raw,
    )
    for _ in range(OPERATIONS_MAX):
        if source.left:
            source.choose(operations)(source)
    script.end()
    palette()
    before = _descriptors()
    answers = _serve(script.pieces, *make())
    if _descriptors() != before:
        gc.collect()
        assert _descriptors() == before, "all are given back"
    _check(script.pieces, answers)


def _serve(pieces: list[Piece], endpoint: Endpoint, memory: GuestMemory) -> list[bytes]:
    """Run a connection to its end; return the messages that came from it."""
    ours, theirs = socket.socketpair()
    ours.settimeout(0)
    with ours as peer, capture_logs() as logged:
        sock = ScriptedSocket(theirs.detach(), peer, list(pieces))
        Connection(sock, endpoint).run()
        sock.drain()
    errors = [entry for entry in logged if entry["log_level"] == "error"]
    faults = [entry for entry in errors if entry["event"] != "device_fault"]  # without its memory
    assert not faults, f"faults of ours: {faults}"
    assert memory.blocks() == ()
    framer = Framer(LIMITS)
    messages = [message for message, _ in framer.feed(sock.received, ()) if message]
    assert framer.empty
    return messages


def _check(pieces: list[Piece], messages: list[bytes]) -> None:
    """Check that each command that wants an answer got one, where that can be told."""
    answered: Counter[tuple[int, int]] = Counter()
    for message in messages:
        header = Header.decode(message)
        if header.type == REPLY_TYPE:
            answered[header.message_id, header.command] += 1
        else:
            assert header.type == COMMAND_TYPE
            assert header.command in (Command.DMA_READ, Command.DMA_WRITE)
    expected = _expected(pieces)
    assert expected is None or answered == expected, f"answered {answered}, not {expected}"


def _expected(pieces: list[Piece]) -> Counter[tuple[int, int]] | None:
    """The commands that want an answer; None if it can't be told from the script alone."""
    if any(len(fds) > FDS_TAKEN for _, fds in pieces):
        return None
    session, framer = ServerSession(LIMITS), Framer(LIMITS)
    wanted: Counter[tuple[int, int]] = Counter()
    for data, fds in pieces:
        for message, belonging in framer.feed(data, fds):
            for event in session.receive_data(message, belonging):
                if isinstance(event, Violation) and isinstance(event.fault, UnexpectedReply):
                    return None  # it may be one that the device asked for
                answer = getattr(event, "answer", None)
                if answer is not None or (isinstance(event, Request) and not event.posted):
                    header = Header.decode(message)
                    wanted[header.message_id, header.command] += 1
    return wanted


def _descriptors() -> int:
    """How many there are, once the threads of clients have ended: nobody waits for them."""
    for thread in threading.enumerate():
        if thread.name in _OF_CLIENTS:
            thread.join(THREAD_S)
            assert not thread.is_alive()
    return len(list(Path("/proc/self/fd").iterdir()))
