"""A virtqueue's areas in guest memory that comes and goes, and what is published there.

While there is no memory, what is given back waits; it is published when the areas are found
again. So it does when a transfer fails, of memory that isn't mapped here: then the queue is
looked at once more after a while.

Invariants:
    What is kept of memory that is gone ends with the next look at the table: rings and
    windows are dropped then, and what waits has none.
    Elements of the used ring are written before the index that tells of them.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TypeAlias

from devicehost_server.devices.virtio.chain import Chain
from devicehost_server.devices.virtio.queue_state import INDEX_MASK, QueueOwner, QueueSettings
from devicehost_server.devices.virtio.rings import INDEX, USED_ELEMENTS, Rings
from devicehost_server.devices.virtio.windows import GuestWindows
from devicehost_server.model.errors import MemoryNotMapped
from devicehost_server.model.guest_memory import GuestMemory, MemoryBlock

MISSING_S = 0.1
"""After how long memory that couldn't be reached is looked at again."""

Copies: TypeAlias = Sequence[tuple[int, memoryview]]
"""What has to be written to guest memory: guest-physical addresses, and bytes."""

Done: TypeAlias = tuple[int, int, Copies]
"""A chain that is given back: its head, how many bytes of it were written, and those of them
that aren't in the guest yet."""


class QueueMemory:
    """Where a queue is. All of it is called under `_lock`, which is held for a few transfers.

    Args:
        index: the queue's number.
        size_max: how many descriptors it can have, a power of two.
        owner: told when it should be looked at again.
    """

    def __init__(self, index: int, size_max: int, owner: QueueOwner) -> None:
        self.index = index
        self.size_max = size_max
        self._owner = owner
        self._memory: GuestMemory | None = None
        self._lock = threading.Lock()
        self._clear()

    def _clear(self) -> None:
        """Forget everything but the memory."""
        self._settings = QueueSettings(self.size_max)
        self._mask = self.size_max - 1
        self._enabled = False
        self._next_used = 0  # the index of the next chain to push
        self._unsignalled = 0  # how many were pushed since the last `notify`
        self._in_flight: dict[int, Chain] = {}  # by head, in the order in which they were popped
        self._late: list[Done] = []  # of which the heads are in flight
        self._missing_since: float | None = None
        self._drop_memory()

    def _drop_memory(self) -> None:
        """Keep nothing mapped; look at the memory anew when it is next needed."""
        self._rings: Rings | None = None
        self._windows: GuestWindows | None = None
        self._blocks: tuple[MemoryBlock, ...] | None = None  # those that `_rings` are of

    def _look_at_memory(self) -> None:
        """Find the areas in the memory as it is now, and publish what had to wait for it."""
        self._drop_memory()
        self._missing_since = None
        memory = self._memory
        self._blocks = blocks = () if memory is None else memory.blocks()
        if memory is None or not blocks or not self._enabled:
            return
        windows = GuestWindows(memory, blocks)
        settings = self._settings
        try:
            self._rings = Rings.of(
                windows, settings.size, settings.table, settings.driver, settings.device
            )
        except MemoryNotMapped:
            return
        self._windows = windows
        if self._late:
            late, self._late = self._late, []
            self._give_back(late)

    def _give_back(self, done: Sequence[Done]) -> None:
        """Publish chains in the used ring; later, if there is no memory now."""
        rings = self._rings
        if rings is None:
            self._keep(done)
            return
        position = self._next_used
        try:
            for head, written, copies in done:
                for address, data in copies:
                    self._memory.write(address, data)  # type: ignore[union-attr] # it has rings
                rings.put_used(USED_ELEMENTS + 8 * (position & self._mask), head, written)
                position = (position + 1) & INDEX_MASK
            rings.used[INDEX] = position
        except MemoryNotMapped:
            self._keep(done)
            self._transfer_failed()
            return
        self._next_used = position
        self._unsignalled += len(done)
        for head, _, _ in done:
            self._in_flight.pop(head, None)

    def _keep(self, done: Sequence[Done]) -> None:
        """Publish chains later. Their windows aren't kept until then: who knows when it is."""
        for each in done:
            self._in_flight[each[0]] = Chain(each[0])
        self._late.extend(done)

    def _transfer_failed(self) -> None:
        """Try again in a while: no change of the table may tell when that will succeed."""
        self._drop_memory()
        self._owner.look_again(self.index, MISSING_S)


def copies_of(chain: Chain, written: int) -> Copies:
    """Return what has to be copied to the guest of the first `written` bytes of a chain."""
    copies = []
    for index, buffer in enumerate(chain.writable):
        count = min(len(buffer), written)
        written -= count
        if count and index in chain.copies:
            copies.append((chain.copies[index], buffer[:count]))
    return copies
