"""The accesses of a vCPU as messages on the local socket.

For accesses that the ring doesn't take, for tools, and for processors without a ring. A
string access is made operand by operand, as the processor would.

Posted writes are counted for the connection, not for the vCPU: the protocol has no room
for more.
"""

from __future__ import annotations

from collections.abc import Iterator

from devicehost.access_status import AccessStatus
from devicehost.bus_regions import POSTED_FAILURES, REGION_MMIO, REGION_PIO, REGION_STATUS
from devicehost.v1 import io_service_pb2 as pb
from devicehost.vfio_user import OurFault
from devicehost_client.errors import ClientError, from_access_status
from devicehost_client.port import ReadableBuffer, WritableBuffer
from devicehost_client.transports import Space
from devicehost_client.transports.link import Link, Refusal
from devicehost_client.transports.shared_ring import Attachment, Attachments

REGIONS = {pb.SPACE_PIO: REGION_PIO, pb.SPACE_MMIO: REGION_MMIO}
_NAMES = {pb.SPACE_PIO: "pio", pb.SPACE_MMIO: "mmio"}


class SocketQueue:
    """The accesses of one vCPU over the socket. Used by one thread at a time."""

    def __init__(self, attachments: Attachments) -> None:
        self._attachments = attachments
        self._attachment: Attachment | None = None
        self._posted_failures = 0  # of connections before this one
        self._known_failures = 0  # of this one

    @property
    def posted_failures(self) -> int:
        """How many posted writes of all vCPUs failed; asks the server."""
        try:
            counter = bytearray(8)
            self._live_link().read(REGION_STATUS, POSTED_FAILURES, counter)
            self._known_failures = int.from_bytes(counter, "little")
        except (ClientError, Refusal):
            pass  # what is known is known
        return self._posted_failures + self._known_failures

    def read(self, space: Space, address: int, data: WritableBuffer, size: int) -> None:
        """Fill `data`, and return when that is done."""
        link = self._live_link()
        try:
            if len(data) == size:
                link.read(REGIONS[space], address, data)
            else:
                for operand in operands(data, size):
                    link.read(REGIONS[space], address, operand)
        except (Refusal, OurFault) as error:
            raise failed(error, "read", space, address, size) from error
        finally:
            if self._attachments.are_interrupts_watched:
                self._after_access()

    def write(self, space: Space, address: int, data: ReadableBuffer, size: int) -> None:
        """Write `data`, and return when the device has taken it."""
        link = self._live_link()
        try:
            if len(data) == size:
                link.write(REGIONS[space], address, data)
            else:
                for operand in operands(data, size):
                    link.write(REGIONS[space], address, operand)
        except (Refusal, OurFault) as error:
            raise failed(error, "write", space, address, size) from error
        finally:
            if self._attachments.are_interrupts_watched:
                self._after_access()

    def post(self, space: Space, address: int, data: ReadableBuffer, size: int) -> None:
        """Write `data` without waiting for it."""
        link = self._live_link()
        try:
            for operand in operands(data, size):
                link.post(REGIONS[space], address, operand)
        except OurFault as error:
            raise failed(error, "write", space, address, size) from error

    def close(self) -> None:
        """Wait until the posted writes are made: what is asked is answered after them."""
        attachment = self._attachment
        if attachment is not None and not attachment.link.lost:
            _ = self.posted_failures
        self._attachment = None

    def _live_link(self) -> Link:
        attachment = self._attachment
        if attachment is None or attachment.link.lost:
            self._attachment = None  # its ring is of no use, whether there is another one or not
            attachment = self._attachment = self._attachments.attachment()
            self._posted_failures += self._known_failures
            self._known_failures = 0
        return attachment.link

    def _after_access(self) -> None:
        attachment = self._attachment
        if attachment is not None and attachment.ring is not None:
            self._attachments.after_access(attachment.ring.interrupt_generation)


def operands(data: WritableBuffer | ReadableBuffer, size: int) -> Iterator[memoryview]:
    """The operands of a string access, each a window on `data`."""
    if size not in (1, 2, 4) or len(data) % size:
        size = max(len(data), 1)  # whatever it is, the server has the words for it
    whole = memoryview(data)
    return (whole[at : at + size] for at in range(0, len(data), size))


def failed(
    error: Refusal | OurFault, operation: str, space: Space, address: int, size: int
) -> ClientError:
    """Return the error of an access that the server, or the session, refused."""
    status = AccessStatus.BAD_ACCESS_SIZE  # all that a session refuses
    if isinstance(error, Refusal):
        status = AccessStatus.from_errno(error.errno)
    return access_failed(status, operation, space, address, size)


def access_failed(
    status: AccessStatus, operation: str, space: Space, address: int, size: int
) -> ClientError:
    """Return the error of an access that ended with `status`."""
    where = f"{_NAMES[space]} {operation} of {size} bytes at {address:#x}"
    return from_access_status(
        status, where, space=_NAMES[space], address=f"{address:#x}", size=str(size)
    )
