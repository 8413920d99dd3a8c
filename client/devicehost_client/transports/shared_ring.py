"""The ring of a connection, as its client has it: memory, and eventfds."""

from __future__ import annotations

import mmap
import os
import select
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from devicehost.bus_regions import (
    DOORBELL_OFFSET,
    OPEN_QUEUE,
    REGION_RING,
    REGION_STATUS,
    wake_up_offset,
)
from devicehost.ring.layout import HELD, INTERRUPT_GENERATION, BadRing, RingLayout
from devicehost.ring.membarrier import is_offered, register
from devicehost.ring.producer import Producer
from devicehost.vfio_user import (
    GetRegionInfo,
    GetRegionIoFds,
    IoEventFd,
    RegionInfo,
    RegionIoFds,
)
from devicehost_client.errors import ConnectionLost
from devicehost_client.transports.link import Link, Refusal

_DOORBELLS_ARGSZ = 4096


class SharedRing:
    """The ring of a link. Its eventfds are closed when nobody uses it any more.

    Args:
        link: the connection.
        memory: the ring.
        doorbell: what the server sleeps on.
        wake_ups: by queue, what its client sleeps on.
    """

    def __init__(
        self, link: Link, memory: memoryview, doorbell: int, wake_ups: Sequence[int]
    ) -> None:
        self._unused = iter(range(len(wake_ups)))  # queues
        self._words = memory.cast("Q")
        self._link = link
        self._memory = memory
        self._doorbell = doorbell
        self._wake_ups = wake_ups
        self._barrier = register()
        # A vCPU may be about to signal one when the link is lost: they live as long as it.
        weakref.finalize(self, _close_all, (doorbell, *wake_ups))
        ring = weakref.ref(self)
        link.when_lost(lambda: _wake_all(ring()))
        link.is_held = lambda: _is_held(ring())

    def open_queue(self, vcpu: int, timeout_s: float, spin_s: float) -> Producer | None:
        """Have a queue polled, and return its end; None if all are in use.

        Args:
            vcpu: whose accesses it will carry.
            timeout_s: how long an access may take, in seconds.
            spin_s: the longest to look for its completion before sleeping, in seconds.

        Raises:
            ConnectionLost, AccessTimeout: the server is gone, or doesn't answer.
        """
        queue = next(self._unused, None)
        if queue is None:
            return None
        try:
            what = queue.to_bytes(4, "little") + (vcpu + 1).to_bytes(4, "little")
            self._link.write(REGION_STATUS, OPEN_QUEUE, what)
        except Refusal as error:
            raise ConnectionLost(f"queue {queue} of the ring is refused: {error}") from error
        return Producer(
            self._memory,
            queue,
            doorbell=lambda: _signal(self._doorbell),
            wait=self._waiter(queue),
            barrier=self._barrier,
            timeout_s=timeout_s,
            spin_s=spin_s,
        )

    @property
    def is_held(self) -> bool:
        """Whether the server holds accesses for somebody who debugs."""
        return bool(self._words[HELD])

    @property
    def interrupt_generation(self) -> int:
        """The generation of the last change of an interrupt."""
        generation: int = self._words[INTERRUPT_GENERATION]
        return generation

    def wake_all(self) -> None:
        """Wake all vCPUs that sleep."""
        for wake_up in self._wake_ups:
            _signal(wake_up)

    def _waiter(self, queue: int) -> Callable[[float], bool]:
        """What the producer of a queue sleeps by."""
        link, wake_up = self._link, self._wake_ups[queue]
        poll = select.poll()
        poll.register(wake_up, select.POLLIN)

        def wait(seconds: float) -> bool:
            signalled = bool(poll.poll(seconds * 1000))
            if link.lost:
                raise ConnectionLost("the server was lost during the access")
            if signalled:
                with suppress(BlockingIOError):
                    os.eventfd_read(wake_up)
            return signalled

        return wait


@dataclass(frozen=True, slots=True, eq=False)
class Attachment:
    """What there is while a connection lasts."""

    link: Link
    ring: SharedRing | None


class Attachments(Protocol):
    """Where a queue finds its connection, and the next one after that.

    Attributes:
        are_interrupts_watched: whether `after_access` is of any use.
    """

    are_interrupts_watched: bool

    def attachment(self) -> Attachment:
        """Return the live one.

        Raises:
            ConnectionLost: there is none.
        """

    def after_access(self, interrupt_generation: int) -> None:
        """An access has ended: the interrupts have to be delivered up to this generation."""


def open_ring(link: Link) -> SharedRing | None:
    """Get the ring of a link; None if there is none, or none for this processor.

    Raises:
        ConnectionLost, AccessTimeout: the server is gone, or doesn't answer.
    """
    if not is_offered():
        return None
    try:
        region = link.call(GetRegionInfo(REGION_RING))
        if not region.fds:
            return None
        try:
            info = region.payload
            assert isinstance(info, RegionInfo)  # noqa: S101 # the session has checked
            memory = memoryview(mmap.mmap(region.fds[0], info.size))
        finally:
            _close_all(region.fds)
        queues = RingLayout.read_header(memory).queues
        doorbells = link.call(GetRegionIoFds(REGION_RING, _DOORBELLS_ARGSZ))
    except (Refusal, BadRing, OSError, ValueError):
        return None
    assert isinstance(doorbells.payload, RegionIoFds)  # noqa: S101 # likewise
    fds = {
        each.offset: doorbells.fds[each.fd_index]
        for each in doorbells.payload.sub_regions
        if isinstance(each, IoEventFd)
    }
    wanted = [DOORBELL_OFFSET, *(wake_up_offset(queue) for queue in range(queues))]
    if not all(offset in fds for offset in wanted) or len(fds) != len(doorbells.fds):
        _close_all(doorbells.fds)
        return None
    return SharedRing(link, memory, fds[wanted[0]], [fds[offset] for offset in wanted[1:]])


def _wake_all(ring: SharedRing | None) -> None:
    if ring is not None:
        ring.wake_all()


def _is_held(ring: SharedRing | None) -> bool:
    return ring is not None and ring.is_held


def _close_all(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)


def _signal(eventfd: int) -> None:
    with suppress(BlockingIOError):  # it is full: somebody signalled it often enough
        os.eventfd_write(eventfd, 1)
