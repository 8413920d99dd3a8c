"""The way that always works: IoService.Stream, one gRPC stream for each vCPU.

An access goes into a local queue, from which gRPC takes the requests of the stream, and
the vCPU's thread waits for the completion. Posted writes go into the same queue, so the
order is kept; those that wait there together travel in one message.

Every `FENCE_EVERY`th posted write is not posted: it waits for its completion. That bounds
what is under way without any account of it.

A stream that broke is opened again by the next access. After a failure to do so, accesses
fail at once for a moment (which doubles up to `BACKOFF_MAX_S`), so that a guest doesn't
crawl while its server is away.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator

import grpc

from devicehost.v1 import io_service_pb2 as pb
from devicehost.v1.io_service_pb2_grpc import IoServiceStub
from devicehost_client.errors import (
    AccessTimeout,
    ClientError,
    ConnectionLost,
    RemoteError,
    from_failure,
    from_rpc_error,
)
from devicehost_client.port import ReadableBuffer, WritableBuffer
from devicehost_client.transports import Space
from devicehost_client.transports.watchdog import Watchdog

FENCE_EVERY = 1024
BATCH_MAX = 512
"""Accesses in one message."""
BATCH_DATA_MAX = 1 << 20
"""Bytes of data in one message, but for the last access; gRPC refuses more than 4 MiB."""
BACKOFF_FIRST_S = 0.05
BACKOFF_MAX_S = 2.0


class GrpcStreamTransport:
    """Accesses over gRPC streams.

    Args:
        channel: the connection; the caller closes it.
        access_timeout_s: how long an access may take, in seconds.
        on_opened: told the instance id of the server whenever a stream is opened.
        after_access: told the interrupt generation of each completion.
    """

    name = "grpc-stream"

    def __init__(
        self,
        channel: grpc.Channel,
        access_timeout_s: float,
        on_opened: Callable[[str], None],
        after_access: Callable[[int], None],
    ) -> None:
        self._stub = IoServiceStub(channel)
        self._watchdog = Watchdog(access_timeout_s)
        self._on_opened = on_opened
        self._after_access = after_access
        self._queues: list[GrpcStreamQueue] = []

    def open_queue(self, vcpu: int) -> GrpcStreamQueue:
        """Open the queue of a vCPU."""
        opened = GrpcStreamQueue(
            self._stub, vcpu, self._watchdog, self._on_opened, self._after_access
        )
        self._queues.append(opened)
        return opened

    def close(self) -> None:
        """End all queues."""
        for opened in self._queues:
            opened.close()
        self._watchdog.close()


class _Stream:
    """One life of the stream: what is sent, and what comes back."""

    def __init__(self, stub: IoServiceStub, vcpu: int) -> None:
        self.outgoing: queue.SimpleQueue[pb.Access | None] = queue.SimpleQueue()
        self._vcpu = vcpu
        self.call = stub.Stream(self._requests())

    def _requests(self) -> Iterator[pb.StreamRequest]:
        """What gRPC sends, on a thread of its own."""
        yield pb.StreamRequest(open=pb.StreamOpen(vcpu=self._vcpu))
        outgoing = self.outgoing
        while (access := outgoing.get()) is not None:
            request = pb.StreamRequest(accesses=[access])
            count, carried = 1, len(access.data)
            while count < BATCH_MAX and carried < BATCH_DATA_MAX and not outgoing.empty():
                following = outgoing.get()
                if following is None:
                    outgoing.put(None)  # it ends the stream, after this request
                    break
                request.accesses.append(following)
                count += 1
                carried += len(following.data)
            yield request


class GrpcStreamQueue:
    """The accesses of one vCPU over its stream. Used by one thread at a time."""

    def __init__(
        self,
        stub: IoServiceStub,
        vcpu: int,
        watchdog: Watchdog,
        on_opened: Callable[[str], None],
        after_access: Callable[[int], None],
    ) -> None:
        self.posted_failures = 0
        self._stub = stub
        self._vcpu = vcpu
        self._watchdog = watchdog
        self._deadline = watchdog.watch(self._cancel)
        self._on_opened = on_opened
        self._after_access = after_access
        self._stream: _Stream | None = None
        self._sequence = 0
        self._posted = 0  # since the last write that wasn't
        self._backoff_s = 0.0
        self._retry_at = 0.0

    def read(self, space: Space, address: int, data: WritableBuffer, size: int) -> None:
        """Fill `data`, and return when that is done."""
        length = len(data)
        access = pb.Access(space=space, operation=pb.OPERATION_READ, address=address, size=size)
        if length != size:
            access.count = length // size
        found = self._complete(access).data
        if len(found) != length:
            raise ConnectionLost(f"the server answered {len(found)} bytes where {length} were read")
        data[:] = found

    def write(self, space: Space, address: int, data: ReadableBuffer, size: int) -> None:
        """Write `data`, and return when the device has taken it."""
        self._complete(
            pb.Access(
                space=space,
                operation=pb.OPERATION_WRITE,
                address=address,
                size=size,
                data=bytes(data),
            )
        )

    def post(self, space: Space, address: int, data: ReadableBuffer, size: int) -> None:
        """Write `data` without waiting for it."""
        access = pb.Access(
            space=space,
            operation=pb.OPERATION_WRITE,
            address=address,
            size=size,
            data=bytes(data),
        )
        self._posted += 1
        if self._posted >= FENCE_EVERY:
            try:
                self._complete(access)
            except RemoteError:
                self.posted_failures += 1  # like any other: whose turn it is, is chance
            return
        access.posted = True
        access.sequence = self._sequence = self._sequence + 1
        self._live_stream().outgoing.put(access)

    def close(self) -> None:
        """End the stream, once what is queued has been made; that may take as long as an access."""
        if self._stream is not None:
            self._watchdog.start(self._deadline)
            self._stream.outgoing.put(None)
            try:
                # The server ends the stream when it has made the last access.
                for response in self._stream.call:
                    self.posted_failures += len(response.completions)
            except grpc.RpcError:
                pass  # it is gone already, or too slow
            self._deadline.at = None
            self._lose()
        self._watchdog.forget(self._deadline)

    def _complete(self, access: pb.Access) -> pb.Completion:
        """Make an access and wait for its end."""
        stream = self._live_stream()
        access.sequence = self._sequence = self._sequence + 1
        self._posted = 0
        self._watchdog.start(self._deadline)
        try:
            stream.outgoing.put(access)
            completion = self._await(stream)
        except grpc.RpcError as error:
            raise self._broken(error, f"the access at {access.address:#x}") from error
        finally:
            self._deadline.at = None
        self._after_access(completion.interrupt_generation)
        if completion.HasField("failure"):
            raise from_failure(completion.failure)
        return completion

    def _await(self, stream: _Stream) -> pb.Completion:
        """Read completions up to that of the last access."""
        for response in stream.call:
            for completion in response.completions:
                if completion.sequence == self._sequence:
                    return completion
                self.posted_failures += 1
        self._lose()
        raise ConnectionLost("the server ended the stream")

    def _live_stream(self) -> _Stream:
        """Return the stream, or a new one if it broke since the last access."""
        stream = self._stream
        if stream is not None:
            # The watchdog may have cancelled it just after the last access had ended.
            if stream.call.is_active() and not self._deadline.expired:
                return stream
            self._lose()
        return self._open()

    def _open(self) -> _Stream:
        """Open the stream, unless that failed a moment ago."""
        if time.monotonic() < self._retry_at:
            raise ConnectionLost("the server is lost; waiting before the next attempt")
        stream = self._stream = _Stream(self._stub, self._vcpu)
        self._watchdog.start(self._deadline)
        try:
            first = next(stream.call, None)
        except grpc.RpcError as error:
            self._backoff_s = min(2 * self._backoff_s or BACKOFF_FIRST_S, BACKOFF_MAX_S)
            self._retry_at = time.monotonic() + self._backoff_s
            raise self._broken(error, "the opening of a stream") from error
        finally:
            self._deadline.at = None
        if first is None:
            self._lose()
            raise ConnectionLost("the server ended the stream")
        self._backoff_s = 0.0
        self._on_opened(first.opened.instance_id)
        return stream

    def _broken(self, error: grpc.RpcError, what: str) -> ClientError:
        """Let a stream that broke go; return the error for whoever waited for `what`."""
        expired = self._deadline.expired
        self._lose()
        if expired:
            return AccessTimeout(f"no answer within {self._watchdog.timeout_s:g} s to {what}")
        return from_rpc_error(error)

    def _lose(self) -> None:
        """Let the stream go; the next access opens another."""
        stream, self._stream = self._stream, None
        self._deadline.expired = False
        if stream is not None:
            stream.outgoing.put(None)
            stream.call.cancel()

    def _cancel(self) -> None:
        """Cut the stream, on the watchdog's thread: the vCPU's thread is waiting on it."""
        stream = self._stream
        if stream is not None:
            stream.call.cancel()
