"""Registers that share a place: which do, and whether an access can tell them apart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from devicehost.registers.declare import Register, RegisterMap
from devicehost.registers.errors import BadRegisterMap
from devicehost.registers.limits import MAX_SHARING, MAX_STRETCHES
from devicehost.registers.places import numbers_taken, pitch


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Offsets of a range, or numbers behind a data register, that a register takes up."""

    space: tuple[int, str]  # the range, the data register
    first: int
    last: int
    at: int  # of the register in its map


def overlaps(register_map: RegisterMap) -> Iterator[tuple[int, int]]:
    """Find the pairs of registers that share a byte, or a number behind the same register.

    Yields:
        their positions in the map, lower one first; a pair may come several times.

    Raises:
        BadRegisterMap: too many share a place, or rows with gaps are too long.
    """
    stretches = sorted(_stretches(register_map), key=lambda each: (each.space, each.first))
    open_: list[_Stretch] = []
    for each in stretches:
        open_ = [other for other in open_ if other.space == each.space and other.last >= each.first]
        for other in open_:
            yield min(each.at, other.at), max(each.at, other.at)
        open_.append(each)
        if len(open_) > MAX_SHARING:
            raise BadRegisterMap(
                f"register map {register_map.name!r}: register "
                f"{register_map.registers[each.at].name}: it shares its place with more than "
                f"{MAX_SHARING} others"
            )


def told_apart(one: Register, other: Register) -> bool:
    """Whether it can be known which of two registers in one place an access is to."""
    if one.alternate or other.alternate:
        return True  # it is settled: the one that isn't an alternate
    if not (one.readable and other.readable) and not (one.writable and other.writable):
        return True
    if one.when is None or other.when is None:
        return one.when is not other.when
    return (one.when.register, one.when.field) == (other.when.register, other.when.field) and (
        one.when.value != other.when.value
    )


def _stretches(register_map: RegisterMap) -> Iterator[_Stretch]:
    found = 0
    for at, each in enumerate(register_map):
        space, size = (each.range, ""), each.size
        if each.via:
            space = (0, each.via.data)
            size = numbers_taken(each, register_map.register(each.via.data))
        step = pitch(register_map, each)
        pieces = 1 if step == size else each.count
        length = each.count * size if step == size else size
        found += pieces
        if found > MAX_STRETCHES:
            raise BadRegisterMap(
                f"register map {register_map.name!r}: register {each.name}: with it, there are "
                f"more than {MAX_STRETCHES} registers with gaps between them"
            )
        for index in range(pieces):
            first = each.offset + index * step
            yield _Stretch(space, first, first + length - 1, at)
