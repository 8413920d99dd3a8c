"""What there is to say of a virtqueue besides its requests: settings, and its saved state."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from devicehost_server.devices.base import State
from devicehost_server.devices.state import StateReader
from devicehost_server.devices.virtio.rings import DESCRIPTOR_ALIGN, DEVICE_ALIGN, DRIVER_ALIGN

INDEX_MASK = 0xFFFF
"""Indexes of rings count requests, modulo 65536."""


class QueueOwner(Protocol):
    """Whom a queue tells what it can't do by itself. Called from any thread."""

    def interrupt(self, index: int) -> None:
        """The driver of queue `index` wants to be interrupted."""

    def violated(self, index: int, reason: str) -> None:
        """The driver broke a rule of the specification in queue `index`."""

    def look_again(self, index: int, delay_s: float) -> None:
        """Queue `index` should be served once more, after a while."""


@dataclass(frozen=True, slots=True)
class QueueSettings:
    """What the driver says of a queue.

    Attributes:
        size: how many descriptors it has, a power of two.
        table: guest-physical address of the descriptor table.
        driver: that of the driver area, the available ring.
        device: that of the device area, the used ring.
    """

    size: int
    table: int = 0
    driver: int = 0
    device: int = 0

    def misaligned(self) -> str:
        """Say which area isn't aligned as it must be; empty if all are."""
        for name, address, align in (
            ("descriptor table", self.table, DESCRIPTOR_ALIGN),
            ("driver area", self.driver, DRIVER_ALIGN),
            ("device area", self.device, DEVICE_ALIGN),
        ):
            if address % align:
                return f"the {name} is at {address:#x}, allowed: multiples of {align}"
        return ""


@dataclass(frozen=True, slots=True)
class SavedQueue:
    """Where a queue is, in numbers.

    Attributes:
        next_avail: the index in the available ring of the chain to pop next.
        next_used: the index in the used ring of the chain to push next.
        again: the heads of chains to pop before that.
        late: chains that are done, but not in the used ring yet: head, and bytes written.
    """

    next_avail: int
    next_used: int
    again: tuple[int, ...]
    late: tuple[tuple[int, int], ...]

    def to_state(self, prefix: str) -> State:
        """Return it as fields of a state, whose names begin with `prefix`."""
        return {
            f"{prefix}next_avail": self.next_avail,
            f"{prefix}next_used": self.next_used,
            f"{prefix}again": _packed(self.again),
            f"{prefix}late": _packed(number for each in self.late for number in each),
        }

    @classmethod
    def read(cls, reader: StateReader, prefix: str, size_max: int) -> SavedQueue:
        """Read what `to_state` made, of a queue of at most `size_max` descriptors.

        Raises:
            BadState: it doesn't fit.
        """
        next_avail = reader.integer(f"{prefix}next_avail", maximum=INDEX_MASK)
        next_used = reader.integer(f"{prefix}next_used", maximum=INDEX_MASK)
        again = _unpacked(reader.octets(f"{prefix}again", size_max=4 * size_max))
        late = _unpacked(reader.octets(f"{prefix}late", size_max=8 * size_max))
        pairs = zip(late[::2], late[1::2], strict=False)
        return cls(next_avail, next_used, tuple(again), tuple(pairs))


def _packed(numbers: Iterable[int]) -> str:
    """Write numbers as a state has them: 32 bits each, little-endian, in hexadecimal."""
    return b"".join(number.to_bytes(4, "little") for number in numbers).hex()


def _unpacked(octets: bytes) -> list[int]:
    return [int.from_bytes(octets[at : at + 4], "little") for at in range(0, len(octets), 4)]
