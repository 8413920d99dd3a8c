"""From accesses to registers: which of them an access is to, and what part of each.

An access is split into registers, lowest address first. Which register a byte belongs to:

    One that the access may be made to: a read-only register isn't there for writes, nor a
    write-only one for reads.
    Of those whose `when` holds at this moment, the first of the map with a `when`; else the
    first without one. So what an access does to its first registers counts for its last.
    A data register is the one with the number that its index register holds, if there is
    one; else itself.
    A byte of no register reads as zero, and is ignored when it is written.

A register that is read in part is read once, and gives the bytes asked for. One that is
written in part is written as a whole: its other bits are such that they do nothing (see
`Rules.whole`). With `partial_writes=False` the write isn't made at all, as on a bus without
byte enables.

The common access, to all of one register, costs a look-up: its way is resolved once. How
many are remembered is bounded, since a guest decides what it accesses.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias, TypeVar

from devicehost.registers import Register, RegisterMap, locate
from devicehost_server.devices.register_file import Rules
from devicehost_server.model.device_io import ReadableBuffer, WritableBuffer

Read: TypeAlias = Callable[[], int]
Write: TypeAlias = Callable[[int], None]
Reading: TypeAlias = Callable[[WritableBuffer], None]
Writing: TypeAlias = Callable[[ReadableBuffer], None]

_REMEMBERED = 4096
_NUMBERS = {
    size: struct.Struct(f"<{code}") for size, code in ((1, "B"), (2, "H"), (4, "I"), (8, "Q"))
}

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class Way:
    """How one register is accessed, one of a row by itself.

    Attributes:
        size: in bytes.
        read: what a guest's read does; not called if it can't be read.
        write: what a guest's write does; not called if it can't be written.
        tell: its value without effects, for `when`, `via` and writes in part; None if that
            can't be told.
        rules: what accesses do to it.
    """

    size: int
    read: Read
    write: Write
    tell: Read | None
    rules: Rules


@dataclass(frozen=True, slots=True)
class _Part:
    """`size` bytes of a register, from `skip` on, of which an access covers some."""

    way: Way
    skip: int
    size: int

    def read(self, data: WritableBuffer) -> int:
        """Read as much as there is room for in `data`; return how much."""
        octets = self.way.read().to_bytes(self.way.size, "little")
        count = min(self.size, len(data))
        data[:count] = octets[self.skip : self.skip + count]
        return count

    def write(self, data: ReadableBuffer, *, partial_writes: bool) -> int:
        """Write as much of `data` as there is place for; return how much."""
        way = self.way
        count = min(self.size, len(data))
        value = int.from_bytes(data[:count], "little")
        if count == way.size:
            way.write(value)
        elif partial_writes:
            covered = ((1 << 8 * count) - 1) << 8 * self.skip
            old = way.tell() if way.tell is not None else 0
            way.write(way.rules.whole(old, value << 8 * self.skip, covered))
        return count


_Find: TypeAlias = Callable[[], _Part | None]


class Remembered(dict[_Key, _Value]):
    """What `make` returns for a key, made when it is first asked for."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[[_Key], _Value]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, key: _Key) -> _Value:
        """Make the value, and remember it unless there are too many."""
        value = self._make(key)
        if len(self) < _REMEMBERED:
            self[key] = value
        return value


class Dispatch:
    """The accesses to the registers of a map.

    Args:
        register_map: one that satisfies `check`.
        way: returns how a register is accessed, by its name and index (None: it is alone).
        partial_writes: whether a write of a part of a register does anything.
    """

    def __init__(
        self,
        register_map: RegisterMap,
        way: Callable[[Register, int | None], Way],
        *,
        partial_writes: bool,
    ) -> None:
        self._map = register_map
        self._way = way
        self._partial_writes = partial_writes
        self._finders: Remembered[tuple[int, int, bool], _Find] = Remembered(self._finder)

    def reading(self, range: int, offset: int, size: int) -> Reading:  # noqa: A002 # as registers have it
        """Return what makes a read of `size` bytes at `offset`."""
        way = self._only(range, offset, size, write=False)
        if way is None:
            return partial(self._read, range, offset)
        read = way.read
        if (number := _NUMBERS.get(size)) is None:

            def read_odd(data: WritableBuffer) -> None:
                data[:] = read().to_bytes(size, "little")

            return read_odd
        pack_into = number.pack_into  # quicker

        def read_whole(data: WritableBuffer) -> None:
            pack_into(data, 0, read())

        return read_whole

    def writing(self, range: int, offset: int, size: int) -> Writing:  # noqa: A002 # as registers have it
        """Return what makes a write of `size` bytes at `offset`."""
        way = self._only(range, offset, size, write=True)
        if way is None:
            return partial(self._write, range, offset)
        write = way.write
        if (number := _NUMBERS.get(size)) is None:

            def write_odd(data: ReadableBuffer) -> None:
                write(int.from_bytes(data, "little"))

            return write_odd
        unpack_from = number.unpack_from

        def write_whole(data: ReadableBuffer) -> None:
            write(unpack_from(data)[0])

        return write_whole

    def _read(self, range_: int, offset: int, data: WritableBuffer) -> None:
        window, at = memoryview(data), 0
        while at < len(window):
            part = self._finders[range_, offset + at, False]()
            at += 1 if part is None else part.read(window[at:])

    def _write(self, range_: int, offset: int, data: ReadableBuffer) -> None:
        window, at = memoryview(data), 0
        while at < len(window):
            part = self._finders[range_, offset + at, True]()
            if part is None:
                at += 1
            else:
                at += part.write(window[at:], partial_writes=self._partial_writes)

    def _only(self, range_: int, offset: int, size: int, *, write: bool) -> Way | None:
        """Return the way if the access is to all of one register, whatever the state."""
        candidates = list(self._at(range_, offset, write=write))
        if len(candidates) != 1:
            return None
        register, index, skip = candidates[0]
        if register.when or skip or register.size != size or self._is_data(register):
            return None
        return self._way(register, index)

    def _finder(self, key: tuple[int, int, bool]) -> _Find:
        """Return what finds the register that a byte belongs to, at the time of an access."""
        range_, offset, write = key
        choices = [
            (self._condition(register), self._part_finder(register, index, skip, write=write))
            for register, index, skip in self._at(range_, offset, write=write)
        ]

        def find() -> _Part | None:
            for holds, part in choices:
                if holds is None or holds():
                    return part()
            return None

        return find

    def _at(
        self, range_: int, offset: int, *, write: bool
    ) -> Iterable[tuple[Register, int | None, int]]:
        """Return the registers that have a byte here, with the index and which byte it is.

        Those with a condition come first.
        """
        found = [
            (register, *place)
            for register in self._map
            if register.range == range_ and not register.via
            if (register.writable if write else register.readable)
            if (place := _place(register, offset)) is not None
        ]
        return sorted(found, key=lambda each: (bool(each[0].alternate), each[0].when is None))

    def _condition(self, register: Register) -> Callable[[], bool] | None:
        """Return whether a register is there, as a function; None if always."""
        when = register.when
        if when is None:
            return None
        decisive = self._map.register(when.register)
        field, wanted = decisive.field(when.field), when.value
        tell = self._teller(decisive)
        return lambda: field.of(tell()) == wanted

    def _part_finder(
        self, register: Register, index: int | None, skip: int, *, write: bool
    ) -> _Find:
        """Return what finds the part of a register, or of the one that is behind it."""
        itself = _Part(self._way(register, index), skip, register.size - skip)
        if not self._is_data(register):
            return lambda: itself
        behind = dict(self._behind(register, skip, write=write))
        via = next(each.via for each in self._map if each.via and each.via.data == register.name)
        tell, mask = self._teller(self._map.register(via.index)), via.mask
        return lambda: behind.get(tell() & mask, itself)

    def _behind(self, data: Register, skip: int, *, write: bool) -> Iterator[tuple[int, _Part]]:
        """Go through what is behind a data register, by number."""
        for each in self._map:
            if each.via is None or each.via.data != data.name:
                continue
            if not (each.writable if write else each.readable):
                continue
            for index in range(each.count) if each.count > 1 else (None,):
                name = each.name if index is None else f"{each.name}[{index}]"
                first = locate(self._map, name).number or 0
                way = self._way(each, index)
                for number, start in enumerate(range(skip, each.size, data.size), first):
                    room = min(each.size - start, data.size - skip)
                    yield number, _Part(way, start, room)

    def _teller(self, register: Register) -> Read:
        tell = self._way(register, None).tell
        if tell is None:
            raise TypeError(
                f"{self._map.name}: register {register.name} decides where others are, so it has "
                "to be told without a read: give it a method peek_" + register.name.lower()
            )
        return tell

    def _is_data(self, register: Register) -> bool:
        return any(each.via and each.via.data == register.name for each in self._map)


def _place(register: Register, offset: int) -> tuple[int | None, int] | None:
    """Return which of a row, and which byte of it, is at `offset`, if any is."""
    distance = offset - register.offset
    if register.count == 1:
        return (None, distance) if 0 <= distance < register.size else None
    index, byte = divmod(distance, register.stride or register.size)
    return (index, byte) if 0 <= index < register.count and byte < register.size else None
