"""What an access means: which registers it touches, and what it says of their fields.

    >>> decoder = Decoder(RegisterMap("chip", (Register("LCR", 3, fields=(
    ...     Field("DLAB", 0x80), Field("WLS", 0x03, values={3: "8 bits"}))),)))
    >>> print(*decoder.decode(0, 3, Operation.WRITE, bytes([0x83])))
    LCR = 0x83 (DLAB=1, WLS=3 8 bits)

A decoder is an automaton. Its state is the bits that conditions depend on, those of `when`
and the numbers of `via`, as far as the accesses have shown them. What an access means, and
which state comes next, depends on the state and the access alone; so both are remembered, and
worked out only once. An access of several bytes is one to each register in turn, lowest
address first: it may change the meaning of its own later bytes.

What a byte is an access to, if several registers are there: of those whose `when` holds, one
that may be accessed so rather than one that may not, then one that isn't just an `alternate`,
then one with a `when` rather than one without. So a write to a read-only register is seen as
that. A data register whose index is the number of no register is itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from devicehost.registers.declare import Access, Field, Register, RegisterMap, When
from devicehost.registers.decoded import Decoded, DecodedField
from devicehost.registers.following import Followed, followed
from devicehost.registers.layout import Layout, RegisterByte

if TYPE_CHECKING:  # the package of recordings is built upon this one
    from devicehost.recording.events import Operation

_State: TypeAlias = tuple[int, ...]
_Meaning: TypeAlias = tuple[tuple[Decoded, ...], _State]

_WORD = 8
_REMEMBERED = 4096
"""How many accesses, and ways of access, a decoder remembers: a guest must not fill memory."""


@dataclass(frozen=True, slots=True)
class _Slot:
    """Some bytes of an operand, and the bits of a register that they are."""

    name: str
    register: Register | None
    size: int
    right: int  # bits of the operand below them
    left: int  # bits of the register below them
    mask: int
    complete: bool
    fields: tuple[tuple[Field, int], ...]  # with their lowest bits
    reserved: int
    followed: Followed | None

    def decoded(self, operand: int) -> Decoded:
        value = (operand >> self.right << self.left) & self.mask
        fields = []
        for each, lsb in self.fields:
            number = (value & each.mask) >> lsb
            fields.append(DecodedField(each.name, number, each.values.get(number, "")))
        return Decoded(
            self.name,
            value,
            tuple(fields),
            value & self.reserved,
            self.register,
            self.complete,
        )


class Decoder:
    """Tells which registers accesses touch, following those that decide what is where.

    It begins with the reset values. One thread at a time may use it.

    Args:
        register_map: one that satisfies `check`.
    """

    __slots__ = ("_followed", "_known", "_layout", "_slots", "_state")

    def __init__(self, register_map: RegisterMap) -> None:
        self._layout = Layout(register_map)
        self._followed = followed(register_map)
        self._state: _State = tuple(each.initial for each in self._followed.values())
        self._known: dict[tuple[_State, Operation, int, int, bytes], _Meaning] = {}
        self._slots: dict[tuple[_State, bool, int, int, int], tuple[_Slot, ...]] = {}

    @property
    def follows(self) -> tuple[str, ...]:
        """The registers that decide what is where: those that are worth to `learn`."""
        return tuple(self._followed)

    def learn(self, register_name: str, value: int) -> None:
        """Take over the value that a register has. One that decides nothing is ignored."""
        if which := self._followed.get(register_name):
            self._set(which, value & which.bits)

    def decode(
        self,
        range: int,  # noqa: A002 # as registers have it
        offset: int,
        operation: Operation,
        data: bytes,
    ) -> tuple[Decoded, ...]:
        """Return what an access means, in the order of its bytes, and follow it.

        Args:
            range: which of the device's trapped ranges it is in.
            offset: of its first byte, from the base of that range.
            operation: read or write.
            data: one operand, little-endian.
        """
        key = (self._state, operation, range, offset, data)
        known = self._known.get(key)
        if known is None:
            result = tuple(self._follow(range, offset, data, write=operation.value == "write"))
            known = (result, self._state)
            if len(data) <= _WORD:
                if len(self._known) >= _REMEMBERED:
                    self._known.clear()
                self._known[key] = known
        result, self._state = known
        return result

    def names(
        self,
        range: int,  # noqa: A002 # as registers have it
        offset: int,
        operation: Operation,
        size: int,
    ) -> tuple[str, ...]:
        """Return the registers that an access would touch now, in the order of its bytes.

        Unlike `decode` it follows nothing: it is for an access that hasn't been made.
        """
        write = operation.value == "write"
        names: list[str] = []
        at = 0
        while at < size:
            for slot in self._slots_of(range, offset + at, size - at, write=write):
                names.append(slot.name)
                at += slot.size
        return tuple(names)

    def _follow(self, range_: int, offset: int, data: bytes, *, write: bool) -> Iterator[Decoded]:
        operand = int.from_bytes(data, "little")
        at = 0
        while at < len(data):
            done = 0
            for slot in self._slots_of(range_, offset + at, len(data) - at, write=write):
                result = slot.decoded(operand >> 8 * at)
                yield result
                done += slot.size
                if which := slot.followed:
                    after = which.after_write if write else which.after_read
                    self._set(which, after(self._state[which.at], result.value, slot.mask))
            at += done

    def _set(self, which: Followed, value: int) -> None:
        self._state = (*self._state[: which.at], value, *self._state[which.at + 1 :])

    def _slots_of(self, range_: int, offset: int, size: int, *, write: bool) -> tuple[_Slot, ...]:
        """Return the slots of an operand, up to the first that may change those behind it."""
        key = (self._state, write, range_, offset, size)
        slots = self._slots.get(key)
        if slots is None:
            slots = tuple(self._cut(range_, offset, size, write=write))
            if size <= _WORD:
                if len(self._slots) >= _REMEMBERED:
                    self._slots.clear()
                self._slots[key] = slots
        return slots

    def _cut(self, range_: int, offset: int, size: int, *, write: bool) -> Iterator[_Slot]:
        begin = 0
        first = self._at(range_, offset, write=write)
        while begin < size:
            end, after = begin, first
            while end < size and _goes_on(first, after, end - begin):
                end += 1
                after = self._at(range_, offset + end, write=write) if end < size else None
            slot = self._slot(first, begin, end - begin, write=write)
            yield slot
            if slot.followed:
                return
            begin, first = end, after

    def _slot(self, first: RegisterByte | None, at: int, size: int, *, write: bool) -> _Slot:
        mask = (1 << 8 * size) - 1
        if first is None:
            return _Slot("", None, size, 8 * at, 0, mask, False, (), 0, None)  # noqa: FBT003
        register = first.register
        mask <<= 8 * first.byte
        return _Slot(
            name=first.name,
            register=register,
            size=size,
            right=8 * at,
            left=8 * first.byte,
            mask=mask,
            complete=size == register.size,
            fields=tuple((each, each.lsb) for each in _fields(register, mask, write=write)),
            reserved=register.reserved & mask,
            followed=self._followed.get(register.name),
        )

    def _at(self, range_: int, offset: int, *, write: bool) -> RegisterByte | None:
        """Return which register a byte is accessed of."""
        found = self._choose(self._layout.at(range_, offset), write=write)
        if found is None:
            return None
        behind = self._choose(self._behind(found), write=write)
        return behind or found

    def _behind(self, data: RegisterByte) -> Iterator[RegisterByte]:
        """Go through the registers that are accessed now via a data register."""
        via = self._layout.via(data.register.name)
        if via is not None:
            index = self._followed[via.index]
            number = self._state[index.at] & via.mask
            for each in self._layout.behind(data.register.name, number):
                byte = each.byte + data.byte
                if byte < each.register.size:
                    yield RegisterByte(each.register, each.index, byte)

    def _choose(self, found: Iterable[RegisterByte], *, write: bool) -> RegisterByte | None:
        """Return that of the registers at a place which is accessed there."""

        def rank(each: RegisterByte) -> tuple[bool, bool, bool]:
            register = each.register
            return (
                register.writable if write else register.readable,
                not register.alternate,
                register.when is not None,
            )

        return max(
            (each for each in found if self._holds(each.register.when)), key=rank, default=None
        )

    def _holds(self, when: When | None) -> bool:
        if when is None:
            return True
        which = self._followed[when.register]
        return which.register.field(when.field).of(self._state[which.at]) == when.value


def _goes_on(first: RegisterByte | None, other: RegisterByte | None, distance: int) -> bool:
    """Whether a byte is of the same register as one `distance` before it, or both of none."""
    if first is None or other is None:
        return first is other
    return (
        other.register is first.register
        and other.index == first.index
        and other.byte == first.byte + distance
    )


def _fields(register: Register, mask: int, *, write: bool) -> list[Field]:
    """Return the fields that lie in a mask, highest first.

    Where one is to be read and another to be written, it is the one that fits the access.
    """
    unfit = Access.READ_ONLY if write else Access.WRITE_ONLY
    fit = 0
    for each in register.fields:
        if (each.access or register.access) is not unfit:
            fit |= each.mask
    return sorted(
        (
            each
            for each in register.fields
            if not each.mask & ~mask
            and ((each.access or register.access) is not unfit or not each.mask & fit)
        ),
        key=lambda each: -each.mask,
    )
