"""One client of the local socket: reads, has it done, and answers.

All that arrived is taken by one read, and all answers go by one write. Accesses of regions
take the fast way, straight from the buffer of the read to that of the write; everything
else becomes an object on its way. After a message the connection looks for the next one
for as long as that pays (`devicehost.ring.spin`), and then sleeps.

A device may want memory that the client shares without a descriptor: that is a message to
the client, whose reply arrives here like anything else. The thread of the connection waits
for it by serving the client meanwhile; any other thread just waits. What was read before
is served first: nothing overtakes. So who waits so with the lock of a device, in a timer say,
waits in vain if the client accesses that device: the access fails as one of a device that
hangs, and then the reply is found.

What a client has is freed as soon as it goes (`end`), by whichever thread notices. Its own
one may be in a device that hangs; it finds out when the device lets it go.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import threading
import time
from collections import deque
from contextlib import suppress
from errno import EIO
from itertools import repeat
from typing import Any

import structlog

from devicehost.access_status import AccessStatus
from devicehost.bus_regions import LIMITS
from devicehost.ring.spin import Spin
from devicehost.vfio_user import (
    Ended,
    Event,
    Failed,
    OurFault,
    Outgoing,
    Rejected,
    Reply,
    Request,
    RequestPayload,
    ServerSession,
    StrayFds,
    Violation,
)
from devicehost.vfio_user.fast_access import DATA, REGION_READ, pack_read_reply, pack_write_reply
from devicehost.vfio_user.header import NO_REPLY, encode_error
from devicehost_server.endpoints.buffers import RECEIVE_SIZE, SMALL, Buffers
from devicehost_server.endpoints.dma import ClientMemory
from devicehost_server.endpoints.endpoint import Endpoint
from devicehost_server.endpoints.refused import Refused
from devicehost_server.endpoints.statuses import status_of
from devicehost_server.model.errors import DeviceHostError

_log = structlog.get_logger(__name__)

DMA_TIMEOUT_S = 5.0
"""How long a client may take for a transfer of its memory, or to take what we send."""

NESTED_MAX = 16
"""How many accesses may wait for memory of the client at a time, each within the last."""

_ANCILLARY_SIZE = socket.CMSG_SPACE((LIMITS.max_msg_fds + 1) * 4)
_FLAGS = int(socket.MSG_CMSG_CLOEXEC)  # plain numbers: the enums are slow
_TRUNCATED = int(socket.MSG_CTRUNC)
_LOOKS = 16  # for the next message, before others have their turn: about 5 microseconds
_TIMEVAL = struct.Struct("ll")


class _Call:
    """A request of ours that waits for its reply."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.event: Reply | Failed | None = None


class Connection:
    """One client. `run` serves it on the calling thread until it goes.

    Args:
        sock: the connected socket.
        endpoint: what it reaches.

    Attributes:
        ended: set when all that the client had is free again, but for what accesses that are
            being made may use.
    """

    def __init__(self, sock: socket.socket, endpoint: Endpoint) -> None:
        # A client that takes nothing any more holds nobody up for long.
        timeout = _TIMEVAL.pack(int(DMA_TIMEOUT_S), 0)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeout)
        self._sock = sock
        self._session = ServerSession(LIMITS)
        memory = ClientMemory(self._session, self._call)
        self._attached = endpoint.attach(memory.read, memory.write)
        self._spin_s = endpoint.spin_s
        self._spin = Spin(endpoint.spin_s)
        to_read = select.poll()
        to_read.register(sock, select.POLLIN)
        self._arrived = to_read.poll
        self._recvmsg_into = sock.recvmsg_into
        self._thread: int | None = None
        self._lock = threading.RLock()  # of the session and of what is sent
        self._buffers = Buffers()
        self._events: deque[Event] = deque()
        self._calls: dict[int, _Call] = {}
        self._nested = 0
        self._over = False
        self.ended = threading.Event()

    def run(self) -> None:
        """Serve the client until it goes, or breaks the protocol."""
        self._thread = threading.get_ident()
        try:
            while not self._over:
                self._serve_once()
        except OSError as error:
            _log.info("connection_lost", error=str(error))
        except Exception as error:  # noqa: BLE001 # a bug of ours ends the connection only
            _log.error("connection_failed", exc_info=error)
        finally:
            self.end()
            self._close()

    def view(self) -> dict[str, int]:
        """What somebody who debugs sees of the client."""
        return self._attached.view()

    def drain(self) -> None:
        """Refuse accesses from here on."""
        self._attached.drain()

    def ask_to_leave(self) -> bool:
        """Ask the client to leave; return whether it can be asked."""
        return self._attached.ask_to_leave()

    def finish(self) -> None:
        """Read no more; answer what arrived, and end."""
        with suppress(OSError):  # it has ended by itself
            self._sock.shutdown(socket.SHUT_RD)

    def end(self) -> None:
        """Hang up, and give back all that the client had; the rest goes with `release`.

        Whatever the connection's own thread does: it may be in a device.
        """
        self._over = True
        with suppress(OSError):  # it has ended by itself
            self._sock.shutdown(socket.SHUT_RDWR)
        self._attached.close()
        for call in tuple(self._calls.values()):
            call.done.set()
        self.ended.set()

    def release(self) -> None:
        """Give back what accesses that are being made may use; it is freed when they end."""
        self._attached.release()

    def _close(self) -> None:
        """Free what is left, on the connection's own thread."""
        with self._lock:
            for event in (*self._events, *self._session.receive_eof()):
                _close_all(getattr(event, "fds", ()))
            self._events.clear()
        self._sock.close()
        self.release()

    # Requests of the client.

    def _serve_once(self) -> None:
        """Handle what is there; if nothing is, take what one read brings."""
        if self._events:
            self._handle(self._events.popleft())
            return
        buffers = self._buffers
        if buffers.start == buffers.size:
            if self._spin.now_s:
                self._look()
            size, ancillary, flags, _ = self._recvmsg_into(buffers.into, _ANCILLARY_SIZE, _FLAGS)
            if ancillary or flags & _TRUNCATED or not size:
                self._take(memoryview(buffers.received)[:size], ancillary, flags)
                return
            buffers.start, buffers.size = 0, size
        self._serve_accesses(buffers)
        if buffers.start < buffers.size:
            rest = memoryview(buffers.received)[buffers.start : buffers.size]
            buffers.start = buffers.size
            with self._lock:
                self._events += self._session.receive_data(rest)

    def _look(self) -> None:
        """Spin until something is there to read, or for as long as that pays."""
        spin, arrived = self._spin, self._arrived
        until = time.monotonic() + spin.now_s
        while True:
            for _ in repeat(None, _LOOKS):
                if arrived(0):
                    if spin.now_s < self._spin_s:
                        spin.after(helped=True)
                    return
            if time.monotonic() >= until:
                spin.after(helped=False)
                return
            # The kernel tends to wake us where the client runs, for it expects a client
            # that waits. One that spins as well would have to wait for us to sleep.
            os.sched_yield()

    def _take(self, data: memoryview, ancillary: list[tuple[int, int, bytes]], flags: int) -> None:
        """Take a read that ended the connection, or brought file descriptors."""
        fds: list[int] = []
        for level, kind, found in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                fds += memoryview(found)[: len(found) // 4 * 4].cast("i")
        with self._lock:
            if data or fds:
                self._events += self._session.receive_data(data, fds)
            else:
                self._events += self._session.receive_eof()
        if flags & _TRUNCATED:
            _log.warning("too_many_fds")
            self._over = True

    def _serve_accesses(self, buffers: Buffers) -> None:
        """Make the accesses at the front of what was read, and send their answers."""
        received, answers, view = buffers.received, buffers.answers, buffers.view
        attached = self._attached
        start, end = buffers.start, 0
        while start < buffers.size:  # an access that needs memory of the client takes the rest
            fields = self._session.next_access(received, start, buffers.size)
            if fields is None:
                break
            message_id, command, length, flags, _, offset, region, count = fields
            if command == REGION_READ and count > RECEIVE_SIZE:
                break  # a long read goes the general way
            if end > RECEIVE_SIZE:
                end = self._answer(view[:end])
            buffers.start = stop = start + length
            answer = view[end:] if end else answers
            try:
                if command == REGION_READ:
                    if end or count > SMALL:
                        attached.read(region, offset, view[end + DATA : end + DATA + count])
                    else:
                        attached.read(region, offset, buffers.windows[count])
                    size = pack_read_reply(answer, message_id, region, offset, count)
                else:
                    attached.write(region, offset, bytes(received[start + DATA : stop]))
                    size = pack_write_reply(answer, message_id, region, offset, count)
            except Exception as error:  # noqa: BLE001 # whatever it is, it is that access's
                failure = encode_error(message_id, command, self._errno_of(error, flags))
                size = len(failure)
                answer[:size] = failure
            start = stop
            if not flags & NO_REPLY:
                end += size
        if end:
            with self._lock:
                self._sock.sendall(view[:end])

    def _answer(self, answers: memoryview) -> int:
        """Send answers; return how many bytes are left to be sent."""
        with self._lock:
            self._sock.sendall(answers)
        return 0

    def _errno_of(self, error: Exception, flags: int) -> int:
        """The error number for a request that failed; count it, if it is posted."""
        if isinstance(error, Refused):
            status, errno = AccessStatus.BAD_ACCESS, error.errno
        else:
            status = status_of(error)
            errno = status.errno or EIO
            if not isinstance(error, DeviceHostError):
                _log.error("request_failed", exc_info=error)
        if flags & NO_REPLY:
            self._attached.count_posted_failure(status)
        return errno

    def _handle(self, event: Event) -> None:
        match event:
            case Request():
                self._serve(event)
            case Rejected(fault=fault, answer=None):
                _log.debug("request_rejected", error=str(fault))
                self._attached.count_posted_failure(AccessStatus.BAD_ACCESS)
            case Rejected(fault=fault):
                _log.debug("request_rejected", error=str(fault))
            case Reply() | Failed():
                self._finish_call(event)
            case StrayFds(fds=fds):
                _close_all(fds)
            case Violation(fault=fault):
                _log.warning("protocol_violation", error=str(fault))
                self._over = True
            case Ended():
                self._over = True
        answer = getattr(event, "answer", None)
        if answer is not None:
            self._send(answer)

    def _serve(self, request: Request) -> None:
        """Do what was asked the general way, and answer."""
        kept = False
        try:
            answer = self._attached.serve(request.payload, request.fds)
            kept = answer.kept
            with self._lock:
                outgoing = self._session.reply(request, answer.payload, answer.fds)
        except Exception as error:  # noqa: BLE001 # whatever it is, it is that request's
            _log.debug("request_refused", request=repr(request.payload), error=str(error))
            errno = self._errno_of(error, NO_REPLY if request.posted else 0)
            with self._lock:
                outgoing = self._session.fail(request, errno)
        finally:
            if not kept:
                _close_all(request.fds)
        if outgoing is not None:
            self._send(outgoing)

    def _send(self, outgoing: Outgoing) -> None:
        """Send one message; file descriptors go with its first byte."""
        with self._lock:
            sent = 0
            if outgoing.fds:
                sent = socket.send_fds(self._sock, [outgoing.data], list(outgoing.fds))
            if sent < len(outgoing.data):
                self._sock.sendall(memoryview(outgoing.data)[sent:])

    # Requests to the client.

    def _call(self, payload: RequestPayload) -> Any:
        """Ask the client for something; return the reply, or None if none came."""
        call = _Call()
        deadline = time.monotonic() + DMA_TIMEOUT_S
        try:
            with self._lock:
                outgoing = self._session.request(payload)
                self._calls[outgoing.message_id] = call
                self._send(outgoing)
            if self._over:
                return None
            if threading.get_ident() == self._thread:
                self._serve_until(call, deadline)
            else:
                call.done.wait(DMA_TIMEOUT_S)
            self._give_up(outgoing.message_id)
        except OurFault:
            return None  # the session is over
        except OSError:
            self._over = True
            return None
        return call.event.payload if isinstance(call.event, Reply) else None

    def _give_up(self, message_id: int) -> None:
        """Wait no longer for an answer, if it isn't there."""
        with self._lock:
            # It may be coming just now.
            if self._calls.pop(message_id, None) is not None:
                self._session.abandon(message_id)

    def _serve_until(self, call: _Call, deadline: float) -> None:
        """Serve the client until a request of ours is answered, within an access of its own."""
        if self._nested == NESTED_MAX:
            return
        # The access isn't done with its buffers.
        outer = self._buffers
        self._buffers = buffers = Buffers(outer.take())
        self._nested += 1
        try:
            while not (call.done.is_set() or self._over):
                if not self._events and buffers.start == buffers.size:
                    left_s = deadline - time.monotonic()
                    if left_s <= 0 or not self._arrived(left_s * 1000):
                        return
                self._serve_once()
        finally:
            self._nested -= 1
            self._buffers = outer

    def _finish_call(self, event: Reply | Failed) -> None:
        _close_all(getattr(event, "fds", ()))
        call = self._calls.pop(event.message_id, None)
        if call is not None:
            call.event = event
            call.done.set()


def _close_all(fds: tuple[int, ...]) -> None:
    for fd in fds:
        os.close(fd)
