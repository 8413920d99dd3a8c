"""What a trace brings, and which accesses one wants.

Times are in nanoseconds of the server's monotonic clock, addresses and values are
numbers, data is little-endian. Interrupts are those of `devicehost.recording.events`.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TypeAlias

from devicehost.recording.events import Interrupt, Operation, Space

_TWO_DIGITS = 10


@dataclass(frozen=True, slots=True)
class AccessFilter:
    """Conditions that an access has to meet, all of them. By default there is none.

    Attributes:
        devices: ids of devices; empty for any.
        registers: as "DEVICE.REGISTER"; empty for any.
        space: the address space; None for both.
        base: the first address, with `size`.
        size: the access touches a byte of so many from `base`; 0 for any address.
        operation: read or write; None for both.
        value: what the access carries, under `mask`.
        mask: the bits of `value` that count; 0 for any value.
        vcpus: numbers of vCPUs; empty for any.
        failed: failed accesses only.
    """

    devices: Collection[str] = ()
    registers: Collection[str] = ()
    space: Space | None = None
    base: int = 0
    size: int = 0
    operation: Operation | None = None
    value: int = 0
    mask: int = 0
    vcpus: Collection[int] = ()
    failed: bool = False


@dataclass(frozen=True, slots=True)
class FieldValue:
    """What a field of a register holds.

    Attributes:
        name: of the field.
        value: its bits, shifted down.
        meaning: what that means; empty if the register map doesn't say.
    """

    name: str
    value: int
    meaning: str = ""

    def __str__(self) -> str:
        meaning = f" {self.meaning}" if self.meaning else ""
        return f"{self.name}={_short(self.value)}{meaning}"


@dataclass(frozen=True, slots=True)
class RegisterValue:
    """What a register holds, or what an access did to it.

    Attributes:
        name: with its index, if it is one of a row; empty if no register is there.
        value: as far as it is known.
        fields: what it consists of.
        reserved: bits that are set but belong to no field.
    """

    name: str
    value: int
    fields: tuple[FieldValue, ...] = ()
    reserved: int = 0

    @property
    def details(self) -> str:
        """Its fields that aren't 0, and those of which a 0 means something."""
        shown = [str(field) for field in self.fields if field.value or field.meaning]
        if self.reserved:
            shown.append(f"reserved={self.reserved:#x}")
        return ", ".join(shown)

    def __str__(self) -> str:
        """Like `LCR = 0x83 (WLS=3 8 bits, DLAB=1)`."""
        details = f" ({self.details})" if self.details else ""
        return f"{self.name or 'no register'} = {whole_bytes(self.value)}{details}"


@dataclass(frozen=True, slots=True)
class TracedAccess:
    """An access that has ended, or that is held.

    Attributes:
        time_ns: when it began.
        took_ns: how long it took on the server.
        vcpu: whose it was; None if that isn't known.
        space: the address space.
        operation: read or write.
        address: of its first byte.
        size: of one operand, in bytes; the data of a string access is longer.
        data: what was read or written; nothing of a read that failed, or that is held
            before the device is asked.
        device: the device's id; empty if there is none.
        offset: from the beginning of the device's range, in bytes.
        registers: what it did to them, in the order of their addresses.
        failure: the reason of its failure, such as NO_DEVICE; empty if it didn't fail.
    """

    time_ns: int
    took_ns: int
    vcpu: int | None
    space: Space
    operation: Operation
    address: int
    size: int
    data: bytes
    device: str = ""
    offset: int = 0
    registers: tuple[RegisterValue, ...] = ()
    failure: str = ""

    @property
    def values(self) -> tuple[int, ...]:
        """Its operands: one, or more in a string access."""
        step = self.size or 1
        return tuple(
            int.from_bytes(self.data[begin : begin + step], "little")
            for begin in range(0, len(self.data), step)
        )

    @property
    def place(self) -> str:
        """Where it went: `com1.LCR`, `com1+0x3` if no register is known, `pio 0x3fb`."""
        if not self.device:
            return f"{self.space.value} {self.address:#x}"
        if len(self.registers) == 1 and self.registers[0].name:
            return f"{self.device}.{self.registers[0].name}"
        return f"{self.device}+{self.offset:#x}"


@dataclass(frozen=True, slots=True)
class TracedDma:
    """A device accessed guest memory.

    Attributes:
        time_ns: when.
        device: its id.
        operation: read or write.
        address: guest-physical.
        size: how many bytes.
        data: the first of them, 64 at most.
    """

    time_ns: int
    device: str
    operation: Operation
    address: int
    size: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Hotplugged:
    """A device came, of type `type`; or went, if that is empty."""

    time_ns: int
    device: str
    type: str


TraceEvent: TypeAlias = TracedAccess | Interrupt | TracedDma | Hotplugged


def whole_bytes(value: int) -> str:
    """Return a number in 0x form with the digits of 1, 2, 4 or 8 bytes, as it needs."""
    size = next((size for size in (1, 2, 4) if not value >> 8 * size), 8)
    return f"{value:#0{2 + 2 * size}x}"


def _short(value: int) -> str:
    """A small number as people say it, a large one in 0x form."""
    return str(value) if value < _TWO_DIGITS else hex(value)
