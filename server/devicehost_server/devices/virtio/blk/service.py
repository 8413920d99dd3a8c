"""Carrying out requests on a disk: at once, or on a worker.

What is quick is done on the thread that serves the queues: reads of what is in the page
cache, and writes to it. What waits for the disk is done by workers, several at a time, and
each is answered when it is done. So answers come in any order; a driver that wants one
thing after another waits for the answer.

A flush begins after it was asked for, so after each write that was answered before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias

from devicehost_server.devices.virtio.blk.disk import Disk
from devicehost_server.devices.virtio.blk.request import Refused, Request, Segment
from devicehost_server.devices.virtio.blk.spec import ID_SIZE, SECTOR, UNMAP, Kind, Status
from devicehost_server.devices.virtio.blk.traffic import Traffic
from devicehost_server.devices.virtio.blk.workers import Pace, Workers

WORKERS_MAX = 8
"""How many requests wait for the disk at a time."""

SEGMENTS_MAX = 32
"""The most ranges in a discard, or a request to write zeros."""

DISCARD_SECTORS_MAX = (1 << 31) // SECTOR
"""The most sectors of a range to discard: 2 GiB."""

ZERO_SECTORS_MAX = (32 << 20) // SECTOR
"""The most sectors of a range of zeros: 32 MiB. There are file systems where these have to be
written one by one, and a reset waits for that."""

INLINE_MAX = 1 << 20
"""The most bytes of a request that is carried out at once."""

Work: TypeAlias = Callable[[], None]


class Service:
    """Carries out requests.

    Args:
        disk: what they are about. The service closes it.
        name: of the device, for its threads.
        identity: what tells the disk from others: ASCII, up to 20 bytes.
        traffic: counts the requests.

    Attributes:
        disk: the disk.
        capacity: where the disk ends for the guest, in bytes.
        cached: whether a write may be answered before it is on the disk.
    """

    def __init__(self, disk: Disk, name: str, identity: bytes, traffic: Traffic) -> None:
        self.disk = disk
        self.capacity = disk.size
        self.cached = True
        self._traffic = traffic
        self._identity = identity.ljust(ID_SIZE, b"\0")
        self._workers = Workers(name, WORKERS_MAX)
        self._pace = Pace()

    @property
    def waiting(self) -> int:
        """How many requests the workers have."""
        return self._workers.unfinished

    def drain(self) -> None:
        """Return when the workers have no request any more. They drop what isn't begun."""
        self._workers.drain()

    def close(self) -> None:
        """End the workers, and close the disk."""
        self._workers.close()
        self.disk.close()

    def begin(self, request: Request) -> bool:
        """Carry a request out, or have that done; return whether it is answered already.

        Always call it from one thread. The driver isn't interrupted for what is answered here.
        """
        try:
            work = self._plan(request)
        except Refused as refusal:
            self._answer(request, refusal.status)
        except OSError as error:
            self._answer(request, self._failure(error))
        else:
            if work is not None:
                self._workers.submit(partial(self._finish, request, work))
                return False
            self._answer(request, Status.OK)
        return True

    def _finish(self, request: Request, work: Work) -> None:
        """Carry out a request on a worker."""
        status = Status.OK
        try:
            work()
        except OSError as error:
            status = self._failure(error)
        self._answer(request, status)
        request.queue.notify()

    def _answer(self, request: Request, status: Status) -> None:
        self._traffic.count(request.kind, status, request.size, request.started_ns)
        request.answer(status)

    def _failure(self, error: OSError) -> Status:
        self._traffic.failed(str(error))
        return Status.IOERR

    def _plan(self, request: Request) -> Work | None:
        """Carry a request out, or return what will.

        Raises:
            Refused: it isn't allowed.
            OSError: it failed.
        """
        match request.kind:
            case Kind.IN:
                return self._read(request)
            case Kind.OUT:
                return self._write(request)
            case Kind.FLUSH:
                return self.disk.flush
            case Kind.GET_ID:
                self._identify(request)
                return None
            case Kind.DISCARD:
                return partial(self._discard, self._segments(request, DISCARD_SECTORS_MAX, 0))
            case Kind.WRITE_ZEROES:
                return partial(self._zero, self._segments(request, ZERO_SECTORS_MAX, UNMAP))
            case _:
                raise Refused(Status.UNSUPP)

    def _read(self, request: Request) -> Work | None:
        windows, offset, size = request.incoming, request.offset, request.incoming_size
        request.take(size, self.capacity)
        if size <= INLINE_MAX:
            if self.disk.tells_cached:
                if self.disk.read_cached(windows, offset, size):
                    return None
            elif self._pace.is_quick():
                self.disk.read(windows, offset, size)
                self._pace.note(time.perf_counter_ns() - request.started_ns)
                return None
        return partial(self.disk.read, windows, offset, size)

    def _write(self, request: Request) -> Work | None:
        windows, offset, size = request.outgoing, request.offset, request.outgoing_size
        self._check_writable()
        request.take(size, self.capacity)
        if not self.cached:
            return partial(self._write_through, windows, offset, size)
        if size <= INLINE_MAX and self._pace.is_quick():
            self.disk.write(windows, offset, size)
            self._pace.note(time.perf_counter_ns() - request.started_ns)
            return None
        return partial(self.disk.write, windows, offset, size)

    def _write_through(self, windows: Sequence[memoryview], offset: int, size: int) -> None:
        self.disk.write(windows, offset, size)
        self.disk.flush()

    def _identify(self, request: Request) -> None:
        """Tell the disk's name, in as far as there is room for it."""
        name = self._identity
        for window in request.incoming:
            part = min(len(window), len(name))
            window[:part] = name[:part]
            name = name[part:]

    def _segments(self, request: Request, sectors_max: int, flags: int) -> list[Segment]:
        self._check_writable()
        return request.segments(
            count_max=SEGMENTS_MAX,
            sectors_max=sectors_max,
            flags=flags,
            capacity=self.capacity,
        )

    def _discard(self, segments: list[Segment]) -> None:
        for each in segments:
            self.disk.discard(each.offset, each.size)
        self._settle()

    def _zero(self, segments: list[Segment]) -> None:
        for each in segments:
            self.disk.zero(each.offset, each.size, unmap=each.unmap)
        self._settle()

    def _settle(self) -> None:
        """Make what was done durable, if the driver will not ask for that."""
        if not self.cached:
            self.disk.flush()

    def _check_writable(self) -> None:
        if self.disk.read_only:
            raise Refused(Status.IOERR)
