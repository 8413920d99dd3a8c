"""The stored values of registers, and how a guest's reads and writes change them.

    >>> status = Register("STATUS", 0, fields=(
    ...     Field("DONE", 0x01, on_write=OnWrite.ONE_CLEARS),
    ...     Field("BUSY", 0x02, access=Access.READ_ONLY),
    ...     Field("MODE", 0x30),
    ... ))
    >>> registers = RegisterFile(RegisterMap("chip", (status,)))
    >>> registers["STATUS"] = 0x03
    >>> registers.write("STATUS", 0x2F)     # as a guest does
    >>> hex(registers["STATUS"])
    '0x22'

Invariants:
    A value has no bits but those of its register's fields; others read as zeros.
    Rows are changed in place, so that who holds one sees the changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from devicehost.registers import Access, Field, OnRead, OnWrite, Register, RegisterMap
from devicehost_server.devices.base import State
from devicehost_server.devices.state import StateReader

# What a bit becomes when it is written: 0, 1, what it was, or the opposite. As what is
# kept of the old value, and what is inverted then.
_Outcome: TypeAlias = tuple[int, int]
_ZERO: _Outcome = (0, 0)
_ONE: _Outcome = (0, -1)
_SAME: _Outcome = (-1, 0)
_OPPOSITE: _Outcome = (-1, -1)

# By what is declared: the outcome of writing a one, and of writing a zero.
_OUTCOMES: dict[OnWrite | None, tuple[_Outcome, _Outcome]] = {
    None: (_ONE, _ZERO),
    OnWrite.ONE_CLEARS: (_ZERO, _SAME),
    OnWrite.ONE_SETS: (_ONE, _SAME),
    OnWrite.ONE_TOGGLES: (_OPPOSITE, _SAME),
    OnWrite.ZERO_CLEARS: (_SAME, _ZERO),
    OnWrite.ZERO_SETS: (_SAME, _ONE),
    OnWrite.ZERO_TOGGLES: (_SAME, _OPPOSITE),
    OnWrite.CLEARS: (_ZERO, _ZERO),
    OnWrite.SETS: (_ONE, _ONE),
    OnWrite.CHANGES: (_ONE, _ZERO),  # in a way that only the device knows
}


@dataclass(slots=True)
class Rules:
    """What accesses do to a register, as masks of its bits; those of no field are reserved.

    Attributes:
        bits: all that it has.
        shown: those that a read shows.
        cleared, set: those that a read clears, or sets.
        stored: those that simply become what is written.
        every: those that there could be.
    """

    every: int
    bits: int = 0
    shown: int = 0
    cleared: int = 0
    set: int = 0
    stored: int = 0
    _keep_where_one: int = 0
    _flip_where_one: int = 0
    _keep_where_zero: int = 0
    _flip_where_zero: int = 0

    @classmethod
    def of(cls, register: Register) -> Rules:
        """Work out the rules from what is declared."""
        rules = cls(every=(1 << 8 * register.size) - 1)
        for field in register.fields or (Field(register.name, rules.every),):
            rules._add(register, field)
        return rules

    def _add(self, register: Register, field: Field) -> None:
        mask = field.mask
        access = field.access or register.access
        on_read = field.on_read or register.on_read
        on_write = field.on_write or register.on_write
        self.bits |= mask
        if access is not Access.WRITE_ONLY:
            self.shown |= mask
        if on_read is OnRead.CLEARS:
            self.cleared |= mask
        elif on_read is OnRead.SETS:
            self.set |= mask
        one, zero = (_SAME, _SAME) if access is Access.READ_ONLY else _OUTCOMES[on_write]
        if (one, zero) == (_ONE, _ZERO):
            self.stored |= mask
        self._keep_where_one |= one[0] & mask
        self._flip_where_one |= one[1] & mask
        self._keep_where_zero |= zero[0] & mask
        self._flip_where_zero |= zero[1] & mask

    @property
    def simple(self) -> bool:
        """Whether a write stores what is written, whatever it is."""
        return self.stored == self.every

    def after_read(self, old: int) -> int:
        """Return what becomes of the value `old` when it is read."""
        return old & ~self.cleared | self.set

    def after_write(self, old: int, written: int) -> int:
        """Return what becomes of the value `old` when `written` is written."""
        where_one = old & self._keep_where_one ^ self._flip_where_one
        where_zero = old & self._keep_where_zero ^ self._flip_where_zero
        return written & where_one | ~written & where_zero

    def whole(self, old: int, part: int, covered: int) -> int:
        """Return what a write of a part amounts to as one of the whole register.

        Other bits are such that they do nothing: a stored one is what it was, one where a
        one acts is zero, one where a zero acts is one.

        Args:
            old: the value now.
            part: what is written, in its place.
            covered: which bits that are.
        """
        zero_keeps = self._keep_where_zero & ~self._flip_where_zero
        one_keeps = self._keep_where_one & ~self._flip_where_one
        idle = old & self.stored | one_keeps & ~zero_keeps
        return part & covered | idle & ~covered


class RegisterFile(dict[str, int]):
    """The values by the names of the registers, and those of rows in `rows`.

    Attributes:
        rows: by the name of the row, what its registers hold.
        rules: by the name of a register, what accesses do to it.
    """

    __slots__ = ("_bits", "_map", "rows", "rules")

    def __init__(self, register_map: RegisterMap) -> None:
        super().__init__()
        self._map = register_map
        self.rules = {each.name: Rules.of(each) for each in register_map}
        self.rows: dict[str, list[int]] = {
            each.name: [0] * each.count for each in register_map if each.count > 1
        }
        self._bits = {
            each.name: self.rules[each.name].bits for each in register_map if each.count == 1
        }
        self.reset()

    def __setitem__(self, name: str, value: int) -> None:
        """Set a register that isn't one of a row; bits that it doesn't have are left out.

        Raises:
            KeyError: there is no such register.
        """
        dict.__setitem__(self, name, value & self._bits[name])

    def reset(self) -> None:
        """Give every register its reset value; 0 if that is left open."""
        for each in self._map:
            value = (each.reset or 0) & self.rules[each.name].bits
            if each.count > 1:
                self.rows[each.name][:] = [value] * each.count
            else:
                super().__setitem__(each.name, value)

    def read(self, name: str) -> int:
        """Read a register as a guest does."""
        rules, value = self.rules[name], self[name]
        super().__setitem__(name, rules.after_read(value))
        return value & rules.shown

    def write(self, name: str, value: int) -> None:
        """Write a register as a guest does."""
        super().__setitem__(name, self.rules[name].after_write(self[name], value))

    def read_row(self, name: str, index: int) -> int:
        """Read a register of a row as a guest does."""
        rules, row = self.rules[name], self.rows[name]
        value = row[index]
        row[index] = rules.after_read(value)
        return value & rules.shown

    def write_row(self, name: str, index: int, value: int) -> None:
        """Write a register of a row as a guest does."""
        row = self.rows[name]
        row[index] = self.rules[name].after_write(row[index], value)

    def save(self) -> State:
        """Return the values: a number by the name of each register, of a row hexadecimal."""
        return {
            each.name: self[each.name]
            if each.count == 1
            else b"".join(
                value.to_bytes(each.size, "little") for value in self.rows[each.name]
            ).hex()
            for each in self._map
        }

    def restored(self, reader: StateReader) -> RegisterFile:
        """Return a file like this one with saved values; this one is as it was.

        Raises:
            BadState: one doesn't fit.
        """
        new = RegisterFile(self._map)
        for each in self._map:
            size, bits = each.size, self.rules[each.name].bits
            if each.count == 1:
                new[each.name] = reader.integer(each.name, maximum=(1 << 8 * size) - 1)
            else:
                length = size * each.count
                octets = reader.octets(each.name, size_min=length, size_max=length)
                new.rows[each.name][:] = [
                    int.from_bytes(octets[at : at + size], "little") & bits
                    for at in range(0, length, size)
                ]
        return new

    def take(self, other: RegisterFile) -> None:
        """Take over the values of a file of the same map."""
        self.update(other)
        for name, row in other.rows.items():
            self.rows[name][:] = row
