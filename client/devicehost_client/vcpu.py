"""The accesses of one vCPU, as its VMM makes them: numbers or buffers, and the policy."""

from __future__ import annotations

from devicehost.v1 import io_service_pb2 as pb
from devicehost_client.errors import ClientError
from devicehost_client.policy import Answer, Policy
from devicehost_client.port import ReadableBuffer, WritableBuffer
from devicehost_client.transports import Queue, Space

_PIO = pb.SPACE_PIO
_MMIO = pb.SPACE_MMIO


class Vcpu:
    """An `AccessPort` with a policy. Used by one thread at a time.

    Numbers are little-endian on the wire. A read that failed gives what the policy says;
    so does a write: it is dropped, or it raises.

    Attributes:
        index: the vCPU's number.
        failures: how many accesses failed so far, answered by the policy or not. Posted
            writes aren't among them, see `posted_failures`.
        last_failure: the last such error, or None; without a traceback if the policy answered.
    """

    def __init__(self, index: int, queue: Queue, policy: Policy) -> None:
        self.index = index
        self.failures = 0
        self.last_failure: ClientError | None = None
        self._queue = queue
        self._read = queue.read
        self._policy = policy
        self._posted: dict[Space, list[range]] = {_PIO: [], _MMIO: []}

    @property
    def posted_failures(self) -> int:
        """How many posted writes failed, as far as is known."""
        return self._queue.posted_failures

    def post_writes(self, space: Space, base: int, size: int) -> None:
        """From here on, don't wait for writes that begin in this range.

        Order is kept: a read that follows is made after them. A write whose effect must
        be visible when it returns is no candidate, nor is one whose failure matters.
        """
        self._posted[space].append(range(base, base + size))

    def mmio_read(self, address: int, size: int) -> int:
        """Read `size` bytes at a guest-physical address, as a number."""
        data = bytearray(size)
        self.mmio_read_into(address, data)
        return int.from_bytes(data, "little")

    def mmio_write(self, address: int, size: int, value: int) -> None:
        """Write a number of `size` bytes to a guest-physical address."""
        self.mmio_write_from(address, value.to_bytes(size, "little"))

    def pio_read(self, port: int, size: int) -> int:
        """Read `size` bytes (1, 2 or 4) from an I/O port, as a number."""
        data = bytearray(size)
        self.pio_read_into(port, data, size)
        return int.from_bytes(data, "little")

    def pio_write(self, port: int, size: int, value: int) -> None:
        """Write a number of `size` bytes (1, 2 or 4) to an I/O port."""
        self.pio_write_from(port, value.to_bytes(size, "little"), size)

    def mmio_read_into(self, address: int, data: WritableBuffer) -> None:
        """Fill `data` from a guest-physical address; its length is the access's size."""
        try:
            self._read(_MMIO, address, data, len(data))
        except ClientError as error:
            data[:] = self._answer(error) * len(data)

    def mmio_write_from(self, address: int, data: ReadableBuffer) -> None:
        """Write `data` to a guest-physical address; its length is the access's size."""
        self._write(_MMIO, address, data, len(data))

    def pio_read_into(self, port: int, data: WritableBuffer, size: int) -> None:
        """Fill `data` from an I/O port, in operands of `size` bytes (1, 2 or 4)."""
        try:
            self._read(_PIO, port, data, size)
        except ClientError as error:
            data[:] = self._answer(error) * len(data)

    def pio_write_from(self, port: int, data: ReadableBuffer, size: int) -> None:
        """Write `data` to an I/O port, in operands of `size` bytes (1, 2 or 4)."""
        self._write(_PIO, port, data, size)

    def _write(self, space: Space, address: int, data: ReadableBuffer, size: int) -> None:
        send = self._queue.write
        for posted in self._posted[space]:
            if address in posted:
                send = self._queue.post
        try:
            send(space, address, data, size)
        except ClientError as error:
            self._answer(error)

    def _answer(self, error: ClientError) -> bytes:
        """Count a failure; return the byte that the guest is to see, or raise."""
        self.failures += 1
        self.last_failure = error
        answer = self._policy.answer(error)
        if answer is Answer.RAISE:
            raise error
        _forget_frames(error)
        return b"\xff" if answer is Answer.ONES else b"\0"


def _forget_frames(error: BaseException) -> None:
    """Drop the tracebacks of an error that is kept: their frames hold a ring that is lost."""
    seen: set[int] = set()  # what one error was made of may be what made another
    each: BaseException | None = error
    while each is not None and id(each) not in seen:
        seen.add(id(each))
        each.__traceback__ = None
        each = each.__cause__ or each.__context__
