"""Taps: who gets a copy of what passes, and keeps it until somebody fetches it.

A tap is told on the threads that make accesses, so it does no more than to pack an event
into a block of bytes (`devicehost.recording`). What becomes of full blocks is the difference
between taps:

    TraceTap        at most `BLOCKS_MAX` wait; then the oldest goes, and is counted as lost
    FlightTap       the last ones stay, until there are as many events as wanted
    RecordTap       all wait; where that is too much, the recording has failed

None of them ever makes an access wait.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from devicehost.access_status import AccessStatus
from devicehost.recording import Event, Packer
from devicehost.recording.events import Dma, Interrupt, Learned, Told, Woken
from devicehost_server.model.device_io import ReadableBuffer

TRACE_BLOCK = 32 << 10
FLIGHT_BLOCK = 32 << 10
RECORD_BLOCK = 128 << 10
"""How long blocks are, in bytes."""

BLOCKS_MAX = 128
"""How many blocks wait for the reader of a trace: 4 MiB, some 200,000 accesses."""

BACKLOG_MAX = 64 << 20
"""How much may wait for the reader of a recording, in bytes: some seconds of a busy guest."""


_NO_DEVICE = int(AccessStatus.NO_DEVICE)  # a plain number: the enum is slow


class Tap(Protocol):
    """Gets a copy of what passes. Called on many threads at once, and returns at once."""

    def access(  # noqa: PLR0917 # by position, as names cost time
        self,
        started_ns: int,
        took_ns: int,
        vcpu: int,
        write: bool,  # noqa: FBT001 # likewise
        pio: bool,  # noqa: FBT001 # likewise
        address: int,
        size: int,
        data: ReadableBuffer,
        status: int,
        /,
    ) -> None:
        """An access has ended: the arguments are those of `Packer.access`."""

    def event(self, event: Event) -> None:
        """Something else has happened."""


@dataclass(frozen=True, slots=True)
class Block:
    """Some events, packed."""

    data: bytes
    count: int


class Span(NamedTuple):
    """Addresses that are wanted."""

    pio: bool
    base: int
    last: int


class BlockTap:
    """Packs events into blocks.

    Args:
        capacity: how long a block is, in bytes.
        spans: accesses that begin in one of these; None for all.

    Attributes:
        spans: may be replaced at any time.
        since_ns: accesses that found no device aren't wanted if they began before.
    """

    def __init__(self, capacity: int, spans: tuple[Span, ...] | None = None) -> None:
        self.spans = spans
        self.since_ns = 0
        self._lock = threading.Lock()
        self._packer = Packer(capacity)

    def access(  # noqa: PLR0917 # as of a Tap
        self,
        started_ns: int,
        took_ns: int,
        vcpu: int,
        write: bool,  # noqa: FBT001 # likewise
        pio: bool,  # noqa: FBT001 # likewise
        address: int,
        size: int,
        data: ReadableBuffer,
        status: int,
        /,
    ) -> None:
        """Pack an access, if it is wanted."""
        if (spans := self.spans) is not None and not _is_in(spans, pio, address):
            return
        with self._lock:
            # What isn't wanted any more mustn't stand behind the event that says why.
            now = self.spans
            if now is not spans and now is not None and not _is_in(now, pio, address):
                return
            if status and status == _NO_DEVICE and started_ns < self.since_ns:
                return
            packer = self._packer
            if not packer.access(
                started_ns, took_ns, vcpu, write, pio, address, size, data, status
            ):
                self._full()
                packer.access(started_ns, took_ns, vcpu, write, pio, address, size, data, status)

    def event(self, event: Event) -> None:
        """Pack an event."""
        with self._lock:
            if not self._packer.event(event):
                self._full()
                self._packer.event(event)

    def _full(self) -> None:
        """Take the block and keep it. Under the lock."""
        count = self._packer.count
        self._keep(Block(self._packer.take(), count))

    def _keep(self, block: Block) -> None:
        raise NotImplementedError


def _is_in(spans: tuple[Span, ...], pio: bool, address: int) -> bool:  # noqa: FBT001 # as of a Tap
    for of_pio, base, last in spans:  # noqa: SIM110 # a generator takes longer
        if pio == of_pio and base <= address <= last:
            return True
    return False


class TraceTap(BlockTap):
    """What a trace wants: of a reader that is too slow, the oldest is lost.

    Args:
        interrupts: whether interrupts are wanted.
        dma: whether DMA is wanted.
        spans: as for `BlockTap`; empty for no accesses.

    Attributes:
        lost: how many events were lost.
    """

    def __init__(self, *, interrupts: bool, dma: bool, spans: tuple[Span, ...] | None) -> None:
        super().__init__(TRACE_BLOCK, spans)
        self.lost = 0
        self._interrupts = interrupts
        self._dma = dma
        self._blocks: deque[Block] = deque()
        self._untold = 0

    def event(self, event: Event) -> None:
        """Pack an event that is wanted; what only a replay needs isn't."""
        match event:
            case Interrupt():
                wanted = self._interrupts
            case Learned() | Woken() | Told():
                wanted = False
            case Dma():
                wanted = self._dma
            case _:
                wanted = True
        if wanted:
            super().event(event)

    def take(self) -> tuple[int, list[Block]]:
        """Return how many events were lost before these, and what waits."""
        with self._lock:
            if self._packer.count:
                self._full()
            blocks, self._blocks = list(self._blocks), deque()
            lost, self._untold = self._untold, 0
        return lost, blocks

    def _keep(self, block: Block) -> None:
        self._blocks.append(block)
        if len(self._blocks) > BLOCKS_MAX:
            count = self._blocks.popleft().count
            self._untold += count
            self.lost += count


class FlightTap(BlockTap):
    """The last events.

    Args:
        events_min: how many are kept at least, once there were as many.
    """

    def __init__(self, events_min: int) -> None:
        super().__init__(FLIGHT_BLOCK)
        self.events_min = events_min
        self._blocks: deque[Block] = deque()
        self._count = 0

    @property
    def count(self) -> int:
        """How many events it holds."""
        return self._count + self._packer.count

    def event(self, event: Event) -> None:
        """Pack an event; what only a replay needs isn't kept, for it has no beginning."""
        if not isinstance(event, Learned | Woken | Told):
            super().event(event)

    def blocks(self) -> list[Block]:
        """Return what it holds, the oldest first. It goes on holding it."""
        with self._lock:
            if self._packer.count:
                self._full()
            return list(self._blocks)

    def _keep(self, block: Block) -> None:
        self._blocks.append(block)
        self._count += block.count
        while self._count - self._blocks[0].count >= self.events_min:
            self._count -= self._blocks.popleft().count


class RecordTap(BlockTap):
    """All events, for as long as their reader keeps up.

    Attributes:
        failed: whether it doesn't keep up: what came after is missing.
        due: set when there is something to fetch that shouldn't wait.
        devices: those whose doors are listened at; replaced as a whole, as the next is.
        awaited: those whose interrupts aren't told yet: they will be devices of it soon.
    """

    def __init__(self, spans: tuple[Span, ...] | None) -> None:
        super().__init__(RECORD_BLOCK, spans)
        self.failed = False
        self.due = threading.Event()
        self.devices: frozenset[str] = frozenset()
        self.awaited: frozenset[str] = frozenset()
        self._blocks: list[Block] = []
        self._size = 0

    def event(self, event: Event) -> None:
        """Pack an event; what a device did before its state was saved is part of that state."""
        match event:
            case Learned() | Woken() | Told() | Dma():
                wanted = event.device in self.devices
            case Interrupt():
                wanted = event.device not in self.awaited
            case _:
                wanted = True
        if wanted:
            super().event(event)

    def take(self) -> list[Block]:
        """Return what there is."""
        self.due.clear()
        with self._lock:
            if self._packer.count:
                self._full()
            blocks, self._blocks = self._blocks, []
            self._size = 0
        return blocks

    def _keep(self, block: Block) -> None:
        if self.failed:
            return
        self._blocks.append(block)
        self._size += len(block.data)
        self.failed = self._size > BACKLOG_MAX
        self.due.set()
