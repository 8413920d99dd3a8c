"""Devices that are spoiled on purpose, to see whether a recording would show it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from devicehost.recording.events import Operation
from devicehost.registers import Decoder, Place, RegisterMap, locate


@dataclass(frozen=True, slots=True)
class Spoiled:
    """Bits of a register that are stuck: what a read returns of them is always the same.

    Attributes:
        device: the device's id.
        register: the register's name, with the index of one of a row.
        stuck_at_one: the bits that read as one.
        stuck_at_zero: the bits that read as zero.
    """

    device: str
    register: str
    stuck_at_one: int = 0
    stuck_at_zero: int = 0


class Spoiler:
    """Says which bits are stuck in what a device returns. It has to see all accesses, in order.

    Args:
        fault: which bits.
        register_map: the device's registers.

    Raises:
        UnknownRegister: the device has none of this name.
    """

    def __init__(self, fault: Spoiled, register_map: RegisterMap) -> None:
        self._fault = fault
        self._decoder = Decoder(register_map)
        self._place: Place = locate(register_map, fault.register)

    def stuck(self, range_: int, offset: int, operation: Operation, data: bytes) -> tuple[int, int]:
        """Return the bits that are always set, and always clear, in what an access returns.

        `data` is one operand, as the device has it.
        """
        place = self._place
        touched = (
            operation is Operation.READ
            and range_ == place.range
            and offset <= place.last
            and place.offset < offset + len(data)
            and place.name in self._decoder.names(range_, offset, operation, len(data))
        )
        self._decoder.decode(range_, offset, operation, data)
        if not touched:
            return 0, 0
        fault, bits = self._fault, 8 * (place.offset - offset)
        return _shifted(fault.stuck_at_one, bits), _shifted(fault.stuck_at_zero, bits)


def _shifted(value: int, bits: int) -> int:
    return value << bits if bits >= 0 else value >> -bits


def spoil(
    spoilers: Iterable[Spoiler], range_: int, offset: int, operation: Operation, data: bytes
) -> bytes:
    """Return one operand, `data`, as it is with all stuck bits in it."""
    value = int.from_bytes(data, "little")
    for spoiler in spoilers:
        ones, zeros = spoiler.stuck(range_, offset, operation, data)
        value = (value | ones) & ~zeros
    return (value & ((1 << 8 * len(data)) - 1)).to_bytes(len(data), "little")
