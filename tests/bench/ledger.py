"""The device at the other end of what is measured: memory, and a ledger of posted writes.

It is plugged into a `devicehostd` like anybody's device, by an entry point. It does as
little as a device can: a read of its first register gives bytes that it has at hand. It
needs no lock, for it has one client; `LockedLedger` has the lock that devices have unless
they ask otherwise.

Writes to `LEDGER` are kept, all of them, until a read of `IN_ORDER` compares them with what
was to come: ascending numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

from devicehost_server.devices import ConcurrentDevice, option
from devicehost_server.model.device_io import DeviceIoMut, ReadableBuffer, WritableBuffer
from devicehost_server.model.resources import MmioAddressConstraint, ResourceConstraint

BASE = 0xD000_0000
LOCKED_BASE = 0xD100_0000
SIZE = 0x2000
LEDGER = 0x1F00
"""Register: writes of one size, each the number of the one before and one."""
IN_ORDER = 0x1F10
"""Register, 8 bytes: how many writes up to the first that is wrong; it begins anew then."""


def numbers(size: int) -> list[bytes]:
    """What is written in turn, over and over: numbers of `size` bytes, of up to 16 bits."""
    return [number.to_bytes(size, "little") for number in range(1 << min(16, 8 * size))]


@dataclass(frozen=True, slots=True)
class Config:
    """Where it is."""

    base: int = option(BASE, "MMIO address")


class Ledger(ConcurrentDevice[Config]):
    """Memory, and a ledger of posted writes."""

    type_name = "bench-ledger"
    config_type = Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._content = bytearray(SIZE)
        self._at_hand = {size: bytes(size) for size in (1, 4, 8, 4096)}
        self._ledger = bytearray()
        self._size = 1  # of the writes in the ledger

    def get_resource_constraints(self) -> list[ResourceConstraint]:
        return [MmioAddressConstraint.exact(self.config.base, SIZE)]

    def read(self, base: int, offset: int, data: WritableBuffer) -> None:
        if offset == 0:
            data[:] = self._at_hand[len(data)]
        elif offset == IN_ORDER:
            data[:] = self._in_order().to_bytes(8, "little")
            self._ledger.clear()

    def write(self, base: int, offset: int, data: ReadableBuffer) -> None:
        if offset < LEDGER:
            self._content[offset : offset + len(data)] = data
        elif offset == LEDGER:
            self._ledger += data
            self._size = len(data)

    def _in_order(self) -> int:
        size, expected = self._size, b"".join(numbers(self._size))
        for start in range(0, len(self._ledger), len(expected)):
            turn = self._ledger[start : start + len(expected)]
            if turn != expected[: len(turn)]:
                right = next(at for at, byte in enumerate(turn) if byte != expected[at])
                return (start + right) // size
        return len(self._ledger) // size


class LockedLedger(Ledger, DeviceIoMut):
    """The same, entered by one thread at a time."""

    type_name = "bench-locked-ledger"
