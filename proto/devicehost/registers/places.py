"""Where registers are: their names, and what is at which offset.

A register is called by its name, one of a row by its index as well: `LCR`, `R[3]`.

    >>> parse_name("R[3]")
    ('R', 3)
    >>> place = locate(RegisterMap("chip", (Register("R", 0x10, 4, count=8),)), "R[3]")
    >>> place.name, hex(place.offset), place.size
    ('R[3]', '0x1c', 4)
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from devicehost.registers.declare import Register, RegisterMap
from devicehost.registers.errors import UnknownRegister

_NAME = re.compile(r"([A-Z_][A-Z0-9_]*)(?:\[(0|[1-9][0-9]{0,9})\])?")
_LISTED = 20


@dataclass(frozen=True, slots=True)
class Place:
    """Where a register is, or one of a row, or a whole row.

    Attributes:
        register: as declared.
        index: which of a row; None for a whole row, and for a register that is alone.
        range: which of the device's trapped ranges it is in.
        offset: of its first byte, from the base of that range. Of a register that is
            reached via others, that of the data register: there it is accessed.
        size: in bytes; of a whole row, with what is between its registers.
        number: with `via`, what is to be written to the index register; else None.
    """

    register: Register
    index: int | None
    range: int
    offset: int
    size: int
    number: int | None = None

    @property
    def name(self) -> str:
        """What it is called."""
        return full_name(self.register, self.index)

    @property
    def last(self) -> int:
        """The offset of its last byte."""
        return self.offset + self.size - 1


def parse_name(name: str) -> tuple[str, int | None]:
    """Split the name of a register into that of its row and its index; None if it has none.

    Raises:
        ValueError: it isn't the name of any register.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise ValueError(
            f"{name!r} isn't a register's name; allowed: upper-case letters, digits and "
            "underscores, not a digit first, and an index in brackets: 'LCR', 'R[3]'"
        )
    return match[1], None if match[2] is None else int(match[2])


def full_name(register: Register, index: int | None) -> str:
    """Return what one register of a row is called, or with None what all of it is."""
    return register.name if index is None else f"{register.name}[{index}]"


def numbers_taken(register: Register, data: Register) -> int:
    """Return how many numbers a register has that is reached via `data`.

    A register that is wider than the data register comes in parts, lowest first.
    """
    return -(-register.size // data.size)


def pitch(register_map: RegisterMap, register: Register) -> int:
    """Return the distance from one of a row to the next: in bytes, or with `via` in numbers."""
    if register.stride:
        return register.stride
    if register.via:
        return numbers_taken(register, register_map.register(register.via.data))
    return register.size


def locate(register_map: RegisterMap, name: str) -> Place:
    """Return where a register is, or one of a row, or without an index all of a row.

    Raises:
        UnknownRegister: there is none of this name, or none of this index.
    """
    try:
        plain, index = parse_name(name)
        register = register_map.register(plain)
    except (KeyError, ValueError):
        names = [each.name for each in register_map.registers[: _LISTED + 1]]
        if len(names) > _LISTED:
            names[_LISTED:] = ["…"]
        raise UnknownRegister(
            f"{register_map.name} has no register {name!r}; it has: {', '.join(names)}"
        ) from None
    if index is None:
        return _place(register_map, register, None)
    if register.count == 1:
        raise UnknownRegister(f"{register_map.name}: {plain} is one register, without an index")
    if index >= register.count:
        raise UnknownRegister(
            f"{register_map.name} has no register {name!r}; allowed: {plain}[0] to "
            f"{plain}[{register.count - 1}]"
        )
    return _place(register_map, register, index)


def places(register_map: RegisterMap) -> Iterator[Place]:
    """Go through all registers in the order of the map, each of a row by itself."""
    for register in register_map:
        if register.count == 1:
            yield _place(register_map, register, None)
        else:
            for index in range(register.count):
                yield _place(register_map, register, index)


def scaled(register_map: RegisterMap, shift: int) -> RegisterMap:
    """Return the map of a chip that is wired with its registers 1 << `shift` times as far apart.

    Numbers of registers that are reached via others stay as they are.
    """
    return replace(
        register_map,
        registers=tuple(
            each
            if each.via
            else replace(
                each,
                offset=each.offset << shift,
                stride=pitch(register_map, each) << shift if each.count > 1 else 0,
            )
            for each in register_map
        ),
    )


def _place(register_map: RegisterMap, register: Register, index: int | None) -> Place:
    step = pitch(register_map, register)
    first = register.offset + (index or 0) * step
    if register.via:
        data = register_map.register(register.via.data)
        return Place(register, index, data.range, data.offset, min(register.size, data.size), first)
    more = (register.count - 1) * step if index is None else 0
    return Place(register, index, register.range, first, more + register.size)
