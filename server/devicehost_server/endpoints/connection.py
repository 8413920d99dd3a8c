"""One client of the local socket: reads, has it done, and answers.

All that arrived is taken by one read, and all answers go by one write. Accesses of regions
take the fast way, straight from the buffer of the read to that of the write; everything
else becomes an object on its way.

A device may want memory that the client shares without a descriptor: that is a message to
the client, whose reply arrives here like anything else. The thread of the connection waits
for it by serving the client meanwhile; any other thread just waits.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import suppress
from errno import EIO
from typing import Any

import structlog

from devicehost.access_status import AccessStatus
from devicehost.bus_regions import LIMITS
from devicehost.vfio_user import (
    DmaData,
    DmaRead,
    DmaWrite,
    DmaWritten,
    Ended,
    Event,
    Failed,
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
from devicehost_server.endpoints.bus import BusDevice
from devicehost_server.endpoints.refused import Refused
from devicehost_server.endpoints.ring import status_of
from devicehost_server.model.errors import DeviceHostError, MemoryNotMapped
from devicehost_server.model.guest_memory import GuestMemory
from devicehost_server.model.interrupts import InterruptController
from devicehost_server.model.io_manager import IoManager

_log = structlog.get_logger(__name__)

_RECEIVE_SIZE = 1 << 16
_ANCILLARY_SIZE = socket.CMSG_SPACE(LIMITS.max_msg_fds * 4)
DMA_TIMEOUT_S = 5.0
"""How long a client may take for a transfer of its memory."""


class _Buffers:
    """What is read, and what is to be written."""

    __slots__ = ("answers", "received")

    def __init__(self) -> None:
        self.received = bytearray(_RECEIVE_SIZE)
        self.answers = bytearray(2 * _RECEIVE_SIZE + DATA)


class _Call:
    """A request of ours that waits for its reply."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.event: Reply | Failed | None = None


class Connection:
    """One client. `run` serves it on the calling thread until it goes.

    Args:
        sock: the connected socket.
        io: makes its accesses.
        interrupts: what its eventfds signal.
        memory: where devices find the memory that it shares.
    """

    def __init__(
        self,
        sock: socket.socket,
        io: IoManager,
        interrupts: InterruptController,
        memory: GuestMemory,
    ) -> None:
        self._sock = sock
        self._session = ServerSession(LIMITS)
        self._bus = BusDevice(io, interrupts, memory, self._dma_read, self._dma_write)
        self._thread: int | None = None
        self._lock = threading.RLock()  # of the session and of what is sent
        self._calls: dict[int, _Call] = {}
        self._over = False

    def run(self) -> None:
        """Serve the client until it goes, or breaks the protocol."""
        self._thread = threading.get_ident()
        try:
            buffers = _Buffers()
            while not self._over:
                self._serve_once(buffers)
        except OSError as error:
            _log.info("connection_lost", error=str(error))
        finally:
            self._close()

    def shut_down(self) -> None:
        """End the connection, from another thread."""
        self._over = True
        with suppress(OSError):  # it has ended by itself
            self._sock.shutdown(socket.SHUT_RDWR)

    def _serve_once(self, buffers: _Buffers) -> None:
        """Take what one read brings, and answer it by one write."""
        received = buffers.received
        size, fds, complete = self._receive(received)
        start = 0
        if not fds:
            start, end = self._serve_accesses(buffers, size)
            if end:
                with self._lock:
                    self._sock.sendall(memoryview(buffers.answers)[:end])
        with self._lock:
            if size == 0 and not fds:
                events = self._session.receive_eof()
            elif start < size or fds:
                events = self._session.receive_data(memoryview(received)[start:size], fds)
            else:
                return
        if not complete:
            _log.warning("too_many_fds")
            self._over = True
        for event in events:
            self._handle(event)

    def _receive(self, received: bytearray) -> tuple[int, list[int], bool]:
        """Read; return how many bytes, the descriptors, and whether those are all."""
        size, ancillary, flags, _ = self._sock.recvmsg_into(
            [received], _ANCILLARY_SIZE, socket.MSG_CMSG_CLOEXEC
        )
        fds: list[int] = []
        for level, kind, data in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                fds += memoryview(data)[: len(data) // 4 * 4].cast("i")
        return size, fds, not flags & socket.MSG_CTRUNC

    def _serve_accesses(self, buffers: _Buffers, size: int) -> tuple[int, int]:
        """Make the accesses at the front of what was read; pack their answers.

        Returns:
            How many bytes of what was read that were, and how many of answers.
        """
        received, answers = buffers.received, memoryview(buffers.answers)
        start = end = 0
        while end < _RECEIVE_SIZE:
            fields = self._session.next_access(received, start, size)
            if fields is None:
                break
            message_id, command, length, flags, _, offset, region, count = fields
            if command == REGION_READ and count > _RECEIVE_SIZE:
                break  # a long read goes the general way
            answer = answers[end:]
            status = AccessStatus.OK
            try:
                if command == REGION_READ:
                    self._bus.read(region, offset, answer[DATA : DATA + count])
                else:
                    data = bytes(received[start + DATA : start + length])
                    self._bus.write(region, offset, data)
            except (Refused, DeviceHostError) as error:
                status = status_of(error)
            start += length
            if flags & NO_REPLY:
                if status:
                    self._bus.count_posted_failure(status)
            elif status:
                failure = encode_error(message_id, command, status.errno)
                answer[: len(failure)] = failure
                end += len(failure)
            elif command == REGION_READ:
                end += pack_read_reply(answer, message_id, region, offset, count)
            else:
                end += pack_write_reply(answer, message_id, region, offset, count)
        return start, end

    def _handle(self, event: Event) -> None:
        match event:
            case Request():
                self._serve(event)
            case Rejected(fault=fault, answer=None):
                _log.info("request_rejected", error=str(fault))
                self._bus.count_posted_failure(AccessStatus.BAD_ACCESS)
            case Rejected(fault=fault):
                _log.info("request_rejected", error=str(fault))
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

    def _finish_call(self, event: Reply | Failed) -> None:
        _close_all(getattr(event, "fds", ()))
        call = self._calls.pop(event.message_id, None)
        if call is not None:
            call.event = event
            call.done.set()

    def _serve(self, request: Request) -> None:
        """Do what was asked the general way, and answer."""
        kept = False
        try:
            answer = self._bus.serve(request.payload, request.fds)
            kept = answer.kept
            with self._lock:
                outgoing = self._session.reply(request, answer.payload, answer.fds)
        except Exception as error:  # noqa: BLE001 # a bug of ours ends the request only
            if isinstance(error, Refused | DeviceHostError):
                _log.info("request_refused", request=repr(request.payload), error=str(error))
            else:
                _log.error("request_failed", request=repr(request.payload), exc_info=error)
            status = status_of(error)
            errno = error.errno if isinstance(error, Refused) else status.errno
            if request.posted:
                self._bus.count_posted_failure(status)
            with self._lock:
                outgoing = self._session.fail(request, errno or EIO)
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

    def _dma_read(self, address: int, size: int) -> bytes:
        most = self._session.agreement.max_data_xfer_size
        pieces = []
        for at in range(address, address + size, most):
            reply = self._call(DmaRead(at, min(most, address + size - at)))
            if not isinstance(reply, DmaData):
                raise _no_memory(at)
            pieces.append(reply.data)
        return b"".join(pieces)

    def _dma_write(self, address: int, data: bytes) -> None:
        most = self._session.agreement.max_data_xfer_size
        for at in range(0, len(data), most):
            reply = self._call(DmaWrite(address + at, data[at : at + most]))
            if not isinstance(reply, DmaWritten):
                raise _no_memory(address + at)

    def _call(self, payload: RequestPayload) -> Any:
        """Ask the client for something; return the reply, or None if it refused."""
        call = _Call()
        with self._lock:
            outgoing = self._session.request(payload)
            self._calls[outgoing.message_id] = call
            self._send(outgoing)
        deadline = time.monotonic() + DMA_TIMEOUT_S
        if threading.get_ident() == self._thread:
            # The access that needs it isn't done with the buffers of the read it came by.
            buffers = _Buffers()
            while not call.done.is_set() and not self._over and time.monotonic() < deadline:
                self._serve_once(buffers)
        else:
            call.done.wait(DMA_TIMEOUT_S)
        return call.event.payload if isinstance(call.event, Reply) else None

    def _close(self) -> None:
        """Give back all that the client had."""
        self._over = True
        for event in self._session.receive_eof():
            if isinstance(event, StrayFds):
                _close_all(event.fds)
        for call in self._calls.values():
            call.done.set()
        self._bus.close()
        self._sock.close()


def _close_all(fds: tuple[int, ...]) -> None:
    for fd in fds:
        os.close(fd)


def _no_memory(address: int) -> MemoryNotMapped:
    return MemoryNotMapped(f"the client didn't transfer its memory at {address:#x}")
