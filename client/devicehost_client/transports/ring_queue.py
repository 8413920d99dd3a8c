"""The accesses of a vCPU through the ring.

What doesn't fit in an entry goes by the socket, when all before it is done. A string
access is made operand by operand, as the processor would.

A queue whose access is overdue is left to the server, which may still make that access,
and the next access goes through another queue, or by the socket if there is none left; so
one device that hangs is no end to the others. When the connection is lost the ring goes
with it, and the next access looks for the ring of the next connection.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeAlias

from devicehost.ring.layout import DATA_MAX, Operation
from devicehost.ring.producer import AccessFailed, AccessOverdue, Producer
from devicehost.v1 import io_service_pb2 as pb
from devicehost_client.errors import AccessTimeout, ClientError, ConnectionLost, RemoteError
from devicehost_client.port import ReadableBuffer, WritableBuffer
from devicehost_client.transports import Space
from devicehost_client.transports.link import Link
from devicehost_client.transports.shared_ring import Attachments, SharedRing
from devicehost_client.transports.socket_queue import SocketQueue, access_failed, operands

# By space; plain numbers, for they are used in each access.
_READ = {pb.SPACE_PIO: int(Operation.PIO_READ), pb.SPACE_MMIO: int(Operation.MMIO_READ)}
_WRITE = {pb.SPACE_PIO: int(Operation.PIO_WRITE), pb.SPACE_MMIO: int(Operation.MMIO_WRITE)}
_POST = {pb.SPACE_PIO: int(Operation.PIO_POST), pb.SPACE_MMIO: int(Operation.MMIO_POST)}

_Access: TypeAlias = Callable[[Space, int, Any, int], None]

_CLOSING_LOOK_S = 0.001
"""How often `close` looks whether the posted writes are made, in seconds."""

_FAILURES = (AccessFailed, AccessOverdue, ConnectionLost)


class RingQueue:
    """The accesses of one vCPU through its queue. Used by one thread at a time.

    Args:
        attachments: finds the connection.
        vcpu: whose accesses they are.
        timeout_s: how long an access may take, in seconds.
        spin_s: the longest to look for a completion before sleeping, in seconds.
    """

    def __init__(
        self, attachments: Attachments, vcpu: int, timeout_s: float, spin_s: float
    ) -> None:
        self._attachments = attachments
        self._vcpu = vcpu
        self._timeout_s = timeout_s
        self._spin_s = spin_s
        self._socket = SocketQueue(attachments)
        self._posted_failures = 0  # of rings before this one, and of what went by the socket
        self._link: Link | None = None
        self._ring: SharedRing | None = None
        self._producer: Producer | None = None  # while there is one, its link is as well

    @property
    def posted_failures(self) -> int:
        """How many posted writes failed so far."""
        producer = self._producer
        return self._posted_failures + (producer.posted_failures if producer else 0)

    def read(self, space: Space, address: int, data: WritableBuffer, size: int) -> None:
        """Fill `data`, and return when that is done."""
        producer, link = self._producer, self._link
        if producer is None or link is None or link.lost or size > DATA_MAX or len(data) != size:
            self._otherwise(
                space, address, data, size, access=self.read, by_socket=self._socket.read
            )
            return
        try:
            producer.read(_READ[space], address, data)
        except _FAILURES as error:
            raise self._failed(error, "read", space, address, size) from error
        if self._attachments.are_interrupts_watched:
            self._deliver(producer)

    def write(self, space: Space, address: int, data: ReadableBuffer, size: int) -> None:
        """Write `data`, and return when the device has taken it."""
        producer, link = self._producer, self._link
        if producer is None or link is None or link.lost or size > DATA_MAX or len(data) != size:
            self._otherwise(
                space, address, data, size, access=self.write, by_socket=self._socket.write
            )
            return
        try:
            producer.write(_WRITE[space], address, data)
        except _FAILURES as error:
            raise self._failed(error, "write", space, address, size) from error
        if self._attachments.are_interrupts_watched:
            self._deliver(producer)

    def post(self, space: Space, address: int, data: ReadableBuffer, size: int) -> None:
        """Write `data` without waiting for it."""
        producer, link = self._producer, self._link
        if producer is None or link is None or link.lost or size > DATA_MAX or len(data) != size:
            self._otherwise(
                space, address, data, size, access=self.post, by_socket=self._write_and_count
            )
            return
        try:
            producer.post(_POST[space], address, data)
        except _FAILURES as error:
            raise self._failed(error, "write", space, address, size) from error

    def close(self) -> None:
        """Wait until the posted writes are made, and let go of the ring; from any thread.

        A vCPU may be in an access. So nothing of the producer is used that isn't for all
        threads, and the memory goes when that access has let go of it.
        """
        producer, link = self._producer, self._link
        if producer is not None and link is not None:
            last, deadline = producer.last, time.monotonic() + self._timeout_s
            while not (producer.is_complete(last) or link.lost or time.monotonic() >= deadline):
                time.sleep(_CLOSING_LOOK_S)
        self._detach()
        self._ring = None
        self._socket.close()

    # The connection.

    def _live_producer(self) -> Producer | None:
        """Return our end of a queue of the live connection; None if it has none for us."""
        producer, link, ring = self._producer, self._link, self._ring
        if link is None or link.lost:
            self._detach()
            self._link = self._ring = None  # of no use, whether there is another one or not
            attachment = self._attachments.attachment()
            self._link, self._ring = attachment.link, attachment.ring
            producer, ring = None, attachment.ring
        if producer is None and ring is not None:
            producer = self._producer = ring.open_queue(self._vcpu, self._timeout_s, self._spin_s)
        return producer

    def _detach(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:  # not closed: `close` may be looking at it
            self._posted_failures += producer.posted_failures

    # What isn't a plain access through the ring.

    def _otherwise(
        self,
        space: Space,
        address: int,
        data: Any,
        size: int,
        *,
        access: _Access,
        by_socket: _Access,
    ) -> None:
        """Make an access that isn't plain, or find a connection first for one that is."""
        producer = self._live_producer()
        if len(data) != size:
            for operand in operands(data, size):
                access(space, address, operand, len(operand))
        elif producer is not None and size <= DATA_MAX:
            access(space, address, data, size)
        else:
            try:
                if producer is not None:
                    producer.flush()
            except _FAILURES as error:
                raise self._failed(error, "access", space, address, size) from error
            by_socket(space, address, data, size)

    def _write_and_count(self, space: Space, address: int, data: ReadableBuffer, size: int) -> None:
        """Write by the socket what should be posted.

        What follows through the ring would overtake a message that nobody waits for.
        """
        try:
            self._socket.write(space, address, data, size)
        except RemoteError:
            self._posted_failures += 1

    # The end of an access.

    def _deliver(self, producer: Producer) -> None:
        """Let the interrupts be delivered that came before the end of an access."""
        self._attachments.after_access(producer.interrupt_generation)

    def _failed(
        self, error: Exception, operation: str, space: Space, address: int, size: int
    ) -> ClientError:
        """Return the error of an access."""
        if isinstance(error, AccessFailed):
            producer = self._producer
            if producer is not None and self._attachments.are_interrupts_watched:
                self._deliver(producer)
            return access_failed(error.status, operation, space, address, size)
        if isinstance(error, ConnectionLost):
            return error
        self._detach()
        return AccessTimeout(
            f"no answer within {self._timeout_s:g} s to the {operation} at {address:#x}"
        )
