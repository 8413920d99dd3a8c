"""The rules for a register map.

names       upper-case letters, digits and underscores, not a digit first; unique. That of
            the map: lower-case letters, digits, `.`, `_` and `-`
texts       printable, on one line
registers   1 to 8 bytes within 64 bits of offset; one of a row doesn't reach into the next
fields      bits without a gap, within the register. Those that share bits are told apart
            by one being read-only and the other write-only
places      registers share one only if an access tells them apart: read-only and
            write-only, or by `when`; or if one is an `alternate`
when, via   name registers that are there, alone, and have an address of their own (`via`)
effects     only of an access that is allowed
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from devicehost.registers.declare import Access, Field, OnRead, OnWrite, Register, RegisterMap, Via
from devicehost.registers.errors import BadRegisterMap
from devicehost.registers.limits import (
    MAX_COUNT,
    MAX_NAME,
    MAX_RANGE,
    MAX_REGISTERS,
    MAX_SIZE,
    MAX_TEXT,
)
from devicehost.registers.overlaps import overlaps, told_apart
from devicehost.registers.places import numbers_taken, pitch

_MAP_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")
_NAME = re.compile(r"[A-Z_][A-Z0-9_]*")
_OFFSETS = 1 << 64


def check(register_map: RegisterMap) -> None:
    """Check that a register map keeps all rules.

    Raises:
        BadRegisterMap: it breaks one; the message names register, field, value and rule.
    """
    _MapCheck(register_map).run()


@dataclass(frozen=True, slots=True)
class _Subject:
    """What is being looked at, as messages call it."""

    path: str

    def of(self, part: str) -> _Subject:
        return _Subject(f"{self.path}: {part}")

    def bad(self, what: str) -> BadRegisterMap:
        return BadRegisterMap(f"{self.path}: {what}")

    def number(self, what: str, value: int, lowest: int, highest: int) -> None:
        if not lowest <= value <= highest:
            raise self.bad(f"{what} {value:#x}; allowed: {lowest:#x} to {highest:#x}")

    def name(self, name: str) -> None:
        if not _NAME.fullmatch(name) or len(name) > MAX_NAME:
            raise self.bad(
                "it can't be called so; allowed: upper-case letters, digits and underscores, "
                f"not a digit first, at most {MAX_NAME}"
            )

    def text(self, what: str, text: str) -> None:
        if not text.isprintable() or len(text) > MAX_TEXT:
            raise self.bad(f"{what} must be one line of printable text, at most {MAX_TEXT} long")

    def effects(self, access: Access, on_read: OnRead | None, on_write: OnWrite | None) -> None:
        if on_read and access is Access.WRITE_ONLY:
            raise self.bad(f"on_read is {on_read.value!r}, but it is write-only")
        if on_write and access is Access.READ_ONLY:
            raise self.bad(f"on_write is {on_write.value!r}, but it is read-only")


class _MapCheck:
    def __init__(self, register_map: RegisterMap) -> None:
        self._map = register_map
        self._subject = _Subject(f"register map {register_map.name[:MAX_NAME]!r}")
        self._registers: Mapping[str, Register] = {each.name: each for each in register_map}
        self._ways: dict[str, Via] = {}  # by data register

    def run(self) -> None:
        subject, registers = self._subject, self._map.registers
        if not _MAP_NAME.fullmatch(self._map.name) or len(self._map.name) > MAX_NAME:
            raise subject.bad(
                "it can't be called so; allowed: lower-case letters, digits, '.', '_' and '-', "
                f"at most {MAX_NAME}"
            )
        subject.text("help", self._map.help)
        subject.number("registers:", len(registers), 1, MAX_REGISTERS)
        seen: set[str] = set()
        for each in registers:
            of_register = subject.of(f"register {each.name[:MAX_NAME]}")
            of_register.name(each.name)
            if each.name in seen:
                raise of_register.bad("there are two of this name")
            seen.add(each.name)
            _check_register(of_register, each)
        for each in registers:
            self._check_references(subject.of(f"register {each.name}"), each)
        self._check_places()

    def _check_references(self, subject: _Subject, register: Register) -> None:
        if register.when:
            when = register.when
            other = self._other(subject.of("when"), when.register, register)
            field = next((each for each in other.fields if each.name == when.field), None)
            if field is None:
                raise subject.bad(f"when: {other.name} has no field {when.field!r}")
            subject.of("when").number("value", when.value, 0, (1 << field.width) - 1)
        if register.via:
            self._check_via(subject.of("via"), register, register.via)
        elif register.stride and register.stride < register.size:
            raise subject.bad(
                f"stride {register.stride:#x} is less than its size, {register.size} bytes"
            )
        if register.alternate:
            other = self._found(subject.of("alternate"), register.alternate)
            if other is register:
                raise subject.bad("alternate: it is itself")
            if other.alternate:
                raise subject.bad(f"alternate: {other.name} is the alternate of another")

    def _check_via(self, subject: _Subject, register: Register, via: Via) -> None:
        index = self._other(subject.of("index"), via.index, register)
        data = self._other(subject.of("data"), via.data, register)
        if index is data:
            raise subject.bad(f"index and data are both {data.name}")
        for each in (index, data):
            if each.via:
                raise subject.bad(f"{each.name} has no address of its own")
        if self._ways.setdefault(via.data, via) != via:
            raise subject.bad(f"another register is reached via {via.data} in another way")
        whole = (1 << 8 * index.size) - 1
        mask = via.mask & whole
        if via.mask not in (-1, mask) or not mask:
            raise subject.bad(f"mask {via.mask:#x} isn't in the {index.size} bytes of {index.name}")
        step, taken = pitch(self._map, register), numbers_taken(register, data)
        if step < taken:
            raise subject.bad(f"stride {step:#x} is less than the {taken} numbers that one takes")
        last = register.offset + (register.count - 1) * step + taken - 1
        if register.offset & ~mask or last & ~mask:
            raise subject.bad(f"numbers {register.offset:#x} to {last:#x} aren't in mask {mask:#x}")

    def _check_places(self) -> None:
        registers = self._map.registers
        shared: set[tuple[int, int]] = set()
        for one_at, other_at in overlaps(self._map):
            one, other = registers[one_at], registers[other_at]
            if not told_apart(one, other):
                raise self._subject.bad(
                    f"registers {one.name} and {other.name} share a place, and an access doesn't "
                    "tell which it is to; allowed: one read-only and the other write-only, a "
                    "`when`, or one as the other's `alternate`"
                )
            if one.alternate or other.alternate:
                shared.add((one_at, other_at))
        at = {each.name: index for index, each in enumerate(registers)}
        for index, each in enumerate(registers):
            if each.alternate:
                other_at = at[each.alternate]
                if (min(index, other_at), max(index, other_at)) not in shared:
                    raise self._subject.bad(
                        f"register {each.name}: alternate: it shares no place with {each.alternate}"
                    )

    def _other(self, subject: _Subject, name: str, register: Register) -> Register:
        found = self._found(subject, name)
        if found is register:
            raise subject.bad("it depends on itself")
        if found.count > 1:
            raise subject.bad(f"{name} is a row; allowed: a register that is alone")
        return found

    def _found(self, subject: _Subject, name: str) -> Register:
        found = self._registers.get(name)
        if found is None:
            raise subject.bad(f"there is no register {name[:MAX_NAME]!r}")
        return found


def _check_register(subject: _Subject, register: Register) -> None:
    """Check what can be said of a register without the others."""
    subject.number("size", register.size, 1, MAX_SIZE)
    subject.number("offset", register.offset, 0, _OFFSETS - 1)
    subject.number("range", register.range, 0, MAX_RANGE)
    subject.number("count", register.count, 1, MAX_COUNT)
    subject.number("stride", register.stride, 0, _OFFSETS - 1)
    step = register.stride or register.size
    end = register.offset + (register.count - 1) * step + register.size
    if end > _OFFSETS:
        raise subject.bad(f"it ends beyond the last offset, {_OFFSETS - 1:#x}")
    for size in register.sizes:
        subject.number("sizes:", size, 1, MAX_SIZE)
    if len(set(register.sizes)) != len(register.sizes):
        raise subject.bad(f"sizes {register.sizes} name one twice")
    if register.reset is not None:
        subject.number("reset", register.reset, 0, (1 << 8 * register.size) - 1)
    subject.text("help", register.help)
    subject.effects(register.access, register.on_read, register.on_write)
    _check_fields(subject, register)


def _check_fields(subject: _Subject, register: Register) -> None:
    seen: set[str] = set()
    read = written = 0
    for each in register.fields:
        of_field = subject.of(f"field {each.name[:MAX_NAME]}")
        of_field.name(each.name)
        if each.name in seen:
            raise of_field.bad("there are two of this name")
        seen.add(each.name)
        _check_field(of_field, each, register)
        access = each.access or register.access
        if access is not Access.WRITE_ONLY:
            if read & each.mask:
                raise of_field.bad(f"mask {each.mask:#x}: another field has some of these bits")
            read |= each.mask
        if access is not Access.READ_ONLY:
            if written & each.mask:
                raise of_field.bad(f"mask {each.mask:#x}: another field has some of these bits")
            written |= each.mask


def _check_field(subject: _Subject, field: Field, register: Register) -> None:
    if field.mask <= 0 or field.mask >> 8 * register.size:
        raise subject.bad(
            f"mask {field.mask:#x} isn't in the {register.size} bytes of the register"
        )
    bits = field.mask >> field.lsb
    if bits & (bits + 1):
        raise subject.bad(f"mask {field.mask:#x} has a gap")
    subject.text("help", field.help)
    for value, meaning in field.values.items():
        subject.number("values:", value, 0, bits)
        if not meaning:
            raise subject.bad(f"values: {value:#x} has no meaning")
        subject.text(f"values: {value:#x}", meaning)
    subject.effects(field.access or register.access, field.on_read, field.on_write)
