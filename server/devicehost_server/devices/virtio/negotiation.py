"""What a driver and a device have agreed on so far: the state behind the registers.

Both transports show the same: a status, feature bits 32 at a time, and the settings of the
queue that is selected. This is that state, and what the specification has happen to it. What
follows for queues and threads is the owner's business.

Source: VIRTIO 1.2, sections 2.1 (status), 2.2 (features), 3.1 (initialization), 2.6.1 (queue
reset), 4.1.4.3 and 4.2.2. Where a driver does what it must not:

    Status bits are never cleared but by a reset, and only the driver's bits are its to set.
    FEATURES_OK doesn't stick if a feature was never offered, or VERSION_1 isn't accepted;
    nor does DRIVER_OK without FEATURES_OK. After FEATURES_OK, features stay.
    The settings of a queue in use stay. A size that isn't a power of two, or too large, is
    ignored. A queue at an address that isn't aligned makes the device fail.
    A queue that doesn't exist reads as zeros, and ignores writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from devicehost_server.devices.base import State
from devicehost_server.devices.state import StateReader
from devicehost_server.devices.virtio.features import (
    DRIVER_STATUS,
    RING_RESET,
    VERSION_1,
    Status,
)
from devicehost_server.devices.virtio.queue_state import QueueSettings

BITS_16 = 0xFFFF
BITS_32 = 0xFFFF_FFFF
BITS_64 = (1 << 64) - 1

NO_VECTOR = 0xFFFF
"""The number of no MSI-X vector."""


class Owner(Protocol):
    """The device, as its registers see it. Called under its lock."""

    def offered(self) -> int:
        """The features that it offers."""

    def run(self) -> None:
        """The driver is ready: queues run from here on."""

    def stop(self) -> None:
        """The driver has given up."""

    def reset_by_driver(self) -> None:
        """Reset everything, `Negotiation` too."""

    def enable_queue(self, index: int, settings: QueueSettings) -> None:
        """The driver uses a queue from here on."""

    def disable_queue(self, index: int) -> None:
        """The driver takes a queue back. When this returns, nobody works on it."""

    def fail(self, reason: str) -> None:
        """The driver did what can't be ignored."""


@dataclass(slots=True)
class QueueRegisters:
    """What the registers of one queue hold.

    Attributes:
        size: how many descriptors.
        table, driver, device: guest-physical addresses.
        enabled: whether it is in use.
        vector: its MSI-X vector.
    """

    size: int
    table: int = 0
    driver: int = 0
    device: int = 0
    enabled: bool = False
    vector: int = NO_VECTOR

    @property
    def settings(self) -> QueueSettings:
        """What the queue itself has to know."""
        return QueueSettings(self.size, self.table, self.driver, self.device)


class Negotiation:
    """The state behind the registers of a device.

    Args:
        owner: the device.
        sizes: how many descriptors each queue has at most.

    Attributes:
        status: as the driver reads it.
        features: those that the driver has accepted so far.
        offered_select, accepted_select, queue_select: which 32 features, and which queue,
            the registers are about.
        generation: counts changes of the device's configuration.
        queues: the registers of each queue.
    """

    def __init__(self, owner: Owner, sizes: Sequence[int]) -> None:
        self._owner = owner
        self.sizes = tuple(sizes)
        self.generation = 0
        self.reset()

    def reset(self) -> None:
        """Return to the state after power-on. The generation goes on."""
        self.status = 0
        self.features = 0
        self.offered_select = self.accepted_select = self.queue_select = 0
        self.queues = [QueueRegisters(size) for size in self.sizes]
        self.spare = QueueRegisters(0)  # what is selected when there is no such queue

    # Features and status.

    @property
    def is_running(self) -> bool:
        """Whether the driver is ready, and nothing is wrong."""
        broken = Status.NEEDS_RESET | Status.FAILED
        return bool(self.status & Status.DRIVER_OK) and not self.status & broken

    def offered(self) -> int:
        """Return the 32 offered features that are selected."""
        select = self.offered_select
        return self._owner.offered() >> 32 * select & BITS_32 if select < 2 else 0  # noqa: PLR2004 # 64 bits

    def accepted(self) -> int:
        """Return the 32 accepted features that are selected."""
        select = self.accepted_select
        return self.features >> 32 * select & BITS_32 if select < 2 else 0  # noqa: PLR2004 # 64 bits

    def accept(self, value: int) -> None:
        """Accept 32 features, those that are selected."""
        shift = 32 * self.accepted_select
        if self.status & Status.FEATURES_OK:
            return
        if shift < 64:  # noqa: PLR2004 # 64 bits
            self.features = self.features & ~(BITS_32 << shift) | value << shift
        elif value:
            self.features |= value << 64  # never offered: to be refused at FEATURES_OK

    def write_status(self, value: int) -> None:
        """Set bits of the status; 0 resets the device."""
        if not value:
            self._owner.reset_by_driver()
            return
        old = self.status
        new = old | value & DRIVER_STATUS
        if new & ~old & Status.FEATURES_OK and not self._acceptable():
            new &= ~Status.FEATURES_OK
        if not new & Status.FEATURES_OK:
            new &= ~Status.DRIVER_OK
        self.status = int(new)
        if new & ~old & Status.FAILED:
            self._owner.stop()
        elif new & ~old & Status.DRIVER_OK and self.is_running:
            self._owner.run()

    def _acceptable(self) -> bool:
        return not self.features & ~self._owner.offered() and bool(self.features & VERSION_1)

    # The selected queue.

    @property
    def queue(self) -> QueueRegisters:
        """The registers of the queue that is selected; of none, if there is none."""
        select = self.queue_select
        return self.queues[select] if select < len(self.queues) else self.spare

    @property
    def size_max(self) -> int:
        """How many descriptors the selected queue has at most; 0 if there is no such queue."""
        select = self.queue_select
        return self.sizes[select] if select < len(self.sizes) else 0

    def write_size(self, value: int) -> None:
        """Set the size of the selected queue."""
        if not self.queue.enabled and 0 < value <= self.size_max and not value & (value - 1):
            self.queue.size = value

    def write_address(self, area: str, value: int, *, mask: int = BITS_64) -> None:
        """Set the address of an area of the selected queue, or half of it by a `mask`."""
        queue = self.queue
        if not queue.enabled and self.size_max:
            setattr(queue, area, getattr(queue, area) & ~mask | value & mask)

    def write_vector(self, value: int, vectors: int) -> None:
        """Set the MSI-X vector of the selected queue; what isn't among `vectors` is none."""
        if self.size_max:
            self.queue.vector = value if value < vectors else NO_VECTOR

    def enable(self) -> None:
        """Use the selected queue from here on."""
        queue = self.queue
        if queue.enabled or not self.size_max:
            return
        settings = queue.settings
        wrong = settings.misaligned()
        if wrong:
            self._owner.fail(f"queue {self.queue_select}: {wrong}")
            return
        queue.enabled = True
        self._owner.enable_queue(self.queue_select, settings)

    def disable(self) -> None:
        """Take the selected queue out of use."""
        queue = self.queue
        if queue.enabled:
            queue.enabled = False
            self._owner.disable_queue(self.queue_select)

    def reset_queue(self, value: int) -> None:
        """Take the selected queue out of use, and forget its settings, if `value` is 1."""
        if value & 1 and self.size_max and self.features & RING_RESET:
            self.disable()
            self.queues[self.queue_select] = QueueRegisters(self.size_max)

    # For a saved state.

    def save(self) -> State:
        """Return all of it, but what the queues know by themselves."""
        state: State = {name: getattr(self, name) for name in _SAVED}
        for number, queue in enumerate(self.queues):
            for name in _SAVED_OF_QUEUE:
                state[f"queue{number}_{name}"] = getattr(queue, name)
        return state

    def restored(self, reader: StateReader) -> Negotiation:
        """Return one with a saved state; this one is as it was.

        Raises:
            BadState: it doesn't fit.
        """
        new = Negotiation(self._owner, self.sizes)
        for name, maximum in _SAVED.items():
            setattr(new, name, reader.integer(name, maximum=maximum))
        for number, (queue, size_max) in enumerate(zip(new.queues, self.sizes, strict=True)):
            prefix = f"queue{number}_"
            exponent = reader.integer(f"{prefix}size", minimum=1, maximum=size_max).bit_length()
            queue.size = 1 << (exponent - 1)
            for name in ("table", "driver", "device"):
                setattr(queue, name, reader.integer(prefix + name, maximum=BITS_64))
            queue.enabled = reader.boolean(f"{prefix}enabled")
            queue.vector = reader.integer(f"{prefix}vector", maximum=NO_VECTOR)
        return new

    def take(self, other: Negotiation) -> None:
        """Take over what another one holds."""
        for name in _SAVED:
            setattr(self, name, getattr(other, name))
        self.queues = other.queues


_SAVED = {
    "status": 0xFF,
    "features": (1 << 96) - 1,
    "offered_select": BITS_32,
    "accepted_select": BITS_32,
    "queue_select": BITS_32,
    "generation": BITS_32,
}
"""What is saved, and the most that it can be."""

_SAVED_OF_QUEUE = ("size", "table", "driver", "device", "enabled", "vector")
