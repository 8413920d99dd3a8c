"""Rules about the data sheet: what the register map says that a driver mustn't do."""

from __future__ import annotations

from collections.abc import Iterator

from devicehost.recording import Access, Annotated, Operation
from devicehost.registers import Access as Allowed
from devicehost.registers import Decoded, Field, Register
from devicehost_client.recordings.lint.rule import Problem, Registers, Rule, Severity, SheetRule

_FOLLOWED_MAX = 4096
"""How many registers a rule follows: a recording must not fill memory."""


class ReservedBits(SheetRule):
    """A write sets bits that belong to no field, though the last read didn't have them set.

    Bits that are written back as they were read are preserved, which data sheets ask for.
    """

    name = "reserved-bits"
    severity = Severity.ERROR

    def __init__(self) -> None:
        super().__init__()
        self._read: dict[tuple[str, str], int] = {}

    def judge(self, access: Access, registers: Registers) -> Iterator[Problem]:
        """Tell of reserved bits that are set, by reads too."""
        write = access.operation is Operation.WRITE
        for each in registers:
            if each.declared and each.declared.reserved and (each.reserved or not write):
                what = f"reserved bits {each.reserved:#x} are set" if write else ""
                yield Problem(each.register, what, each.reserved)

    def meet(self, number: int, seen: Annotated, problem: Problem) -> None:
        """Remember what was read; count what was written and wasn't read before."""
        place = (seen.device, problem.register)
        if not problem.what:
            if len(self._read) >= _FOLLOWED_MAX:
                self._read.clear()
            self._read[place] = problem.value
        elif problem.value & ~self._read.get(place, 0):
            super().meet(number, seen, problem)

    def forget(self, device: str) -> None:
        """Forget what was read from a device."""
        self._read = {place: bits for place, bits in self._read.items() if place[0] != device}


class WriteToReadOnly(SheetRule):
    """A write to a register that can only be read: it has no effect, or one nobody knows."""

    name = "write-to-read-only"
    severity = Severity.ERROR

    def judge(self, access: Access, registers: Registers) -> Iterator[Problem]:
        """Tell of registers that aren't writable."""
        if access.operation is Operation.WRITE:
            for each in registers:
                if each.declared and not each.declared.writable:
                    yield Problem(each.register, "a read-only register is written")


class ReadOfWriteOnly(SheetRule):
    """A read of a register that can only be written: what it returns is undefined."""

    name = "read-of-write-only"
    severity = Severity.ERROR

    def judge(self, access: Access, registers: Registers) -> Iterator[Problem]:
        """Tell of registers that aren't readable."""
        if access.operation is Operation.READ:
            for each in registers:
                if each.declared and not each.declared.readable:
                    yield Problem(each.register, "a write-only register is read")


class AccessSize(SheetRule):
    """An access of a size that the register doesn't allow, or across several registers."""

    name = "access-size"
    severity = Severity.ERROR

    def judge(self, access: Access, registers: Registers) -> Iterator[Problem]:
        """Tell of registers that mustn't be accessed with this size."""
        size = access.size
        for each in registers:
            register = each.declared
            if register and size not in (register.sizes or (register.size,)):
                yield Problem(each.register, self._what(size, each, register, len(registers)))

    @staticmethod
    def _what(size: int, decoded: Decoded, register: Register, touched: int) -> str:
        allowed = ", ".join(map(str, register.sizes or (register.size,)))
        what = f"an access of {size} bytes; allowed: {allowed}"
        if touched > 1:
            return f"{what}; it covers other registers as well"
        return what if decoded.complete else f"{what}; it covers a part only"


class UndeclaredOffset(Rule):
    """An access where the device has no register."""

    name = "undeclared-offset"
    severity = Severity.ERROR

    def see(self, number: int, seen: Annotated, access: Access) -> None:
        """Count accesses that touch no register at all."""
        # A device without a map has no registers in its accesses, not even nameless ones.
        if access.status or not seen.registers or any(each.register for each in seen.registers):
            return
        what = f"there is no register at offset {seen.offset:#x} of range {seen.range}"
        self.tally((seen.device, seen.range, seen.offset), number, seen, register="", what=what)


class UnusedValue(SheetRule):
    """A field that is an enumeration gets a value that it doesn't have.

    One with names for less than half of its values is a number, of which some are special.
    """

    name = "unused-value"
    severity = Severity.ERROR

    def judge(self, access: Access, registers: Registers) -> Iterator[Problem]:
        """Tell of values without a meaning, of writable fields."""
        if access.operation is Operation.READ:
            return
        for each in registers:
            for found in each.fields:
                if each.declared and not found.meaning:
                    field = each.declared.field(found.name)
                    if _is_enumerated(field):
                        what = f"field {field.name} has no value {found.value:#x}"
                        yield Problem(each.register, what)


def _is_enumerated(field: Field) -> bool:
    return field.access is not Allowed.READ_ONLY and 2 * len(field.values) >= 1 << field.width
