"""Messages by hand, for tests that look at the API below the client.

with RawStream(lab.channel()) as stream:
    stream.send(mmio_read(1, 0xD000_0000, 4))
    assert stream.completion().sequence == 1
"""

from __future__ import annotations

import queue
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

import grpc

from devicehost.v1 import io_service_pb2 as pb
from devicehost.v1 import resource_pb2
from devicehost.v1.io_service_pb2_grpc import IoServiceStub

CALL_S = 30.0
"""The deadline of every call, in seconds: a test fails rather than hangs."""


def mmio_read(sequence: int, address: int, size: int) -> pb.Access:
    return pb.Access(
        sequence=sequence,
        space=pb.SPACE_MMIO,
        operation=pb.OPERATION_READ,
        address=address,
        size=size,
    )


def mmio_write(sequence: int, address: int, data: bytes, *, posted: bool = False) -> pb.Access:
    return pb.Access(
        sequence=sequence,
        space=pb.SPACE_MMIO,
        operation=pb.OPERATION_WRITE,
        address=address,
        data=data,
        posted=posted,
    )


def pio_read(sequence: int, port: int, size: int, count: int = 0) -> pb.Access:
    return pb.Access(
        sequence=sequence,
        space=pb.SPACE_PIO,
        operation=pb.OPERATION_READ,
        address=port,
        size=size,
        count=count,
    )


def pio_write(sequence: int, port: int, data: bytes, size: int) -> pb.Access:
    return pb.Access(
        sequence=sequence,
        space=pb.SPACE_PIO,
        operation=pb.OPERATION_WRITE,
        address=port,
        size=size,
        data=data,
    )


class RawStream:
    """IoService.Stream, request by request. The block ends it.

    Attributes:
        call: the call.
    """

    def __init__(self, channel: grpc.Channel, vcpu: int = 0, *, opened: bool = True) -> None:
        self._outgoing: queue.SimpleQueue[pb.StreamRequest | None] = queue.SimpleQueue()
        self._incoming: list[pb.Completion] = []
        self.call: Any = IoServiceStub(channel).Stream(self._requests(), timeout=CALL_S)
        if opened:
            self.request(pb.StreamRequest(open=pb.StreamOpen(vcpu=vcpu)))
            self.opened = self.response().opened

    def request(self, request: pb.StreamRequest) -> None:
        """Send a request as it is."""
        self._outgoing.put(request)

    def send(self, *accesses: pb.Access) -> None:
        """Send accesses, in one request."""
        self.request(pb.StreamRequest(accesses=accesses))

    def response(self) -> pb.StreamResponse:
        """Return the next response."""
        received: pb.StreamResponse = next(self.call)
        return received

    def completion(self) -> pb.Completion:
        """Return the next completion, whichever response brings it."""
        while not self._incoming:
            self._incoming += self.response().completions
        return self._incoming.pop(0)

    def completions(self, count: int) -> list[pb.Completion]:
        """Return the next `count` completions."""
        return [self.completion() for _ in range(count)]

    def half_close(self) -> None:
        """Send nothing more."""
        self._outgoing.put(None)

    def rest(self) -> list[pb.Completion]:
        """Return all completions up to the end of the stream."""
        self.half_close()
        rest = self._incoming + [each for response in self.call for each in response.completions]
        self._incoming = []
        return rest

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._outgoing.put(None)
        self.call.cancel()

    def _requests(self) -> Iterator[pb.StreamRequest]:
        while (request := self._outgoing.get()) is not None:
            yield request


def pio_constraint(size: int, base: int | None = None, **fields: int) -> Any:
    """A wish for ports: those at `base`, or any."""
    return resource_pb2.ResourceConstraint(pio=_address_constraint(size, base, fields))


def mmio_constraint(size: int, base: int | None = None, **fields: int) -> Any:
    """A wish for MMIO: the one at `base`, or any."""
    return resource_pb2.ResourceConstraint(mmio=_address_constraint(size, base, fields))


def irq_constraint(irq: int | None = None) -> Any:
    """A wish for a legacy IRQ."""
    return resource_pb2.ResourceConstraint(legacy_irq=resource_pb2.LegacyIrqConstraint(irq=irq))


def _address_constraint(
    size: int, base: int | None, fields: dict[str, int]
) -> resource_pb2.AddressConstraint:
    if base is not None:
        fields = {"min": base, "max": base + size - 1, "align": 1, **fields}
    return resource_pb2.AddressConstraint(size=size, **fields)
