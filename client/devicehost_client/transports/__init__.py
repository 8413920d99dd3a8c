"""The ways to a server: one seam, which the access ports stand on.

A `Transport` is a connection; a `Queue` carries the accesses of one vCPU over it, in
order. A queue is used by one thread at a time, and its methods raise `ClientError`s:
whatever they mean for a guest is the port's business.
"""

from __future__ import annotations

from typing import Protocol, TypeAlias

from devicehost.v1 import io_service_pb2 as pb
from devicehost_client.port import ReadableBuffer, WritableBuffer

TOOL_VCPU = 0xFFFF_FFFF
"""The vCPU number of accesses that no vCPU makes."""

Space: TypeAlias = pb.Space.ValueType
"""An address space: `SPACE_PIO` or `SPACE_MMIO`."""


class Queue(Protocol):
    """The accesses of one vCPU over one transport.

    Attributes:
        posted_failures: how many posted writes failed so far.
    """

    @property
    def posted_failures(self) -> int:
        """See above."""

    def read(self, space: Space, address: int, data: WritableBuffer, size: int) -> None:
        """Fill `data`, and return when that is done.

        Args:
            space: the address space.
            address: the address of the first byte.
            data: filled in place.
            size: of one operand, in bytes; in the MMIO space the length of `data`.

        Raises:
            RemoteError: the access failed.
            AccessTimeout: no answer came in time.
            ConnectionLost: the server is gone.
        """

    def write(self, space: Space, address: int, data: ReadableBuffer, size: int) -> None:
        """Write `data`, and return when the device has taken it. Raises as `read` does."""

    def post(self, space: Space, address: int, data: ReadableBuffer, size: int) -> None:
        """Write `data` without waiting for it; what comes later is made later.

        A failure is counted in `posted_failures`.

        Raises:
            AccessTimeout, ConnectionLost: as for `read`.
        """

    def close(self) -> None:
        """End the queue. Posted writes that were taken on are still sent."""


class Transport(Protocol):
    """A connection to a server.

    Attributes:
        name: what kind it is: `ring`, `socket` or `grpc-stream`.
    """

    @property
    def name(self) -> str:
        """See above."""

    def open_queue(self, vcpu: int) -> Queue:
        """Open the queue of a vCPU."""

    def close(self) -> None:
        """End all queues and the connection."""
