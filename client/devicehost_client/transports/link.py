"""One connection to the local socket: a vfio-user session, and the I/O for it.

Whoever asks for something reads the socket until the answer is there, and serves what the
server asks meanwhile. One does so at a time: the server takes the messages of a connection
one after the other, so nothing is lost by waiting here. A read and a write of a region take
the fast way of the session, with one send and one receive.

A link ends once, with `lose`, from any thread: the peer is gone, it broke the protocol, or
an access was overdue. Nothing is said on it afterwards; there will be another one.
"""

from __future__ import annotations

import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from errno import EFAULT
from pathlib import Path
from typing import Any, TypeAlias
from uuid import UUID

from devicehost.bus_regions import INSTANCE_ID, LIMITS, REGION_STATUS
from devicehost.ring.spin import Spin
from devicehost.vfio_user import (
    ClientSession,
    DmaRead,
    DmaWrite,
    Ended,
    Event,
    Failed,
    Negotiated,
    NotOpen,
    OurFault,
    Outgoing,
    RegionData,
    RegionRead,
    Rejected,
    Reply,
    ReplyPayload,
    Request,
    RequestPayload,
    State,
    StrayFds,
    Violation,
)
from devicehost.vfio_user.fast_access import DATA
from devicehost_client.errors import AccessTimeout, ConnectionLost
from devicehost_client.port import ReadableBuffer, WritableBuffer

_BUFFER_SIZE = (1 << 16) + DATA
_SHORT_MAX = 64
_TIMEVAL = struct.Struct("@ll")

DmaServer: TypeAlias = Callable[[DmaRead | DmaWrite], ReplyPayload[Any] | None]
"""Serves the server's accesses to memory; None where there is none."""


class Refusal(Exception):
    """The server refused a request.

    Attributes:
        errno: why.
    """

    def __init__(self, errno: int) -> None:
        super().__init__(os.strerror(errno))
        self.errno = errno


class Link:
    """A connection. Safe to use from any thread.

    Args:
        path: the local socket.
        timeout_s: how long an answer may take, in seconds.
        spin_s: the longest to look for an answer before sleeping, in seconds.
        serve_dma: serves what the server asks for.

    Attributes:
        instance_id: of the server.
        lost: whether it has ended.
        is_held: tells whether the server holds accesses for somebody who debugs: an answer
            that takes long isn't overdue then.

    Raises:
        ConnectionLost: nobody is there, or we aren't wanted.
    """

    def __init__(self, path: Path, timeout_s: float, spin_s: float, serve_dma: DmaServer) -> None:
        self.lost = False
        self.is_held: Callable[[], bool] = lambda: False
        self._timeout_s = timeout_s
        self._serve_dma = serve_dma
        self._session = ClientSession(LIMITS)
        self._lock = threading.RLock()  # of the socket, the session and the buffers
        self._on_lost: list[Callable[[], None]] = []
        self._spin = Spin(spin_s)
        self._outgoing = bytearray(_BUFFER_SIZE)
        self._incoming = bytearray(_BUFFER_SIZE)
        self._incoming_view = memoryview(self._incoming)
        # Made once, because to make one takes longer than to use it.
        whole = memoryview(self._outgoing)
        self._request = whole[:DATA]  # of a read
        self._writes = [whole[: DATA + count] for count in range(_SHORT_MAX + 1)]
        try:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        except OSError as error:
            raise ConnectionLost(f"local socket {path}: {error}") from error
        try:
            self._connect(path)
            self.instance_id = str(UUID(bytes=self._read_instance()))
        except (OSError, Refusal, AccessTimeout) as error:
            self._socket.close()
            raise ConnectionLost(f"local socket {path}: {error}") from error
        except BaseException:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """The socket, for somebody who watches whether the peer hangs up."""
        return self._socket.fileno()

    def when_lost(self, callback: Callable[[], None]) -> None:
        """Have `callback` called when the link ends; at once if it has."""
        with self._lock:
            self._on_lost.append(callback)
        if self.lost:
            callback()

    def lose(self) -> None:
        """End it, once. Whoever waits for an answer finds out."""
        if not self.lost:
            self.lost = True
            with suppress(OSError):  # the peer was faster
                self._socket.shutdown(socket.SHUT_RDWR)
            for callback in tuple(self._on_lost):
                callback()

    def close(self) -> None:
        """Free the socket of a link that has ended, when nobody uses it any more."""
        self.lose()
        with self._lock:
            self._socket.close()

    # Requests of any kind.

    def call(self, payload: RequestPayload, fds: Sequence[int] = ()) -> Reply:
        """Ask for something; return the reply. Descriptors in it are the caller's.

        Raises:
            Refusal: the server said no.
            AccessTimeout, ConnectionLost: it said nothing.
        """
        with self._lock:
            try:
                outgoing = self._session.request(payload, fds)
            except OurFault as error:
                raise ConnectionLost(f"the request can't be made: {error}") from error
            self._send_message(outgoing)
            answer = self._await(outgoing.message_id)
        if isinstance(answer, Failed):
            raise Refusal(answer.errno)
        return answer

    def serve(self) -> None:
        """Serve what the server asks of its own accord, if anything is there."""
        with self._lock, suppress(BlockingIOError):
            while not self.lost:
                size, fds = self._receive_with_fds(socket.MSG_DONTWAIT)
                self._take(size, fds, None)

    # Accesses.

    def read(self, region: int, offset: int, data: WritableBuffer) -> None:
        """Fill `data` from a region.

        Raises:
            Refusal: it can't be read.
            OurFault: no such access can be asked for.
            AccessTimeout, ConnectionLost: no answer came.
        """
        with self._lock:
            try:
                message_id = self._session.start_read(self._outgoing, region, offset, len(data))
            except NotOpen as error:
                raise _ended() from error
            size = self._exchange(self._request)
            if self._session.finish(self._incoming, size, message_id):
                data[:] = self._incoming_view[DATA:size]
            else:
                data[:] = _data_of(self._reply(message_id, size))

    def write(self, region: int, offset: int, data: ReadableBuffer) -> None:
        """Write `data` to a region, and wait until that is done. Raises as `read` does."""
        with self._lock:
            buffer, message = self._message(data)
            try:
                message_id = self._session.start_write(buffer, region, offset, len(data))
            except NotOpen as error:
                raise _ended() from error
            size = self._exchange(message)
            if not self._session.finish(self._incoming, size, message_id):
                self._reply(message_id, size)

    def post(self, region: int, offset: int, data: ReadableBuffer) -> None:
        """Write `data` to a region, without waiting for it. Raises as `read` does."""
        with self._lock:
            buffer, message = self._message(data)
            try:
                self._session.post_write(buffer, region, offset, len(data))
                sent = self._socket.send(message)
                if sent < len(message):
                    self._socket.sendall(message[sent:])
            except NotOpen as error:
                raise _ended() from error
            except OSError as error:
                raise self._broken(error) from error

    def _message(self, data: ReadableBuffer) -> tuple[bytearray, memoryview]:
        """Put the data of a write where it is sent from; return the buffer, and the message."""
        count = len(data)
        if count <= _SHORT_MAX:
            message = self._writes[count]
            message[DATA:] = data
            return self._outgoing, message
        buffer = bytearray(DATA + count)
        buffer[DATA:] = data
        return buffer, memoryview(buffer)

    def _exchange(self, message: memoryview) -> int:
        """Send a message, and read what comes next; return its size."""
        # Whoever is woken by the one should find us waiting in the other: nothing between.
        try:
            sent = self._socket.send(message)
            if sent < len(message):
                self._socket.sendall(message[sent:])
        except OSError as error:
            raise self._broken(error) from error
        try:
            if self._spin.now_s:
                return self._look()
            return self._socket.recv_into(self._incoming)
        except BlockingIOError as error:
            return self._wait_for_the_held(error)
        except OSError as error:
            raise self._broken(error) from error

    def _wait_for_the_held(self, overdue: BlockingIOError) -> int:
        """Wait on, after a time limit, for as long as accesses are held; return the size."""
        while self.is_held():
            try:
                return self._socket.recv_into(self._incoming)
            except BlockingIOError:
                continue
            except OSError as error:
                raise self._broken(error) from error
        raise self._broken(overdue) from overdue

    def _look(self) -> int:
        """Look for what comes for as long as that pays, then sleep; return its size."""
        spin, recv_into, incoming = self._spin, self._socket.recv_into, self._incoming
        until = time.monotonic() + spin.now_s
        while time.monotonic() < until:
            try:
                size = recv_into(incoming, 0, socket.MSG_DONTWAIT)
            except BlockingIOError:
                continue
            spin.after(helped=True)
            return size
        spin.after(helped=False)
        return recv_into(incoming)

    def _reply(self, message_id: int, size: int) -> Reply:
        """Return the reply to an access, of which `size` bytes are there already."""
        answer = self._await(message_id, size)
        if isinstance(answer, Failed):
            raise Refusal(answer.errno)
        return answer

    # The socket. Under the lock.

    def _connect(self, path: Path) -> None:
        # The kernel's own time limits: Python's cost a system call for each.
        limit = _TIMEVAL.pack(int(self._timeout_s), int(self._timeout_s % 1 * 1_000_000))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        self._socket.connect(str(path))
        outgoing = self._session.propose()
        self._send_message(outgoing)
        while self._session_is_new():
            size, fds = self._receive_with_fds()
            self._take(size, fds, None)

    def _session_is_new(self) -> bool:
        if self.lost:
            raise ConnectionLost("the server hung up")
        return self._session.state is not State.OPEN

    def _read_instance(self) -> bytes:
        return _data_of(self.call(RegionRead(REGION_STATUS, INSTANCE_ID, 16)))

    def _send_message(self, outgoing: Outgoing) -> None:
        try:
            sent = 0
            if outgoing.fds:
                sent = socket.send_fds(self._socket, [outgoing.data], list(outgoing.fds))
            self._socket.sendall(memoryview(outgoing.data)[sent:])
        except OSError as error:
            raise self._broken(error) from error

    def _receive_with_fds(self, flags: int = 0) -> tuple[int, list[int]]:
        """Read into the buffer; return how much, and the descriptors that came with it."""
        try:
            size, ancillary, _, _ = self._socket.recvmsg_into(
                [self._incoming],
                socket.CMSG_SPACE((LIMITS.max_msg_fds + 1) * 4),
                flags | socket.MSG_CMSG_CLOEXEC,
            )
        except OSError as error:
            if isinstance(error, BlockingIOError) and flags & socket.MSG_DONTWAIT:
                raise
            raise self._broken(error) from error
        fds: list[int] = []
        for level, kind, data in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                fds += memoryview(data)[: len(data) // 4 * 4].cast("i")
        return size, fds

    def _broken(self, error: OSError) -> AccessTimeout | ConnectionLost:
        """End the link; return the error for whoever waited."""
        # After a time limit, too: what comes late would be taken for another answer.
        self.lose()
        if isinstance(error, BlockingIOError):
            return self._overdue()
        return ConnectionLost(f"the server is lost: {error}")

    def _overdue(self) -> AccessTimeout:
        return AccessTimeout(f"no answer within {self._timeout_s:g} s")

    # The session. Under the lock.

    def _await(self, message_id: int, size: int | None = None) -> Reply | Failed:
        """Read until a request is answered. Of its answer, `size` bytes are there already."""
        fds: list[int] = []
        deadline = time.monotonic() + self._timeout_s
        while True:
            if size is None:
                size, fds = self._receive_with_fds()
            answer = self._take(size, fds, message_id)
            if answer is not None:
                return answer
            if self.lost:
                raise ConnectionLost("the server hung up")
            # A server that asks for memory isn't silent.
            if time.monotonic() >= deadline and not self.is_held():
                self.lose()
                raise self._overdue()
            size, fds = None, []

    def _take(self, size: int, fds: Sequence[int], message_id: int | None) -> Reply | Failed | None:
        """Deal with what was read; return the answer to a request, if it is there."""
        if size:
            events = self._session.receive_data(self._incoming_view[:size], fds)
        else:
            events = self._session.receive_eof()
        answer = None
        for event in events:
            if isinstance(event, Reply | Failed) and event.message_id == message_id:
                answer = event
            else:
                self._handle(event)
        return answer

    def _handle(self, event: Event) -> None:
        match event:
            case Negotiated():
                pass
            case Request():
                self._answer(event)
            case Rejected(answer=Outgoing() as answer):
                self._send_message(answer)
            case Reply(fds=fds) | StrayFds(fds=fds):
                for fd in fds:
                    os.close(fd)
            case Violation(fault=fault):
                self.lose()
                raise ConnectionLost(f"the server broke the protocol: {fault}")
            case Ended():
                self.lose()

    def _answer(self, request: Request) -> None:
        """Serve a request of the server's: it wants memory that it has no descriptor for."""
        for fd in request.fds:
            os.close(fd)
        payload = None
        if isinstance(request.payload, DmaRead | DmaWrite):
            payload = self._serve_dma(request.payload)
        if payload is None:
            outgoing = self._session.fail(request, EFAULT)
        else:
            outgoing = self._session.reply(request, payload)
        if outgoing is not None:
            self._send_message(outgoing)


def _ended() -> ConnectionLost:
    """The error of an access that finds the session over: whoever was first saw the end."""
    return ConnectionLost("the server is lost")


def _data_of(reply: Reply) -> bytes:
    """What a read found."""
    assert isinstance(reply.payload, RegionData)  # noqa: S101 # the session has checked
    return reply.payload.data
