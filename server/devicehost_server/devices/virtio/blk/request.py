"""One request of a driver, taken apart.

A request is a header, data and a status byte (virtio 1.2, section 5.2.6). How a driver cuts
them into buffers is up to it (section 2.7.4): the header may share a buffer with data, or
be spread over several. Only the order counts: the status is the last byte that the device
may write.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from devicehost_server.devices.virtio.blk.spec import HEADER, SECTOR, SEGMENT, UNMAP, Status
from devicehost_server.devices.virtio.chain import Chain
from devicehost_server.devices.virtio.queue import VirtQueue

_HEADER_SIZE = HEADER.size


@dataclass(frozen=True, slots=True)
class Segment:
    """A range of a disk, from a discard or a request to write zeros.

    Attributes:
        offset: of its first byte.
        size: in bytes.
        unmap: whether its space may be given back.
    """

    offset: int
    size: int
    unmap: bool


class Refused(Exception):
    """A request isn't carried out.

    Attributes:
        status: what the driver is told.
    """

    def __init__(self, status: Status) -> None:
        super().__init__(status.name)
        self.status = status


class Request:
    """A request that is being served.

    Attributes:
        queue: where it came from.
        chain: its buffers, to be given back to the queue.
        kind: its type, any number.
        offset: where on the disk a read or a write begins, in bytes.
        outgoing: data from the driver.
        incoming: room for data to the driver.
        size: how many bytes of the disk it is about, as far as known.
        started_ns: when it was taken, by the performance counter.

    Raises:
        ValueError: it has no complete header, or no room for a status.
    """

    __slots__ = (
        "_status",
        "chain",
        "incoming",
        "kind",
        "offset",
        "outgoing",
        "queue",
        "size",
        "started_ns",
    )

    def __init__(self, queue: VirtQueue, chain: Chain) -> None:
        self.started_ns = time.perf_counter_ns()
        self.queue = queue
        self.chain = chain
        self.size = 0
        header, self.outgoing = _split(chain.readable)
        self.incoming, self._status = _split_last(chain.writable)
        self.kind, sector = HEADER.unpack(header)
        self.offset = sector * SECTOR

    @property
    def outgoing_size(self) -> int:
        """How many bytes the driver sent as data."""
        return self.chain.readable_size - _HEADER_SIZE

    @property
    def incoming_size(self) -> int:
        """How many bytes of data the driver has room for."""
        return self.chain.writable_size - 1

    def answer(self, status: Status) -> None:
        """Tell the driver how it ended, without interrupting it."""
        self._status[0] = status
        self.queue.push(self.chain, self.chain.writable_size)

    def take(self, size: int, capacity: int) -> None:
        """Be a read or write of `size` bytes, on a disk of `capacity` bytes.

        Raises:
            Refused: it isn't in whole sectors, or runs past the end.
        """
        if size % SECTOR or self.offset + size > capacity:
            raise Refused(Status.IOERR)
        self.size = size

    def segments(
        self, *, count_max: int, sectors_max: int, flags: int, capacity: int
    ) -> list[Segment]:
        """Return the ranges that its data names.

        Args:
            count_max: how many there may be.
            sectors_max: the most sectors of each.
            flags: those that are allowed.
            capacity: of the disk, in bytes.

        Raises:
            Refused: they aren't as the arguments say, or there are none.
        """
        size = self.outgoing_size
        if not size or size % SEGMENT.size or size > count_max * SEGMENT.size:
            raise Refused(Status.IOERR)
        fields = list(SEGMENT.iter_unpack(b"".join(self.outgoing)))
        if any(bits & ~flags for _, _, bits in fields):
            raise Refused(Status.UNSUPP)
        segments = [
            Segment(sector * SECTOR, count * SECTOR, bool(bits & UNMAP))
            for sector, count, bits in fields
        ]
        if any(
            each.size > sectors_max * SECTOR or each.offset + each.size > capacity
            for each in segments
        ):
            raise Refused(Status.IOERR)
        self.size = sum(each.size for each in segments)
        return segments


def _split(windows: Sequence[memoryview]) -> tuple[bytes | memoryview, Sequence[memoryview]]:
    """Return the header that `windows` begin with, and the windows on the rest."""
    if windows and len(windows[0]) == _HEADER_SIZE:
        return windows[0], windows[1:]  # as drivers do it
    head = b""
    for index, window in enumerate(windows):
        missing = _HEADER_SIZE - len(head)
        head += window[:missing]
        if len(head) == _HEADER_SIZE:
            rest = window[missing:]
            return head, (*((rest,) if rest else ()), *windows[index + 1 :])
    raise ValueError(f"a request of {len(head)} bytes; allowed: at least {_HEADER_SIZE}")


def _split_last(windows: Sequence[memoryview]) -> tuple[Sequence[memoryview], memoryview]:
    """Return windows on all but the last byte of `windows`, and one on that."""
    if windows and len(windows[-1]) == 1:
        return windows[:-1], windows[-1]  # as drivers do it
    for index in range(len(windows) - 1, -1, -1):
        if window := windows[index]:
            rest = window[:-1]
            return (*windows[:index], *((rest,) if rest else ())), window[-1:]
    raise ValueError("a request without room for a status")
