"""Register maps read from CMSIS-SVD.

Source: Open-CMSIS-SVD, "SVD Description (*.svd) Format" and CMSIS-SVD.xsd, version 1.3; and
what vendors make of it.

    names          in upper case. Those of clusters are put before those in them, with `_`
    arrays         `R[%s]` is a row, in a cluster that is one too. Lists, as `R%s`, and arrays
                   in arrays are registers by themselves
    access         if nobody says, it is that of all the fields, if they agree, or read-write.
                   What may be written once may be written
    reset          none if nobody says, or if no bit is in the resetMask
    fields         see `svd_fields`
    values         the description, or else the name. Values that leave bits open (#1x0) are
                   left out. Two lists, for reading and for writing, become one
    places         of two registers in one place, with nothing to tell them apart, the later
                   one is an `alternate`; likewise where it says so itself (alternateRegister)
    range          the peripheral's addresses are one range, from its baseAddress on
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass, replace

from devicehost.registers.checks import check
from devicehost.registers.declare import Access, Field, Register, RegisterMap
from devicehost.registers.errors import BadRegisterMap
from devicehost.registers.limits import MAX_NAME, MAX_REGISTERS, MAX_SIZE
from devicehost.registers.overlaps import overlaps, told_apart
from devicehost.registers.svd_derive import Derivation, bare, children
from devicehost.registers.svd_fields import (
    access_of,
    effects_of,
    expanded,
    fields_of,
    identifier,
)
from devicehost.registers.svd_xml import MAX_DEPTH, bad, name_of, number_of, parse, text_of

MAX_WORK = 1_000_000
"""Registers, fields, values and lines of text: what is derived may be many times the file."""

_DEFAULT_BITS = 32
_LISTED = 50
_TEXT_UNIT = 64
_CLUSTER_LENGTH = 1024  # what a cluster costs, as if it were text: even if there is nothing in it


def from_svd(text: str, peripheral: str | None = None) -> RegisterMap:
    """Return the registers of a peripheral in a CMSIS-SVD file.

    Args:
        text: the file.
        peripheral: its name; not needed if there is only one.

    Raises:
        BadRegisterMap: it isn't such a file, is too large, has no such peripheral, or breaks
            a rule of `check`.
    """
    device = parse(text)
    if device.tag != "device":
        raise BadRegisterMap(f"SVD: the root element is {device.tag[:MAX_NAME]!r}; allowed: device")
    derivation = Derivation()
    chosen = derivation.resolve(_choose(device, peripheral), [device])
    importer = _Importer(derivation)
    importer.add_all(chosen, [device, chosen], _Surroundings().inside(device).inside(chosen))
    name = re.sub(r"[^a-z0-9_.-]", "_", bare(peripheral or text_of(chosen, "name")).lower())
    register_map = RegisterMap(
        name=name.lstrip("_.-")[:MAX_NAME],
        registers=importer.registers(),
        help=text_of(chosen, "description"),
    )
    check(register_map)
    return register_map


def _choose(device: ET.Element, name: str | None) -> ET.Element:
    """Return the peripheral of a name, which may be that of one of an array."""
    by_name: dict[str, ET.Element] = {}
    found = device.findall("peripherals/peripheral")
    if name is None and len(found) == 1:
        return found[0]
    for each in found:
        by_name.setdefault(name_of(each), each)
        for spelled, _ in expanded(each):
            by_name.setdefault(spelled, each)
        if len(by_name) > MAX_REGISTERS:
            raise BadRegisterMap(f"SVD: more than {MAX_REGISTERS} peripherals")
    if name is not None and name in by_name:
        return by_name[name]
    what = "several peripherals" if name is None else f"no peripheral {name[:MAX_NAME]!r}"
    listed = [each for each in by_name if "%s" not in each]
    listed[_LISTED:] = ["…"] if len(listed) > _LISTED else []
    raise BadRegisterMap(f"SVD: {what}; it has: {', '.join(listed) or 'none'}")


@dataclass(frozen=True, slots=True)
class _Row:
    """The array that registers are in."""

    count: int
    stride: int


@dataclass(frozen=True, slots=True)
class _Surroundings:
    """What registers take over from the elements around them."""

    prefix: str = ""
    offset: int = 0
    bits: int = _DEFAULT_BITS
    access: Access | None = None
    reset: int | None = None
    reset_mask: int = -1
    row: _Row | None = None

    def inside(self, element: ET.Element) -> _Surroundings:
        """Return what holds in an element."""
        bits = number_of(element, "size")
        reset = number_of(element, "resetValue")
        mask = number_of(element, "resetMask")
        return replace(
            self,
            bits=self.bits if bits is None else bits,
            access=access_of(element) or self.access,
            reset=self.reset if reset is None else reset,
            reset_mask=self.reset_mask if mask is None else mask,
        )


class _Importer:
    """Collects registers."""

    def __init__(self, derivation: Derivation) -> None:
        self._derivation = derivation
        self._work = 0
        self._registers: dict[str, Register] = {}
        self._alternates: dict[str, list[str]] = {}  # by name, the names it may mean

    def add_all(
        self, parent: ET.Element, around: Sequence[ET.Element], outside: _Surroundings
    ) -> None:
        """Add the registers in a peripheral or cluster."""
        if len(around) > MAX_DEPTH:
            raise bad(parent, f"more than {MAX_DEPTH} clusters in each other")
        for raw in children(parent):
            if raw.tag not in {"register", "cluster"}:
                continue
            element = self._derivation.resolve(raw, around)
            inside = outside.inside(element)
            at = inside.offset + (number_of(element, "addressOffset") or 0)
            for name, distance, row in _instances(element, inside.row):
                self._spend(_CLUSTER_LENGTH if element.tag == "cluster" else 0)
                here = replace(inside, offset=at + distance, row=row)
                if element.tag == "register":
                    self._add(element, [*around, element], name, here)
                else:
                    here = replace(here, prefix=f"{inside.prefix}{name}_")
                    self.add_all(element, [*around, element], here)

    def registers(self) -> tuple[Register, ...]:
        """Return all registers, told apart where they share a place."""
        found = tuple(self._registers.values())
        at = {each.name: index for index, each in enumerate(found)}
        sharing: dict[int, set[int]] = {}
        for one, other in overlaps(RegisterMap("", found)):
            sharing.setdefault(one, set()).add(other)
            sharing.setdefault(other, set()).add(one)
        wishes = {
            index: [at[name] for name in self._alternates.get(each.name, ()) if name in at]
            for index, each in enumerate(found)
        }
        settled: dict[int, int | None] = {}
        for index in sorted(wishes, key=lambda index: bool(wishes[index])):
            near = sharing.get(index, set())
            rivals = [other for other in wishes[index] if other in near]
            rivals += [each for each in sorted(near) if not told_apart(found[index], found[each])]
            free = (each for each in rivals if settled.get(each, index) is None)
            settled[index] = next(free, None)
        result = []
        for index, each in enumerate(found):
            of = settled[index]
            result.append(each if of is None else replace(each, alternate=found[of].name))
        return tuple(result)

    def _add(
        self, element: ET.Element, around: Sequence[ET.Element], name: str, here: _Surroundings
    ) -> None:
        if not 1 <= here.bits <= 8 * MAX_SIZE:
            raise bad(element, f"size {here.bits} bits; allowed: 1 to {8 * MAX_SIZE}")
        size = -(-here.bits // 8)
        whole = (1 << 8 * size) - 1
        access = here.access or Access.READ_WRITE
        fields = fields_of(
            element,
            around,
            bits=8 * size,
            access=access,
            derivation=self._derivation,
            spend=self._spend,
        )
        if here.access is None:
            access, fields = _agreed(fields)
        on_read, on_write = effects_of(element, access)
        about = text_of(element, "description")
        self._spend(len(about))
        mask = here.reset_mask & whole
        called = self._unused(identifier(here.prefix + name), text_of(element, "alternateGroup"))
        row = here.row or _Row(1, 0)
        self._registers[called] = Register(
            name=called,
            offset=here.offset,
            size=size,
            access=access,
            reset=None if here.reset is None or not mask else here.reset & mask,
            fields=fields,
            help=about,
            count=row.count,
            stride=0 if row.stride == size else row.stride,
            on_read=on_read,
            on_write=on_write,
        )
        if other := bare(text_of(element, "alternateRegister")):
            self._alternates[called] = [identifier(here.prefix + other), identifier(other)]
        if len(self._registers) > MAX_REGISTERS:
            raise BadRegisterMap(f"SVD: more than {MAX_REGISTERS} registers")

    def _unused(self, name: str, group: str) -> str:
        """Return a name that no register has yet, like `name`."""
        if name in self._registers and group:
            name = identifier(f"{name}_{group}")
        spare, number = name, 2
        while spare in self._registers:
            self._spend(0)
            end = f"_{number}"
            spare, number = f"{name[: MAX_NAME - len(end)]}{end}", number + 1
        return spare

    def _spend(self, length: int) -> None:
        self._work += 1 + length // _TEXT_UNIT
        if self._work > MAX_WORK:
            raise BadRegisterMap(
                f"SVD: more than {MAX_WORK} registers, fields, values and lines of text"
            )


def _instances(element: ET.Element, row: _Row | None) -> list[tuple[str, int, _Row | None]]:
    """Return what an element stands for: names, distances, and the rows that they are in."""
    name = name_of(element)
    dim = number_of(element, "dim") or 1
    if name.endswith("[%s]") and (row is None or dim == 1):
        own = _Row(dim, number_of(element, "dimIncrement") or 0) if dim > 1 else row
        return [(bare(name), 0, own)]
    return [(spelled, distance, row) for spelled, distance in expanded(element)]


def _agreed(fields: tuple[Field, ...]) -> tuple[Access, tuple[Field, ...]]:
    """Return the access that all fields have, who needn't say it any more; or read-write."""
    accesses = {each.access for each in fields}
    agreed = accesses.pop() if len(accesses) == 1 else None
    if agreed is None:
        return Access.READ_WRITE, fields
    return agreed, tuple(replace(each, access=None) for each in fields)
