"""Which registers of a map have a byte, whatever tells them apart."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

from devicehost.registers.declare import Register, RegisterMap, Via
from devicehost.registers.limits import MAX_SIZE
from devicehost.registers.places import full_name, numbers_taken, pitch


@dataclass(frozen=True, slots=True)
class RegisterByte:
    """A byte of a register.

    Attributes:
        register: as declared.
        index: which of a row; None if it is alone.
        byte: which of the register's bytes; 0 is the lowest.
    """

    register: Register
    index: int | None
    byte: int

    @property
    def name(self) -> str:
        """What the register is called."""
        return full_name(self.register, self.index)


@dataclass(frozen=True, slots=True)
class _Row:
    register: Register
    step: int
    taken: int  # of each step
    unit: int  # bytes in each that is taken: 1, or with `via` those of the data register

    def at(self, number: int) -> RegisterByte | None:
        index, rest = divmod(number - self.register.offset, self.step)
        if not 0 <= index < self.register.count or rest >= self.taken:
            return None
        return RegisterByte(
            self.register, index if self.register.count > 1 else None, rest * self.unit
        )


class _Range:
    """The registers of one trapped range. Those that are alone are found by bisection."""

    def __init__(self, rows: list[_Row]) -> None:
        self._rows = [each for each in rows if each.register.count > 1]
        alone = [each for each in rows if each.register.count == 1]
        self._alone = sorted(alone, key=lambda each: each.register.offset)
        self._offsets = [each.register.offset for each in self._alone]

    def at(self, offset: int) -> Iterator[RegisterByte]:
        first = bisect_left(self._offsets, offset - MAX_SIZE + 1)
        for row in self._alone[first : bisect_right(self._offsets, offset)] + self._rows:
            if found := row.at(offset):
                yield found


class Layout:
    """The registers of a map by their places.

    Args:
        register_map: one that satisfies `check`.
    """

    def __init__(self, register_map: RegisterMap) -> None:
        by_range: dict[int, list[_Row]] = {}
        self._behind: dict[str, list[_Row]] = {}
        for each in register_map:
            step = pitch(register_map, each)
            if each.via:
                data = register_map.register(each.via.data)
                row = _Row(each, step, numbers_taken(each, data), data.size)
                self._behind.setdefault(data.name, []).append(row)
            else:
                by_range.setdefault(each.range, []).append(_Row(each, step, each.size, 1))
        self._ranges = {range_: _Range(rows) for range_, rows in by_range.items()}

    def at(self, range_: int, offset: int) -> Iterator[RegisterByte]:
        """Go through the registers that have the byte at an offset themselves."""
        if range_ in self._ranges:
            yield from self._ranges[range_].at(offset)

    def via(self, data: str) -> Via | None:
        """Return how registers are reached via the register `data`; None if none is."""
        rows = self._behind.get(data)
        return rows[0].register.via if rows else None

    def behind(self, data: str, number: int) -> Iterator[RegisterByte]:
        """Go through the registers of a number that are reached via the register `data`."""
        for row in self._behind.get(data, ()):
            if found := row.at(number):
                yield found
