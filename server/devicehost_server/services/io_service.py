"""IoService: accesses, one at a time or as the stream of a vCPU."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING

import grpc
import structlog

from devicehost.v1 import io_service_pb2 as pb
from devicehost.v1.io_service_pb2_grpc import IoServiceServicer
from devicehost_server.model.address_map import Space
from devicehost_server.model.errors import (
    BadAccess,
    BadAccessSize,
    BadRequest,
    DeviceHostError,
    DeviceTimeout,
    Draining,
    hex_address,
)
from devicehost_server.model.holds import Holds
from devicehost_server.model.initiator import Initiator
from devicehost_server.model.interrupts import InterruptController
from devicehost_server.model.io_manager import IoManager, TrappedRange
from devicehost_server.model.resources import MMIO_SPACE_SIZE
from devicehost_server.services.errors import to_failure
from devicehost_server.services.gate import Gate
from devicehost_server.services.pages import Key, page

if TYPE_CHECKING:
    from google.protobuf.internal.containers import RepeatedCompositeFieldContainer

_log = structlog.get_logger(__name__)

TRANSFER_MAX = 1 << 20
"""The most that one access may move, in bytes. Two of them fit into a gRPC message."""

COMPLETIONS_MAX = 512
"""The most completions in one message; a failure has up to a few kilobytes."""

_SPACES = {Space.PIO: pb.SPACE_PIO, Space.MMIO: pb.SPACE_MMIO}


class IoService(IoServiceServicer):
    """Makes the accesses that come over gRPC.

    Args:
        io: the bus.
        interrupts: whose generation goes with each completion.
        holds: knows how long an access was held.
        instance_id: tells clients which start of the server they talk to.
        access_timeout_s: an access that takes longer fails, once it has ended.
        gate: knows whether the server takes no new work.
    """

    def __init__(
        self,
        io: IoManager,
        interrupts: InterruptController,
        holds: Holds,
        *,
        instance_id: str,
        access_timeout_s: float,
        gate: Gate,
    ) -> None:
        self._io = io
        self._tools = io.initiator()
        self._interrupts = interrupts
        self._holds = holds
        self._opened = pb.StreamOpened(
            access_timeout_ms=round(access_timeout_s * 1000), instance_id=instance_id
        )
        self._access_timeout_s = access_timeout_s
        self._gate = gate

    def Access(self, request: pb.AccessRequest, context: grpc.ServicerContext) -> pb.AccessResponse:
        """Make one access."""
        del context
        data = self._perform(request.access, self._tools)
        generation = self._interrupts.generation
        return pb.AccessResponse(
            completion=pb.Completion(data=data, interrupt_generation=generation)
        )

    def Stream(
        self, request_iterator: Iterable[pb.StreamRequest], context: grpc.ServicerContext
    ) -> Iterator[pb.StreamResponse]:
        """Make the accesses of one vCPU, in order."""
        requests = iter(request_iterator)
        first = next(requests, None)
        if first is None or not first.HasField("open"):
            raise BadRequest("the first request of a stream must open it", field="open")
        log = _log.bind(vcpu=first.open.vcpu, peer=context.peer())
        initiator = self._io.initiator(first.open.vcpu)
        log.info("stream_opened")
        try:
            yield pb.StreamResponse(opened=self._opened)
            for request in chain([first], requests):
                # Filled in place, and with few calls: this is the path of every access.
                response = pb.StreamResponse()
                carried = 0  # bytes read
                for access in request.accesses:
                    carried += self._complete(access, response.completions, initiator)
                    if carried >= TRANSFER_MAX or len(response.completions) >= COMPLETIONS_MAX:
                        yield response
                        response = pb.StreamResponse()
                        carried = 0
                if response.completions:
                    yield response
        finally:
            log.info("stream_closed")

    def ListRanges(
        self, request: pb.ListRangesRequest, context: grpc.ServicerContext
    ) -> pb.ListRangesResponse:
        """List what traps."""
        del context
        ranges, token = page(request, "ranges", self._io.ranges(), _range_key)
        messages = (
            pb.ListRangesResponse.Range(
                space=_SPACES[trapped.space],
                base=trapped.base,
                size=trapped.size % MMIO_SPACE_SIZE,
                device_id=trapped.device,
            )
            for trapped in ranges
        )
        return pb.ListRangesResponse(ranges=messages, next_page_token=token)

    def _complete(
        self,
        access: pb.Access,
        completions: RepeatedCompositeFieldContainer[pb.Completion],
        initiator: Initiator,
    ) -> int:
        """Make an access; add its completion, if it is answered. Return how much was read."""
        try:
            if self._gate.draining:
                raise Draining("the server is stopping and takes no new accesses")
            data = self._perform(access, initiator)
        except DeviceHostError as error:
            completions.add(
                sequence=access.sequence,
                failure=to_failure(error),
                interrupt_generation=self._interrupts.generation,
            )
            return 0
        if not access.posted or access.operation == pb.OPERATION_READ:
            completions.add(
                sequence=access.sequence,
                data=data,
                interrupt_generation=self._interrupts.generation,
            )
        return len(data)

    def _perform(self, access: pb.Access, initiator: Initiator) -> bytes:
        """Make one access; return what it read, or nothing."""
        held_ns = self._holds.held_ns()
        started = time.monotonic()
        if access.operation == pb.OPERATION_READ:
            data = _read(access, initiator)
        elif access.operation == pb.OPERATION_WRITE:
            data = b""
            _write(access, initiator)
        else:
            raise BadAccess(
                f"operation {access.operation} is unknown; allowed: read, write",
                operation=access.operation,
            )
        # That somebody held it to debug isn't the device's fault.
        took = time.monotonic() - started - (self._holds.held_ns() - held_ns) / 1e9
        if took > self._access_timeout_s:
            raise DeviceTimeout(
                f"the access at {access.address:#x} took {took:.3f} s;"
                f" allowed: {self._access_timeout_s:g} s",
                address=hex_address(access.address),
                took_s=f"{took:.3f}",
                timeout_s=f"{self._access_timeout_s:g}",
            )
        return data


def _read(access: pb.Access, initiator: Initiator) -> bytes:
    length = access.size * (access.count or 1)
    if length > TRANSFER_MAX:
        raise _too_long(access, length)
    data = bytearray(length)
    if access.space == pb.SPACE_PIO:
        initiator.pio_read(access.address, data, access.size)
    elif access.space == pb.SPACE_MMIO:
        if access.count > 1:
            raise BadAccessSize(
                f"count is {access.count} in an mmio read; allowed: 0 or 1",
                address=hex_address(access.address),
                size=access.size,
            )
        initiator.mmio_read(access.address, data)
    else:
        raise _unknown_space(access)
    return bytes(data)


def _write(access: pb.Access, initiator: Initiator) -> None:
    length = len(access.data)
    if length > TRANSFER_MAX:
        raise _too_long(access, length)
    if access.space == pb.SPACE_PIO:
        initiator.pio_write(access.address, access.data, access.size)
    elif access.space == pb.SPACE_MMIO:
        if access.size not in (0, length):
            raise BadAccessSize(
                f"size is {access.size} in an mmio write of {length} bytes; allowed: 0 or {length}",
                address=hex_address(access.address),
                size=access.size,
            )
        initiator.mmio_write(access.address, access.data)
    else:
        raise _unknown_space(access)


def _too_long(access: pb.Access, length: int) -> BadAccessSize:
    return BadAccessSize(
        f"an access of {length} bytes at {access.address:#x}; allowed: at most {TRANSFER_MAX}",
        address=hex_address(access.address),
        size=length,
        allowed=TRANSFER_MAX,
    )


def _unknown_space(access: pb.Access) -> BadAccess:
    return BadAccess(f"space {access.space} is unknown; allowed: pio, mmio", space=access.space)


def _range_key(trapped: TrappedRange) -> Key:
    return (trapped.space is Space.MMIO, trapped.base)
